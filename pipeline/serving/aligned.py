"""A face turned, moved and scaled until its landmarks lie where a model's training had them.

Shape letters: N landmarks by which faces are aligned, at least two.
"""

import math

import numpy as np
import numpy.typing as npt

from pipeline.video.crops import Square, to_picture

Points = npt.NDArray[np.float64]
"""(N, 2) eyes, nose, mouth corners, left as seen in the picture, as fractions of its side."""

# Where aligned faces of 112 pixels have all five by convention. Source: the reference points of the
# implementation of ArcFace (arXiv 1801.07698).
ARCFACE: Points = (
    np.array(
        [
            (38.2946, 51.6963),
            (73.5318, 51.5014),
            (56.0252, 71.7366),
            (41.5493, 92.3655),
            (70.7299, 92.2041),
        ]
    )
    / 112
)
# Where MTCNN finds the eyes in the pictures of the affect set `rendered`: the mean of 120 pictures
# of 60 people. These faces are drawn in place, and not moved by their landmarks; the mouth moves
# with the expression, and a face that is aligned by it as well is further from how it was drawn.
RENDERED: Points = np.array([(0.300, 0.246), (0.706, 0.245)])


def aligned_square(points: npt.NDArray[np.floating], template: Points) -> Square:
    """The square in which the points lie as close to the template as they can.

    Of all shifts, turns and scales it is that with the least squares of distances in the picture.

    Args:
        points: (5, 2) eyes, nose and mouth corners, in pixels of the picture.
        template: Of the first N of these.
    """
    known = points[: len(template)].astype(np.float64)
    # Points as complex numbers: a turn and a scale are one factor.
    found = known[:, 0] + 1j * known[:, 1]
    wanted = template[:, 0] + 1j * template[:, 1]
    around = wanted - wanted.mean()
    factor = complex((around.conj() * found).sum() / (abs(around) ** 2).sum())
    side, degrees = abs(factor), math.degrees(math.atan2(factor.imag, factor.real))
    # Where the template's middle lies in a square of this side and turn around the origin.
    middle = to_picture(template.mean(axis=0), Square(0.0, 0.0, side, degrees))
    x, y = (known.mean(axis=0) - middle).tolist()
    # Finer digits are the detector's trembling, and a face that lies right is not to be turned.
    return Square(round(x, 2), round(y, 2), round(side, 2), round(degrees, 2))
