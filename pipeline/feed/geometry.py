"""Changes of place as matrices: one resampling of a clip's pixels, and the labels that go along.

A matrix (3, 3) leads from a place in the new frame to its source in the old one, x and y from -1 to
1 as in grid_sample.

Shape letters: T frames, I side of a square frame in pixels.
"""

from collections.abc import Callable
from math import cos, exp, log, radians, sin, sqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# RandAugment's, as the first two rows of a matrix. As in timm, shears keep the top or left edge in
# place.
GEOMETRIC: dict[str, Callable[[float], list[list[float]]]] = {
    "Rotate": lambda degrees: [[cos(a := radians(degrees)), -sin(a), 0], [sin(a), cos(a), 0]],
    "ShearX": lambda factor: [[1, factor, factor], [0, 1, 0]],
    "ShearY": lambda factor: [[1, 0, 0], [factor, 1, factor]],
    "TranslateXRel": lambda share: [[1, 0, 2 * share], [0, 1, 0]],
    "TranslateYRel": lambda share: [[1, 0, 0], [0, 1, 2 * share]],
}


def random_crop(
    smallest_area: float, largest_aspect: float, side: int, generator: np.random.Generator
) -> Tensor:
    """The matrix by which a random rectangle of whole pixels comes to fill the frame.

    Its area is uniform, the logarithm of its width over its height too. Of ten rectangles the first
    one that fits is taken, or else the whole frame.

    Args:
        smallest_area: As a share of the frame.
        largest_aspect: Of width to height, and of height to width.
        side: I.
        generator: Advanced.

    Source: RandomResizedCrop of torchvision.
    """
    for _ in range(10):
        area = side**2 * generator.uniform(smallest_area, 1)
        aspect = exp(log(largest_aspect) * generator.uniform(-1, 1))
        width, height = round(sqrt(area * aspect)), round(sqrt(area / aspect))
        if 0 < width <= side and 0 < height <= side:
            left, top = generator.integers([side - width + 1, side - height + 1]).tolist()
            rows = [
                [width / side, 0, (2 * left + width) / side - 1],
                [0, height / side, (2 * top + height) / side - 1],
            ]
            return torch.tensor([*rows, [0, 0, 1]], dtype=torch.float64)
    return torch.eye(3, dtype=torch.float64)


def resample(frames: Tensor, source: Tensor) -> Tensor:
    """Frames (T, 3, I, I), uint8, moved by a matrix: bilinear, filled with grey (128)."""
    grid = F.affine_grid(source[None, :2].float(), [1, *frames.shape[1:]], align_corners=False)
    # All frames as the channels of one picture; grid_sample fills with 0, which 128 makes grey.
    channels = frames.flatten(0, 1)[None].float().sub_(128)
    moved = F.grid_sample(channels, grid, align_corners=False).add_(128)
    return moved.round_().to(torch.uint8).view_as(frames)


def move_labels(boxes: Tensor, points: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (T, 4) and points (T, 5, 2) moved by the inverse of a matrix.

    Boxes bound their moved corners and end at the frame's edge. Also returned is, (T,), whether a
    box's centre is inside of the frame.
    """

    def moved(places: Tensor) -> Tensor:
        return ((2 * places.double() - 1) @ target[:2, :2].T + target[:2, 2] + 1) / 2

    unit_square = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    corners = moved(boxes[:, None, :2] + boxes[:, None, 2:] * unit_square).clamp(0, 1)
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    centre = moved(boxes[:, :2] + boxes[:, 2:] / 2)
    inside = (centre == centre.clamp(0, 1)).all(dim=1)
    return torch.cat([low, high - low], dim=1).to(boxes), moved(points).to(points), inside
