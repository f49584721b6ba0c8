"""Where the picture of a video changes as a whole, and another shot begins.

Each frame is compared, as a small grey copy, with the one before it. At a cut this step is far
larger than those around it, unlike in a movement of a head or of the camera; the picture does not
come back, as it does after a flash; and its edges are others, which they are not when the light
changes or the camera is pushed. A cross-fade has no such step and is not found, nor is a cut in
the middle of a violent movement.

Shape letters: S side of a copy, in cells.
"""

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

Copy = npt.NDArray[np.float64]
"""Grey levels (S, S), means over a cell."""

_SIDE, _PIXELS = 32, 4  # Cells of a copy, and pixels of a cell, each way.
_SCALING = Interpolation.POINT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
# A step is a cut from this mean difference on, in grey levels of 256, ...
_SMALLEST_STEP = 6
# if it is so many times as large as those of so many frames before and after it, ...
_TIMES_AS_LARGE, _FRAMES_AROUND = 3, 6
# so that a frame's shot is known when so many frames after it are,
FRAMES_AFTER = _FRAMES_AROUND + 2
# and no shift by so many cells makes the edges before and after it correlate by so much.
_SHIFT, _SAME_EDGES = 3, 0.7


class ShotFinder:
    """Takes the frames of a video one after the other, and keeps the copies of four."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._recent: list[Copy] = []
        self._steps: list[float] = []
        self._changes: list[int] = []

    def add(self, frame: VideoFrame) -> None:
        """Raises av.FFmpegError for a frame of a form that cannot be converted."""
        side = _SIDE * _PIXELS
        grey = self._reformatter.reformat(
            frame, side, side, "gray", None, None, _SCALING, threads=1
        )
        # In two steps: a mean over both axes takes three times as long.
        rows = grey.to_ndarray().reshape(_SIDE, _PIXELS, side).sum(axis=1, dtype=np.uint16)
        copy = rows.reshape(_SIDE, _SIDE, _PIXELS).sum(axis=2, dtype=np.uint16) / _PIXELS**2
        if not self._recent:
            self._recent = [copy]  # As if it had been shown before, too.
        self._steps.append(_difference(self._recent[-1], copy))
        self._recent = [*self._recent[-3:], copy]
        if self._is_change(len(self._steps) - 2, self._recent):
            self._changes.append(len(self._steps) - 2)

    def first_frames(self) -> list[int]:
        """The frames with which another shot than the first begins, by their numbers from 0."""
        last = len(self._steps) - 1
        changes = list(self._changes)
        if self._is_change(last, [*self._recent[-3:], self._recent[-1]]):
            changes.append(last)
        return [number for number in changes if self._stands_out(number, after=True)]

    def _is_change(self, number: int, copies: list[Copy]) -> bool:
        """Whether frame `number` is another picture than the one before it, and stays.

        Args:
            number: Of the frame.
            copies: Of the two frames before it, itself and the one after it.
        """
        if number < 1 or not self._stands_out(number, after=False):
            return False
        long_before, before, copy, after = copies
        stays = min(_difference(before, after), _difference(long_before, copy))
        return stays >= self._steps[number] / 2 and _likeness(long_before, after) < _SAME_EDGES

    def _stands_out(self, number: int, *, after: bool) -> bool:
        # The steps next to it are left out: a frame may be a mixture of those around it.
        far = number + 2, number + _FRAMES_AROUND + 1
        near = max(1, number - _FRAMES_AROUND), max(1, number - 1)
        others = self._steps[slice(*(far if after else near))]
        limit = max(_SMALLEST_STEP, _TIMES_AS_LARGE * max(others, default=0))
        return self._steps[number] >= limit


def _difference(one: Copy, other: Copy) -> float:
    return float(np.abs(one - other).mean())


def _likeness(one: Copy, other: Copy) -> float:
    """Correlation of the edges of two copies, at the shift at which it is largest."""
    inner = _edges(one)[:, _SHIFT:-_SHIFT, _SHIFT:-_SHIFT]
    shifted = np.lib.stride_tricks.sliding_window_view(_edges(other), inner.shape)[0]
    products = np.einsum("yxdij,dij->yx", shifted, inner)
    energies = np.einsum("yxdij,yxdij->yx", shifted, shifted) * np.square(inner).sum()
    return float((products / np.sqrt(energies + 1)).max())


def _edges(copy: Copy) -> npt.NDArray[np.float64]:
    """(2, S - 1, S - 1): how much brighter the next cell is, across and down."""
    corner = copy[:-1, :-1]
    return np.stack([copy[:-1, 1:] - corner, copy[1:, :-1] - corner])
