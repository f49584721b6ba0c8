"""Where samples are read from: spans of videos, clips in shards, files of pictures.

What a source gives of a sample is drawn anew every time; it is a function of the generator that it
is given, and of nothing else.

Shape letters: T frames, H x W pixels.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import PositiveFloat, PositiveInt

from pipeline.common.frames import Frames
from pipeline.common.params import Section
from pipeline.pretrain.manifest import MANIFEST, POINTS, SQUARES, Clip, Picture, Row, Rows, Span
from pipeline.pretrain.picture_files import UnusablePicture, read_picture, shrink_to
from pipeline.pretrain.seek import VideoTrack, read_moments
from pipeline.store.contents import Place
from pipeline.store.folders import LocalShards
from pipeline.store.strips import decode_strip, strip_size
from pipeline.video.container import UnusableVideo
from pipeline.video.crops import Square, cut
from pipeline.video.sampling import sample_indices

# What a source raises for a sample that cannot be read: it is skipped, and counted.
Unusable = (UnusableVideo, UnusablePicture)
Number = TypeVar("Number", np.int64, np.float32)
# Of a span, frames that may stay in memory.
_KEPT_FRAMES = 256


class ClipSettings(Section):
    """Which clips of a video an epoch sees.

    Attributes:
        num_frames: T.
        stride: Frames from one frame of a clip to its next. A video that is too short for it is
            sampled evenly.
        seconds_per_clip: An epoch draws one clip out of each such part of a video.
    """

    num_frames: PositiveInt
    stride: PositiveInt
    seconds_per_clip: PositiveFloat


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
            UnusableVideo: The video cannot be read.
            UnusablePicture: The picture cannot be read.
        """
        ...


class _Source(Generic[Row]):
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


class VideoClips(_Source[Span]):
    """Clips of T frames out of spans of videos; a long span has several, one out of each section.

    Args:
        videos: Folder that the paths start from.
        folder: Of the collection.
        part: `train` or `held_out`.
        settings: Which clips.
        num_frames: T.
        side: Shorter side of the pictures, to which larger ones are shrunk; see
            `AugmentSettings.side_before`.
        keep_bytes: Decoded frames of short spans that may stay in memory, for spans that are read
            many times; every process that reads keeps its own.
    """

    def __init__(
        self,
        videos: Path,
        folder: Path,
        part: str,
        settings: ClipSettings,
        *,
        num_frames: int,
        side: int,
        keep_bytes: int = 0,
    ) -> None:
        self.videos = videos
        self.folder = folder
        super().__init__(Rows(folder / MANIFEST, Span, part))
        self.settings = settings
        self.num_frames = num_frames
        self.side = side
        self.room = keep_bytes
        self.kept: dict[int, Frames] = {}
        seconds: npt.NDArray[np.float64] = self.rows.columns["seconds"]
        sections = np.maximum(1, seconds // settings.seconds_per_clip).astype(np.int64)
        self.ends = sections.cumsum()

    def __len__(self) -> int:
        return int(self.ends[-1])

    def name(self, number: int) -> str:
        return f"{super().name(number)}:{self._place(number).section}"

    def read(self, number: int, random: np.random.Generator | None) -> Frames:
        row, section, num_sections = self._place(number)
        span = self.rows[row]
        indices = clip_indices(
            span.num_frames,
            self.num_frames,
            self.settings.stride,
            (section + (0.5 if random is None else random.random())) / num_sections,
        )
        if row not in self.kept:
            if not self._may_keep(span):
                return self._pictures(span, indices)
            frames = self._pictures(span, range(span.num_frames))
            self.room -= frames.nbytes
            self.kept[row] = frames
        return self.kept[row][indices]

    def _row(self, number: int) -> int:
        return self._place(number).row

    def _place(self, number: int) -> "_Place":
        row = int(self.ends.searchsorted(number, side="right"))
        before = int(self.ends[row - 1]) if row else 0
        return _Place(row, number - before, int(self.ends[row]) - before)

    def _may_keep(self, span: Span) -> bool:
        # Taken as no wider than twice their height.
        most = span.num_frames * 6 * self.side**2
        return span.num_frames <= _KEPT_FRAMES and most <= self.room

    def _pictures(self, span: Span, indices: Sequence[int]) -> Frames:
        """These frames of a span, none of which depends on the others that are asked for."""
        low, high = min(indices), max(indices)
        points = _numbers(self.folder / POINTS, np.int64, span.first_point + low, high - low + 1)
        track = VideoTrack(
            span.stream, span.is_timed, Fraction(span.pixel_width, span.pixel_height)
        )
        wanted = [int(points[i - low]) for i in indices]
        pictures = read_moments(self.videos / span.path, track, wanted)
        if not span.num_squares:
            return shrink_to(pictures, self.side)
        known = _numbers(
            self.folder / SQUARES, np.float32, 4 * span.first_square, 4 * span.num_squares
        ).reshape(-1, 4)
        return cut(pictures, squares_of(known, indices, span.square_step), self.side)


class _Place(NamedTuple):
    """Where a clip comes from: which section of how many of which row."""

    row: int
    section: int
    num_sections: int


def clip_indices(num_frames: int, num_samples: int, stride: int, position: float) -> list[int]:
    """Indices of a clip's frames.

    Args:
        num_frames: Of the span.
        num_samples: T.
        stride: Frames from one to the next.
        position: From 0, the first clip that there is, to just below 1, the last one.
    """
    num_starts = num_frames - (num_samples - 1) * stride
    if num_starts < 1:
        return sample_indices(num_frames, num_samples)
    start = int(position * num_starts)
    return [start + i * stride for i in range(num_samples)]


def squares_of(known: npt.NDArray[np.float32], indices: Sequence[int], step: int) -> list[Square]:
    """The face's squares in some frames, between those (K, 4) of every `step`-th frame."""
    at = np.asarray(indices) / step
    columns = [np.interp(at, np.arange(len(known)), column) for column in known.T]
    return [Square(*row) for row in np.column_stack(columns).tolist()]


def _numbers(path: Path, kind: type[Number], first: int, count: int) -> npt.NDArray[Number]:
    """Some of a file's numbers. Read, not mapped: a map would count as memory page by page."""
    size = np.dtype(kind).itemsize
    numbers = np.fromfile(path, kind, count, offset=first * size)
    if len(numbers) < count:
        raise ValueError(f"{path} ends too early: collect the samples again")
    return numbers


class ShardClips(_Source[Clip]):
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


class Pictures(_Source[Picture]):
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
        return read_picture(self.pictures / self.path(number), self.side)
