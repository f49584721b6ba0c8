"""What a fold is trained and tested on: some of the clips of a manifest, as frames or as tokens."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple, Self

from pipeline.common.clips import StoredClip
from pipeline.folds.folds import Fold, read_fold
from pipeline.store.folders import Shards, read_clips
from pipeline.store.stored_frames import StoredFrames
from pipeline.store.tokens import Origin, StoredTokens


class FoldData(NamedTuple):
    """One fold, where its clips and tokens are, and what its encoder starts from."""

    shards: Shards
    start: Path
    tokens: Path
    clips: list[StoredClip]
    fold: Fold

    @classmethod
    def read(cls, number: int, shards: Shards, start: Path, tokens: Path, folds: Path) -> Self:
        """A fold from where the stages before wrote it."""
        return cls(shards, start, tokens, read_clips(shards), read_fold(folds, number))

    def groups(self, *parts: str) -> list[str]:
        """The groups (subjects) of some parts, sorted."""
        rows = [row for part in parts for row in self.fold.rows(self.clips, part)]
        return sorted({self.clips[row].group for row in rows})

    def median_seconds(self, part: str) -> float:
        """Of the clips of a part that declare a length; 0 where none does."""
        lengths = [self.clips[row].seconds for row in self.fold.rows(self.clips, part)]
        return round(median([length for length in lengths if length] or [0.0]), 3)

    def frames(
        self, part: str, *, classes: Sequence[str], image_size: int, segments: int, keep_bytes: int
    ) -> StoredFrames:
        """The clips of a part, as frames; see `StoredFrames`."""
        return StoredFrames(
            self.shards,
            [self.clips[row] for row in self.fold.rows(self.clips, part)],
            classes=classes,
            image_size=image_size,
            segments=segments,
            keep_bytes=keep_bytes,
        )

    def stored_tokens(self, part: str, *, classes: Sequence[str], origin: Origin) -> StoredTokens:
        """The clips of a part, as tokens of that origin; see `StoredTokens`."""
        rows = self.fold.rows(self.clips, part)
        return StoredTokens(self.tokens, self.clips, rows, classes=classes, origin=origin)
