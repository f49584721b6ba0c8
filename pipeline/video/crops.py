"""A square around the face that a clip is about, cut out of large pictures.

Shape letters: T frames, H x W pixels of a picture, S side of the square as it is stored.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from pipeline.common.frames import FaceTrack, Frames

# Of the Gaussian that takes MTCNN's trembling out of a track, in frames.
_SIGMA = 1.0
_LEFT_EYE, _RIGHT_EYE = 0, 1


class Square(NamedTuple):
    """A square in a picture.

    Attributes:
        x: Of its centre, in pixels from the left.
        y: Of its centre, in pixels from the top.
        side: In pixels.
        degrees: By which it is turned clockwise, as the picture is seen.
    """

    x: float
    y: float
    side: float
    degrees: float


def face_squares(track: FaceTrack, *, margin: float, level: bool) -> list[Square]:
    """A square for each of the T frames: where the face is or, as far as is known, should be.

    Centre, size and inclination follow the face smoothly. Frames without a sighting get what lies
    between their neighbours, and those before the first and after the last one what these have.

    Args:
        track: With a sighting at least.
        margin: Side of the square over the longer side of the face's box.
        level: Turn the square with the line between the eyes.
    """
    boxes, points = track.boxes.astype(np.float64), track.points.astype(np.float64)
    corners = boxes[:, 2:] - boxes[:, :2]
    eyes = points[:, _RIGHT_EYE] - points[:, _LEFT_EYE]
    sides = np.log(np.maximum(corners.max(axis=1), 1))
    rows = np.column_stack([(boxes[:, :2] + boxes[:, 2:]) / 2, sides, eyes])
    smooth = gaussian_filter1d(_fill(rows, track.mask), _SIGMA, axis=0, mode="nearest")
    return [
        Square(
            x=round(x, 2),
            y=round(y, 2),
            side=round(margin * math.exp(log_side), 2),
            degrees=round(math.degrees(math.atan2(eye_y, eye_x)), 1) if level else 0.0,
        )
        for x, y, log_side, eye_x, eye_y in smooth.tolist()
    ]


def _fill(rows: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The rows with those outside of the mask filled in."""
    frames, known = np.arange(len(rows)), np.flatnonzero(mask)
    return np.column_stack([np.interp(frames, known, column[known]) for column in rows.T])


def cut(pictures: npt.NDArray[np.uint8], squares: Sequence[Square], size: int) -> Frames:
    """The squares of pictures (T, H, W, 3) as frames (T, S, S, 3).

    Beyond the edge of a picture its last pixels go on.
    """
    return np.stack(
        [_cut(picture, square, size) for picture, square in zip(pictures, squares, strict=True)]
    )


def _cut(picture: npt.NDArray[np.uint8], square: Square, size: int) -> npt.NDArray[np.uint8]:
    # A turned square lies in a larger upright one: that is scaled, turned and trimmed.
    turn = math.radians(abs(square.degrees) % 90)
    edge = math.ceil(size * (math.sin(turn) + math.cos(turn) - 1) / 2)
    larger = size + 2 * edge
    half = square.side * larger / size / 2
    left, top = math.floor(square.x - half), math.floor(square.y - half)
    right, bottom = math.ceil(square.x + half), math.ceil(square.y + half)
    x, y = square.x - left, square.y - top
    # Rounding can put an edge that lies between two pixels beyond them, where Pillow raises.
    box = (
        max(0.0, x - half),
        max(0.0, y - half),
        min(x + half, right - left),
        min(y + half, bottom - top),
    )
    upright = Image.fromarray(_region(picture, left, top, right, bottom)).resize(
        (larger, larger), Image.Resampling.BICUBIC, box=box
    )
    if square.degrees:
        upright = upright.rotate(square.degrees, Image.Resampling.BICUBIC)
    return np.asarray(upright)[edge : edge + size, edge : edge + size]


def _region(
    picture: npt.NDArray[np.uint8], left: int, top: int, right: int, bottom: int
) -> npt.NDArray[np.uint8]:
    """The pixels from left to right and top to bottom, without the last ones."""
    height, width = picture.shape[:2]
    if 0 <= left and right <= width and 0 <= top and bottom <= height:
        return picture[top:bottom, left:right]
    rows = np.arange(top, bottom).clip(0, height - 1)
    columns = np.arange(left, right).clip(0, width - 1)
    region: npt.NDArray[np.uint8] = picture[rows[:, None], columns]
    return region


def shrink(
    pictures: npt.NDArray[np.uint8], longer_side: int
) -> tuple[npt.NDArray[np.uint8], float]:
    """Copies (T, h, w, 3) of pictures that are no longer than that, and their scale, at most 1."""
    height, width = pictures.shape[1:3]
    scale = min(1.0, longer_side / max(height, width))
    if scale == 1:
        return pictures, scale
    size = max(1, round(width * scale)), max(1, round(height * scale))
    copies = [
        Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR) for picture in pictures
    ]
    return np.stack([np.asarray(copy) for copy in copies]), scale


def to_picture(points: npt.NDArray[np.floating], square: Square) -> npt.NDArray[np.float64]:
    """Points (..., 2), x, y as fractions of a square, in pixels of the picture."""
    turn = math.radians(square.degrees)
    turned = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    placed = (points - 0.5) * square.side @ turned.T + np.array([square.x, square.y])
    return np.asarray(placed, np.float64)
