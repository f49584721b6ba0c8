"""The faces of the embedded data set in numbers: action units, expressions and how people differ.

Coordinates are face pixels: x right, y down, the origin between eyes and mouth of an unmoved face.

Source: the units are those of Ekman and Friesen's Facial Action Coding System; the numbers fit the
portrait.
"""

from typing import NamedTuple


class Bump(NamedTuple):
    """A push that is strongest at (x, y) and ends at the ellipse of radii (rx, ry).

    It moves the centre by (dx, dy) face pixels and makes its surroundings larger by the fractions
    (gx, gy). Off the midline it comes with its mirror image.
    """

    x: float
    y: float
    rx: float
    ry: float
    dx: float = 0
    dy: float = 0
    gx: float = 0
    gy: float = 0


# By number in the Facial Action Coding System; a weight of 1 is a marked movement.
ACTION_UNITS = {
    1: Bump(22, -60, 32, 27, dy=-10),  # inner brow raiser
    2: Bump(54, -61, 34, 28, dy=-10),  # outer brow raiser
    4: Bump(24, -54, 36, 30, dx=-6, dy=10),  # brow lowerer
    5: Bump(39, -37, 32, 26, gx=0.16, gy=0.23),  # upper lid raiser
    6: Bump(46, -6, 40, 30, dy=-8),  # cheek raiser
    7: Bump(39, -37, 34, 22, gy=-0.6),  # lid tightener
    9: Bump(0, 4, 44, 34, dy=-9),  # nose wrinkler
    10: Bump(14, 31, 30, 24, dy=-7),  # upper lip raiser
    12: Bump(36, 33, 38, 36, dx=5, dy=-12),  # lip corner puller
    15: Bump(40, 33, 44, 40, dy=11),  # lip corner depressor
    18: Bump(0, 38, 70, 36, gx=-0.35),  # lip pucker
    20: Bump(36, 33, 42, 30, dx=9, dy=2),  # lip stretcher
    24: Bump(0, 37, 60, 26, gy=-0.5),  # lip pressor
    26: Bump(0, 92, 100, 66, dy=16),  # jaw drop
}
# The portrait smiles; these weights undo it.
REST = {15: 0.8, 18: 0.5}


class Expression(NamedTuple):
    """How an emotion looks at its apex."""

    code: str  # in RAVDESS
    units: dict[int, float]  # weights of the action units
    opening: float  # face pixels between the lips
    speech: float  # face pixels that speaking adds


EXPRESSIONS = {
    "neutral": Expression("01", {}, 0, 7),
    "happy": Expression("03", {6: 1.0, 7: 0.6, 12: 1.2, 20: 0.7}, 11, 6),
    "sad": Expression("04", {1: 1.1, 2: -0.5, 7: 0.5, 15: 1.0}, 0, 6),
    "angry": Expression("05", {2: 0.4, 4: 1.2, 5: 0.3, 18: 0.3, 24: 1.2}, 0, 4),
    "fearful": Expression("06", {1: 1.2, 2: 0.5, 5: 1.0, 15: 0.9, 20: 1.4}, 14, 6),
    "disgust": Expression("07", {4: 0.7, 6: 0.6, 7: 1.0, 9: 1.2, 10: 1.3, 15: 0.6}, 4, 5),
    "surprised": Expression("08", {1: 1.1, 2: 1.2, 5: 1.1, 18: 0.6, 26: 1.0}, 34, 8),
}

# Subjects differ by up to this much in either direction.
TRAITS = (
    Bump(0, 10, 170, 190, gx=0.08),  # breadth and height of the head
    Bump(0, 10, 170, 190, gy=0.05),
    Bump(0, 85, 120, 80, gx=0.14),  # breadth and length of the jaw
    Bump(0, 95, 110, 60, dy=6),
    Bump(39, -40, 60, 60, dx=4),  # distance and size of the eyes
    Bump(39, -37, 34, 24, gx=0.15, gy=0.15),
    Bump(39, -56, 50, 28, dy=3),  # brows
    Bump(0, 8, 46, 46, dy=4),  # length and breadth of the nose
    Bump(0, 8, 46, 46, gx=0.2),
    Bump(0, 40, 80, 46, dy=4),  # height and breadth of the mouth
    Bump(0, 40, 80, 46, gx=0.12),
)
