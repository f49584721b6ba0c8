"""The record of one clip, and the manifests that carry every clip through the stages.

Until its faces are found a clip is a `Clip`, usable or refused. A usable one with a face is stored
in a shard, and becomes a `StoredClip`.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from io import BufferedIOBase
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.common.files import atomic_path

Times = npt.NDArray[np.float64]
Shots = npt.NDArray[np.int64]
# Of every clip that is not sampled yet: one of each, as clips are many.
_NO_TIMES, _NO_SHOTS = np.empty(0), np.empty(0, np.int64)
_NO_TIMES.flags.writeable = _NO_SHOTS.flags.writeable = False

SUBJECT, FILM, CLIP = "subject", "film", "clip"
"""What folds keep together."""
NO_PART = "-"
"""In place of a part: the lists of a fold have not got the clip."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a clip cannot be used: a short code to count by, and a sentence that says what to do."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Clip:
    """One video of the data set, usable or refused.

    Attributes:
        clip: Name that is unique in the data set and safe in a file name or a WebDataset key.
        path: Video file or folder of pictures, relative to the folder of the data set's videos.
        subject: Who is seen; folds are made of whole subjects. Where nobody knows, `group_kind`
            says what it names instead.
        label: Expression in the project's vocabulary.
        sex: `female`, `male`, or empty where it is not known.
        reason: Code of the refusal; empty for a usable clip.
        message: The refusal in words.
        row: Row in the user's table; 0 where the clip comes from no table.
        split: Part of the clip where a table or a list says so: `train`, `validation` or `test`.
            Of several folds a word each, in their order, and `NO_PART` for a fold without it.
        num_frames: Frames of the video; 0 before it is sampled.
        seconds: Length of the video as its container says; 0 where that is not known.
        holes: Frames of the video that are known to be damaged or missing.
        stream: Which of several streams of the video was taken; empty for the only one.
        content: SHA-256 of the sampled frames, in hexadecimal; empty before the video is sampled.
        times: When each of these is shown, in seconds after the first frame of the video.
        shots: Which shot each is of; `OTHER_SHOT` if not of that in which the clip's person is.
        group_kind: What `subject` names: `subject`, `film` or, where neither is known, `clip`.
    """

    clip: str
    path: str
    subject: str
    label: str
    sex: str = ""
    reason: str = ""
    message: str = ""
    row: int = 0
    split: str = ""
    num_frames: int = 0
    seconds: float = 0.0
    holes: int = 0
    stream: str = ""
    content: str = ""
    times: Times = field(default_factory=lambda: _NO_TIMES, compare=False)
    shots: Shots = field(default_factory=lambda: _NO_SHOTS, compare=False)
    group_kind: str = SUBJECT

    def named(self, clip: str) -> Self:
        """The same clip under another name."""
        return replace(self, clip=clip)

    def refuse(self, refusal: Refusal) -> Self:
        """The same clip, refused."""
        return replace(self, reason=refusal.reason, message=refusal.message)


@dataclass(frozen=True, slots=True)
class StoredClip:
    """One labelled clip in a shard.

    Attributes:
        clip: As in `Clip`, and so are `path`, `label`, `sex`, `split`, `num_frames`, `seconds`,
            `content`, `times` and `group_kind`.
        group: What folds keep together: the subject or, where nobody knows, what `group_kind` says.
        digest: SHA-256 of frames, boxes, points and mask, in hexadecimal.
        shard: Name of the shard, a file in the manifest's folder.
        first_byte: Where the clip begins in the shard.
        end: Where it ends: the first byte after it.
    """

    clip: str
    path: str
    group: str
    label: str
    sex: str = ""
    split: str = ""
    num_frames: int = 0
    seconds: float = 0.0
    content: str = ""
    digest: str = ""
    shard: str = ""
    first_byte: int = 0
    end: int = 0
    # An array: a list of Python's numbers takes three times the memory, and clips are many.
    times: Times = field(default_factory=lambda: _NO_TIMES, compare=False)
    group_kind: str = SUBJECT


Record = TypeVar("Record", Clip, StoredClip)


def write_manifest(path: Path, clips: Iterable[Clip]) -> None:
    """Write the clips as Parquet, in the order given; the file appears only when whole."""
    _write(path, clips, Clip)


def read_manifest(path: Path) -> list[Clip]:
    """Read what `write_manifest` wrote."""
    return _read(path, Clip)


def write_stored(path: Path, clips: Iterable[StoredClip]) -> None:
    """Write the manifest of shards as Parquet, in the order given."""
    _write(path, clips, StoredClip)


def read_stored(source: Path | BufferedIOBase) -> list[StoredClip]:
    """Read what `write_stored` wrote."""
    return _read(source, StoredClip)


def _write(path: Path, clips: Iterable[Record], kind: type[Record]) -> None:
    # Arrays, which are not compared, have their type already.
    plain = {column.name: column.type for column in fields(kind) if column.compare}
    records = list(clips)
    # By columns: a dict for each of a million clips takes ten gigabytes.
    columns = {
        column.name: pd.Series([getattr(clip, column.name) for clip in records], dtype=object)
        for column in fields(kind)
    }
    table = pd.DataFrame(columns).astype(plain)
    if (table["group_kind"] == SUBJECT).all():
        # Where people are known nothing is to be said about it.
        table = table.drop(columns="group_kind")
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def _read(source: Path | BufferedIOBase, kind: type[Record]) -> list[Record]:
    table = pd.read_parquet(source)
    if "group_kind" not in table:
        table["group_kind"] = SUBJECT
    return [kind(*row) for row in table.itertuples(index=False, name=None)]


def group_words(clips: Iterable[Clip | StoredClip]) -> str:
    """What the clips' groups are, in sentences: `subjects`, `clips`, `films and clips`."""
    kinds = {clip.group_kind for clip in clips} or {SUBJECT}
    return " and ".join(f"{kind}s" for kind in (SUBJECT, FILM, CLIP) if kind in kinds)


def unique_slugs(names: list[str]) -> list[str]:
    """File-safe names, one per distinct input and distinct from one another.

    Letters, digits, `_` and `-` stay; everything else becomes `_`. Where that makes two names
    alike, and where a name already looks like that, it gets the start of its hash:
    `["a b", "a.b", "c"]` -> `["a_b-c8687a08", "a_b-2e7336dc", "c"]`.
    """
    slugs = [re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:100] or "_" for name in names]
    distinct = dict(zip(names, slugs, strict=True))
    count = Counter(slug.casefold() for slug in distinct.values())
    return [
        slug
        if count[slug.casefold()] == 1 and not re.search(r"-[0-9a-f]{8}$", slug)
        else f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        for name, slug in zip(names, slugs, strict=True)
    ]
