"""Clips of any length of video, drawn anew every time; see sources.py.

Shape letters: T frames, H x W pixels, K looks for a face.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import PositiveFloat, PositiveInt

from pipeline.common.frames import Frames
from pipeline.common.params import Section
from pipeline.pretrain.crops import shrink_to
from pipeline.pretrain.manifest import MANIFEST, POINTS, SQUARES, Rows, Span
from pipeline.pretrain.seek import VideoTrack, read_moments
from pipeline.pretrain.sources import ManifestSource
from pipeline.video.container import UnusableVideo
from pipeline.video.crops import Square, cut
from pipeline.video.pictures import Picture as PictureArray
from pipeline.video.pictures import same_size
from pipeline.video.sampling import sample_indices

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


class VideoClips(ManifestSource[Span]):
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
        if row not in self.kept and self._may_keep(span):
            self._keep(row, span)
        if row in self.kept:
            return self.kept[row][indices]
        return self._prepare(span, indices, self._read(span, indices))

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

    def _keep(self, row: int, span: Span) -> None:
        """Keep all frames of a span, unless a clip alone would give others."""
        everything = range(span.num_frames)
        try:
            pictures = self._read(span, everything)
        except UnusableVideo:
            return  # It is damaged somewhere, which concerns the clips there alone.
        if len({picture.shape for picture in pictures}) == 1:
            self.kept[row] = self._prepare(span, everything, pictures)
            self.room -= self.kept[row].nbytes

    def _read(self, span: Span, indices: Sequence[int]) -> list[PictureArray]:
        """These frames of a span, as they are shown."""
        low, high = min(indices), max(indices)
        points = _numbers(self.folder / POINTS, np.int64, span.first_point + low, high - low + 1)
        track = VideoTrack(
            span.stream, span.is_timed, Fraction(span.pixel_width, span.pixel_height)
        )
        return read_moments(self.videos / span.path, track, [int(points[i - low]) for i in indices])

    def _prepare(
        self, span: Span, indices: Sequence[int], pictures: Sequence[PictureArray]
    ) -> Frames:
        """The frames, small enough, or the face in them."""
        alike = same_size(pictures)
        if not span.num_squares:
            return shrink_to(alike, self.side)
        known = _numbers(
            self.folder / SQUARES, np.float32, 4 * span.first_square, 4 * span.num_squares
        ).reshape(-1, 4)
        return cut(alike, squares_of(known, indices, span.square_step), self.side)


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
