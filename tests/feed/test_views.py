import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import resized_crop

from pipeline.feed.geometry import move_labels, resample
from pipeline.feed.views import Window, boxes_to_frame, crops, points_to_frame


def noise(side: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 3, side, side), generator=generator, dtype=torch.uint8)


def test_one_view_is_the_frame_itself() -> None:
    frames = noise(16)
    [(view, window)] = crops(frames, 1)
    assert view is frames
    assert window == (0, 0, 1)


@pytest.mark.parametrize(
    ("side", "num_crops", "lefts", "top", "window_side"),
    [
        (224, 2, [0, 28], 14, 196),
        (224, 3, [0, 14, 28], 14, 196),
        (224, 5, [0, 7, 14, 21, 28], 14, 196),
        (64, 3, [0, 4, 8], 4, 56),
        (64, 4, [0, 3, 5, 8], 4, 56),  # 2.67 and 5.33 pixels
    ],
)
def test_windows_are_spread_from_left_to_right(
    side: int, num_crops: int, lefts: list[int], top: int, window_side: int
) -> None:
    frames = noise(side)
    views = crops(frames, num_crops)
    for (view, window), left in zip(views, lefts, strict=True):
        assert window == (left / side, top / side, window_side / side)
        expected = resized_crop(
            frames.flatten(0, 1), top, left, window_side, window_side, [side, side], antialias=False
        )
        assert torch.equal(view, expected.unflatten(0, (2, 3)))


def test_boxes_and_points_of_a_window_go_back_to_the_frame() -> None:
    window = Window(left=0.125, top=0.0625, side=0.875)
    boxes = torch.tensor([[0.0, 0, 1, 1], [0.5, 0.25, 0.25, 0.5]])
    expected = torch.tensor([[0.125, 0.0625, 0.875, 0.875], [0.5625, 0.28125, 0.21875, 0.4375]])
    assert torch.equal(boxes_to_frame(boxes, window), expected)
    points = torch.tensor([[0.0, 0], [1, 1], [0.5, 0.25]])
    expected = torch.tensor([[0.125, 0.0625], [1, 0.9375], [0.5625, 0.28125]])
    assert torch.equal(points_to_frame(points, window), expected)
    # With any axes before the last one, as the heads give them.
    many = boxes.expand(3, 16, 2, 4)
    assert torch.equal(boxes_to_frame(many, window)[2, 7], boxes_to_frame(boxes, window))


def test_what_a_crop_does_to_labels_is_undone() -> None:
    # The matrix that augmentation would use for the window: from -1 to 1, as grid_sample has it.
    frames = noise(64)
    generator = torch.Generator().manual_seed(1)
    boxes = 0.3 + 0.2 * torch.rand(2, 4, generator=generator)
    points = torch.rand(2, 5, 2, generator=generator)
    for view, (left, top, side) in crops(frames, 3):
        source = torch.tensor(
            [[side, 0, 2 * left + side - 1], [0, side, 2 * top + side - 1], [0, 0, 1]],
            dtype=torch.float64,
        )
        moved_boxes, moved_points, inside = move_labels(boxes, points, source.inverse())
        assert inside.all()
        window = Window(left, top, side)
        torch.testing.assert_close(boxes_to_frame(moved_boxes, window), boxes)
        torch.testing.assert_close(points_to_frame(moved_points, window), points)
        # The pixels too are those of that matrix, but along the window's edge.
        pixels = resample(frames[0], source)
        assert (pixels.int() - view[0].int()).abs()[..., 1:-1, 1:-1].max() <= 1


@pytest.mark.parametrize("num_crops", [0, -1])
def test_no_view_is_refused(num_crops: int) -> None:
    with pytest.raises(ValueError, match=f"{num_crops} crops of a clip; 1 is"):
        crops(noise(16), num_crops)
