import torch
from torch import Tensor

from pipeline.feed.transforms import horizontal_flip

SIDE = 16
# Column and row of left eye, right eye, nose, left and right mouth corner, nothing symmetric.
LANDMARKS = [(3, 4), (8, 5), (5, 7), (4, 10), (7, 11)]


def marked_clip() -> tuple[Tensor, Tensor, Tensor]:
    """Three frames: a face of value 10, landmark i a pixel of value 100 + i."""
    frame = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    frame[2:13, 1:11] = 10
    for i, (column, row) in enumerate(LANDMARKS):
        frame[row, column] = 100 + i
    points = (torch.tensor(LANDMARKS) + 0.5) / SIDE
    box = torch.tensor([1, 2, 10, 11]) / SIDE
    return frame.expand(3, 3, -1, -1), box.expand(3, -1), points.expand(3, -1, -1)


def values_at(frame: Tensor, points: Tensor) -> list[int]:
    columns, rows = (points * SIDE).long().unbind(-1)
    values: list[int] = frame[rows, columns].tolist()
    return values


def test_points_follow_the_pixels_and_left_and_right_change_places() -> None:
    frames, _, points = horizontal_flip(*marked_clip())
    # In the mirror the left eye is the one that was the right eye; so it is with the mouth.
    assert values_at(frames[2, 1], points[2]) == [101, 100, 102, 104, 103]
    eyes_nose_mouth = points[0, :, 0]
    assert eyes_nose_mouth[0] < eyes_nose_mouth[1]
    assert eyes_nose_mouth[3] < eyes_nose_mouth[4]


def test_the_box_follows_the_pixels() -> None:
    frames, boxes, _ = horizontal_flip(*marked_clip())
    x, y, width, height = (boxes[0] * SIDE).round().long().tolist()
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[y : y + height, x : x + width] = True
    assert torch.equal(frames[0, 0] > 0, inside)


def test_two_flips_are_none() -> None:
    clips = marked_clip()
    twice = horizontal_flip(*horizontal_flip(*clips))
    assert torch.equal(twice[0], clips[0])
    torch.testing.assert_close(twice[1:], clips[1:])


def test_the_input_does_not_change() -> None:
    clip = tuple(tensor.clone() for tensor in marked_clip())
    horizontal_flip(*clip)
    for before, pristine in zip(clip, marked_clip(), strict=True):
        assert torch.equal(before, pristine)
