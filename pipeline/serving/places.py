"""From pixels of the pictures that a model's reader sees to fractions of the whole picture."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.common.frames import Crop
from pipeline.video.crops import Square, to_picture

Array = npt.NDArray[np.float32]


class Places(NamedTuple):
    """Places in a film.

    Attributes:
        width: Of a picture, of which with crop `square` something is cut away, in pixels.
        height: Likewise.
        crop: What is cut away before faces are looked for.
        aspect: Width of the whole picture over its height.
    """

    width: int
    height: int
    crop: Crop
    aspect: float

    def points(self, pixels: npt.NDArray[np.floating]) -> Array:
        """Points (..., 2), x, y in pixels of a picture, as fractions of the whole one."""
        shares = pixels / np.array([self.width, self.height])
        if self.crop == "square":
            sides = np.array([min(1, 1 / self.aspect), min(1, self.aspect)])
            shares = (1 - sides) / 2 + shares * sides
        return np.asarray(shares, np.float32)

    def box(self, corners: npt.NDArray[np.floating]) -> Array:
        """A box (4,), x1, y1, x2, y2 in pixels of a picture, as x, y, width, height."""
        first, second = self.points(corners.reshape(2, 2))
        return np.concatenate([first, second - first])

    def points_of_model(self, points: Array, square: Square) -> Array:
        """Points (..., 2) as fractions of a square in a picture."""
        return self.points(to_picture(points, square))

    def box_of_model(self, box: Array, square: Square) -> Array:
        """A box (4,), x, y, width, height as fractions of a square in a picture.

        Where the square is turned, the box is upright at the same place.
        """
        half = box[2:] / 2
        centre = to_picture(box[:2] + half, square)
        return self.box(np.stack([centre - half * square.side, centre + half * square.side]))
