"""Where the windows of a film are, over which a model looks.

Shape letters: P points of a window.
"""

from dataclasses import dataclass
from typing import NamedTuple

# A video that is up to so many times as long as a window is looked at as a whole, as in training.
_WHOLE = 1.5


@dataclass(frozen=True)
class WindowChoice:
    """Which windows of a film are looked at.

    Attributes:
        length: In seconds.
        hop: From the start of one to that of the next, in seconds; windows overlap, as people are
            told by what windows have in common.

    Raises:
        ValueError: They do not overlap.
    """

    length: float
    hop: float

    def __post_init__(self) -> None:
        if not 0 < self.hop < self.length:
            raise ValueError(
                f"windows of {self.length:g} s that start every {self.hop:g} s do not overlap, and "
                "people are followed from one to the next: choose a hop between 0 and the length"
            )


class Windows(NamedTuple):
    """Windows over points that are spread evenly over a film.

    Attributes:
        num_points: Of the film.
        size: Points P of a window.
        starts: The first point of each window, ascending; the last window ends with the film.
    """

    num_points: int
    size: int
    starts: list[int]


def place_windows(seconds: float, choice: WindowChoice, size: int) -> Windows:
    """Windows that cover a film.

    A film of up to one and a half windows is one window. A longer one has so many points that a
    window is as long as is asked for, but for the rounding to whole points.

    Args:
        seconds: Length of the film.
        choice: How long they are, and how far apart.
        size: Points P of a window, of which a model takes one frame each.
    """
    if seconds < _WHOLE * choice.length:
        return Windows(size, size, [0])
    num_points = round(size * seconds / choice.length)
    step = min(max(1, round(size * choice.hop / choice.length)), size - 1)
    last = num_points - size
    return Windows(num_points, size, [*range(0, last, step), last])
