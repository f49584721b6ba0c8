"""Changes to a batch in which pixels, boxes and points move together.

Shape letters: B clips, T frames, I side of a square frame in pixels.
"""

import torch
from torch import Tensor

# The landmark that each one becomes in a mirror: the eyes and the mouth corners change places.
_MIRRORED_POINTS = [1, 0, 2, 4, 3]


def horizontal_flip(
    frames: Tensor, boxes: Tensor, points: Tensor, chosen: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mirror the chosen clips.

    Args:
        frames: (B, T, 3, I, I).
        boxes: (B, T, 4) x, y, w, h as fractions of the frame.
        points: (B, T, 5, 2) x, y as fractions of the frame.
        chosen: (B,) which clips to mirror.
    """
    flipped_boxes = boxes.clone()
    flipped_boxes[..., 0] = 1 - boxes[..., 0] - boxes[..., 2]
    flipped_points = points[..., _MIRRORED_POINTS, :].clone()
    flipped_points[..., 0] = 1 - flipped_points[..., 0]
    chosen = chosen[:, None, None]
    return (
        torch.where(chosen[..., None, None], frames.flip(-1), frames),
        torch.where(chosen, flipped_boxes, boxes),
        torch.where(chosen[..., None], flipped_points, points),
    )
