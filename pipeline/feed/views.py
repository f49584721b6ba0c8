"""Several views of one clip, as a test averages over them.

Shape letters: B clips, T frames, I side of a square frame in pixels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Side of a window, as a share of the frame's. VideoMAE moves windows of the whole height along a
# frame that is wider than high; these frames are square.
_WINDOW = 7 / 8


class Window(NamedTuple):
    """A square part of a frame: left and top edge and side, as fractions of the frame."""

    left: float
    top: float
    side: float


def crops(frames: Tensor, num_crops: int) -> list[tuple[Tensor, Window]]:
    """Views of clips (B, T, 3, I, I), uint8, each as large as they are.

    One view is the whole frame. More are square windows of whole pixels, 7/8 of the side, spread
    evenly from the left to the right edge in the middle of the height. 224 pixels and three views:
    windows of 196 pixels, from pixel 0, 14 and 28 on across and from pixel 14 on down.

    Raises:
        ValueError: No view is asked for.
    """
    if num_crops < 1:
        raise ValueError(f"{num_crops} crops of a clip; 1 is the whole frame")
    if num_crops == 1:
        return [(frames, Window(0.0, 0.0, 1.0))]
    whole = frames.shape[-1]
    side = round(_WINDOW * whole)
    top = (whole - side) // 2
    views = []
    for i in range(num_crops):
        left = round((whole - side) * i / (num_crops - 1))
        part = frames[..., top : top + side, left : left + side]
        window = Window(left / whole, top / whole, side / whole)
        views.append((_enlarge(part, whole), window))
    return views


def boxes_to_frame(boxes: Tensor, window: Window) -> Tensor:
    """Boxes (..., 4), x, y, w, h as fractions of a window, as fractions of the frame."""
    corner = boxes.new_tensor([window.left, window.top])
    return torch.cat([corner + window.side * boxes[..., :2], window.side * boxes[..., 2:]], dim=-1)


def points_to_frame(points: Tensor, window: Window) -> Tensor:
    """Points (..., 2), x, y as fractions of a window, as fractions of the frame."""
    return points.new_tensor([window.left, window.top]) + window.side * points


def _enlarge(part: Tensor, side: int) -> Tensor:
    """Bilinear, on (B, T, 3, ., .)."""
    pixels = part.flatten(0, 1).float()
    resized = F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
    return resized.round_().to(torch.uint8).view(*part.shape[:3], side, side)
