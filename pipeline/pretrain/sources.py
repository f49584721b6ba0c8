"""Where samples are read from: clips in shards, files of pictures; video_clips.py has videos.

What a source gives of a sample is drawn anew every time; it is a function of the generator that it
is given, and of nothing else.

Shape letters: T frames, H x W pixels.
"""

from pathlib import Path
from typing import Generic, Protocol

import numpy as np

from pipeline.common.frames import Frames
from pipeline.pretrain.crops import shrink_to
from pipeline.pretrain.manifest import MANIFEST, Clip, Picture, Row, Rows
from pipeline.store.contents import Place
from pipeline.store.folders import LocalShards
from pipeline.store.strips import decode_strip, strip_size
from pipeline.video.picture_file import open_picture


class SampleSource(Protocol):
    """Samples that are numbered from 0."""

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """Unique among the samples, and the same in every run."""
        ...

    def group(self, number: int) -> str:
        """Whoever is seen."""
        ...

    def path(self, number: int) -> str:
        """Of the file, as the manifest has it."""
        ...

    def groups(self) -> dict[str, list[str]]:
        """The groups of every data set, sorted."""
        ...

    def read(self, number: int, random: np.random.Generator | None) -> Frames:
        """T pictures (T, H, W, 3).

        Args:
            number: Of the sample.
            random: Which of its frames. None: those in the middle.

        Raises:
            UnusableVideo: The video or picture cannot be read.
        """
        ...


class ManifestSource(Generic[Row]):
    """What all sources have in common: a row of the manifest for each sample."""

    def __init__(self, rows: Rows[Row]) -> None:
        self.rows: Rows[Row] = rows

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, number: int) -> str:
        return self._text("sample", number)

    def group(self, number: int) -> str:
        return self._text("group", number)

    def path(self, number: int) -> str:
        return self._text("path", number)

    def groups(self) -> dict[str, list[str]]:
        return self.rows.groups()

    def _row(self, number: int) -> int:
        return number

    def _text(self, column: str, number: int) -> str:
        return str(self.rows.columns[column][self._row(number)])


class ShardClips(ManifestSource[Clip]):
    """Clips in this project's shards, whole or a frame of each.

    Args:
        source: Folder that the shards' paths start from.
        folder: Of the collection.
        part: `train` or `held_out`.
        num_frames: T, of a clip as a model reads it; 1 takes a single frame of it.
        side: Shorter side of the pictures, to which larger ones are shrunk; see
            `AugmentSettings.side_before`.
    """

    def __init__(
        self, source: Path, folder: Path, part: str, *, num_frames: int, side: int
    ) -> None:
        self.shards = LocalShards(source)
        super().__init__(Rows(folder / MANIFEST, Clip, part))
        self.num_frames = num_frames
        self.side = side

    def read(self, number: int, random: np.random.Generator | None) -> Frames:
        clip = self.rows[number]
        name = clip.sample.removeprefix(f"{clip.dataset}/")
        place = Place(name, "", clip.path, clip.first_byte, clip.end)
        strip = next(self.shards.read([place])).strip
        size = strip_size(strip)
        # Scaled while it is decoded, but not below what crops need.
        factor = next((f for f in (8, 4, 2) if size % f == 0 and size // f >= self.side), 1)
        frames = decode_strip(strip, size // factor)
        if len(frames) % self.num_frames:
            raise ValueError(
                f"{clip.sample} has {len(frames)} stored frames, which do not divide into clips of "
                f"{self.num_frames}: label the data set with frames.num_frames={self.num_frames}"
            )
        # Several samplings of a clip are stored in turn.
        segments = len(frames) // self.num_frames
        segment = segments // 2 if random is None else int(random.integers(segments))
        return frames[segment::segments]


class Pictures(ManifestSource[Picture]):
    """Files of pictures.

    Args:
        pictures: Folder that the paths start from.
        folder: Of the collection.
        part: `train` or `held_out`.
        side: Shorter side of the pictures, to which larger ones are shrunk; see
            `AugmentSettings.side_before`.
    """

    def __init__(self, pictures: Path, folder: Path, part: str, *, side: int) -> None:
        self.pictures = pictures
        super().__init__(Rows(folder / MANIFEST, Picture, part))
        self.side = side

    def read(self, number: int, random: np.random.Generator | None) -> Frames:
        picture = open_picture(self.pictures / self.path(number), self.side)
        return shrink_to(np.asarray(picture)[None], self.side)
