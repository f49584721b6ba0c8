"""A change to a clip in which pixels, boxes and points move together.

Shape letters: T frames, I side of a square frame in pixels.
"""

from torch import Tensor

# The landmark that each one becomes in a mirror: the eyes and the mouth corners change places.
_MIRRORED_POINTS = [1, 0, 2, 4, 3]


def horizontal_flip(frames: Tensor, boxes: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mirror a clip.

    Args:
        frames: (T, 3, I, I).
        boxes: (T, 4) x, y, w, h as fractions of the frame.
        points: (T, 5, 2) x, y as fractions of the frame.
    """
    flipped_boxes = boxes.clone()
    flipped_boxes[:, 0] = 1 - boxes[:, 0] - boxes[:, 2]
    flipped_points = points[:, _MIRRORED_POINTS].clone()
    flipped_points[..., 0] = 1 - flipped_points[..., 0]
    return frames.flip(-1), flipped_boxes, flipped_points
