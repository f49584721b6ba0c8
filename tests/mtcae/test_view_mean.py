import pytest
import torch
from torch import Tensor, nn

from pipeline.mtcae.model import Predictions
from pipeline.mtcae.view_mean import ViewMean

NUM_FRAMES = 2


class Answer(nn.Module):
    """Says where the brightest pixel of a frame is, and of the clip how bright its first frame is.

    The box is that pixel's place and half of the frame, the points are all at that place.
    """

    def __init__(self, with_boxes: bool = True) -> None:
        super().__init__()
        self.with_boxes = with_boxes
        self.seen: list[Tensor] = []

    def forward(self, frames: Tensor) -> Predictions:
        self.seen.append(frames)
        grey = frames[:, :, 0].float()
        side = grey.shape[-1]
        brightest = grey.flatten(2).argmax(dim=2)
        place = torch.stack([brightest % side, brightest // side], dim=-1) / side
        logits = torch.stack([grey[:, 0].amax((1, 2)) / 100, torch.zeros(len(grey))], dim=1)
        if not self.with_boxes:
            return Predictions(None, None, logits)
        boxes = torch.cat([place, torch.full_like(place, 0.5)], dim=-1)
        return Predictions(boxes, place[:, :, None].expand(-1, -1, 5, -1), logits)


def frames(*brightness: int, side: int = 16) -> Tensor:
    """One clip: black frames with one pixel each, at x and y of 8."""
    clip = torch.zeros(1, len(brightness), 3, side, side, dtype=torch.uint8)
    for i, value in enumerate(brightness):
        clip[0, i, :, 8, 8] = value
    return clip


def test_one_view_is_what_the_model_says() -> None:
    model, clip = Answer(), frames(100, 50)
    said, alone = ViewMean(model, num_frames=NUM_FRAMES, num_crops=1)(clip), model(clip)
    assert all(torch.equal(a, b) for a, b in zip(said, alone, strict=True))
    tokens = torch.rand(1, 4, 3)
    taken = ViewMean(nn.Identity(), num_frames=NUM_FRAMES, num_crops=1)(tokens)
    assert taken is tokens


@pytest.mark.parametrize("with_boxes", [True, False])
def test_samplings_are_asked_one_by_one_and_their_probabilities_are_averaged(
    with_boxes: bool,
) -> None:
    model = Answer(with_boxes)
    clip = frames(100, 200, 50, 250)
    clip[0, 1] = clip[0, 1].roll(4, dims=-1)  # frame 1 has its pixel at x = 12
    said = ViewMean(model, num_frames=NUM_FRAMES, num_crops=1)(clip)
    # Frames 0 and 2 are the first sampling, 1 and 3 the second.
    assert [part.amax((2, 3, 4)).flatten().tolist() for part in model.seen] == [
        [100, 50],
        [200, 250],
    ]
    first, second = (torch.tensor([x, 0.0]).softmax(dim=0) for x in (1.0, 2.0))
    torch.testing.assert_close(said.logits.softmax(dim=1)[0], (first + second) / 2)
    if not with_boxes:
        assert said.boxes is None
        assert said.points is None
        return
    # Boxes are those of all four frames, in the order of time.
    assert said.boxes is not None
    assert said.boxes[0, :, 0].tolist() == [0.5, 0.75, 0.5, 0.5]


def test_boxes_and_points_of_windows_come_back_to_the_frame() -> None:
    model, clip = Answer(), frames(100, 50, side=64)
    said = ViewMean(model, num_frames=NUM_FRAMES, num_crops=3)(clip)
    assert len(model.seen) == 3
    assert said.boxes is not None
    assert said.points is not None
    # The pixel is at 8 of 64 in every window, within the pixel that enlarging moves it by.
    torch.testing.assert_close(
        said.points[0, :, 0], torch.full((2, 2), 8 / 64), atol=1.5 / 64, rtol=0
    )
    torch.testing.assert_close(said.boxes[0, :, 2:], torch.full((2, 2), 0.5 * 7 / 8))
