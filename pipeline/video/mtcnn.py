"""How MTCNN is asked here, by whatever runs its networks."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.video.tracks import Detections

# The longer side, in pixels, of the copies in which faces are looked for.
LONGER_SIDE = 480
# Coordinates are kept to a hundredth of a pixel; finer digits differ from one processor to the
# next.
_DECIMALS = 2
# MTCNN's own smallest face, in pixels, and the step from one scale of the picture to the next.
_DEFAULT_FACE, _STEP = 20, 0.709


class Pyramid(NamedTuple):
    """The scales at which faces are looked for.

    Attributes:
        smallest: The smallest face, in pixels.
        step: From one scale to the next.
    """

    smallest: float
    step: float

    @classmethod
    def of(cls, min_face_size: int) -> "Pyramid":
        """Without the scales of faces that are smaller than so many pixels.

        A box depends a little on the scales at which MTCNN looks. Leaving out the finest ones of
        its default, instead of starting at others, gives the default's boxes.
        """
        left_out = math.floor(math.log(min_face_size / _DEFAULT_FACE, 1 / _STEP))
        return cls(_DEFAULT_FACE / _STEP**left_out, _STEP)

    def check(self, side: int) -> None:
        """Make sure that a face fits into pictures with a side of so many pixels.

        Raises:
            ValueError: It does not.
        """
        if side < math.ceil(self.smallest):
            raise ValueError(
                f"no face of faces.min_face_size fits into a frame of {side} pixels; lower it, or "
                "raise frames.size"
            )


def detections(boxes: npt.ArrayLike, points: npt.ArrayLike, scores: npt.ArrayLike) -> Detections:
    """A frame's faces (K, 4), (K, 5, 2) and (K,), with the digits that are kept."""
    arrays = (np.asarray(values, dtype=np.float32) for values in (boxes, points, scores))
    return Detections(*(array.round(_DECIMALS) for array in arrays))
