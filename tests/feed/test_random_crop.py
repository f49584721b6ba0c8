from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small import NO_AUGMENTATION
from timm.data.auto_augment import NAME_TO_OP
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import resized_crop

from pipeline.feed import augment
from pipeline.feed.augment import augment_clip
from pipeline.feed.geometry import GEOMETRIC, random_crop

SIDE = 96
CROPS = NO_AUGMENTATION.model_copy(update={"crop_area": 0.08, "crop_aspect": 4 / 3})
# Of 96 pixels: 48 from the 24th on across, 60 from the 12th on down.
LEFT, TOP, WIDTH, HEIGHT = 24, 12, 48, 60
MATRIX = [[0.5, 0, 0], [0, 0.625, -0.125], [0, 0, 1]]
NOTHING_KNOWN = torch.zeros(1, 4), torch.zeros(1, 5, 2), torch.zeros(1, dtype=torch.bool)


def noise() -> Tensor:
    shape = (1, 3, SIDE, SIDE)
    return torch.randint(
        0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


def with_fixed_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        augment, "random_crop", lambda *_: torch.tensor(MATRIX, dtype=torch.float64)
    )


def rectangle(matrix: Tensor, side: int = SIDE) -> tuple[int, int, int, int]:
    """Left, top, width and height of the pixels that the corners of the new frame come from."""
    corners = torch.tensor([[-1.0, -1, 1], [1, 1, 1]], dtype=torch.float64)
    (left, top), (right, bottom) = ((corners @ matrix[:2].T + 1) / 2 * side).tolist()
    found = [left, top, right - left, bottom - top]
    assert found == pytest.approx([round(edge) for edge in found], abs=1e-9)  # whole pixels
    return round(left), round(top), round(right - left), round(bottom - top)


def differences(frames: Tensor, expected: Tensor, width: int, height: int) -> Tensor:
    """But where a neighbour outside of the crop counts here and in torchvision the crop's edge."""
    across, down = SIDE // width + 1, SIDE // height + 1
    difference = (frames.int() - expected.int()).abs()
    return difference[..., down : SIDE - down, across : SIDE - across]


def test_the_pixels_of_a_crop_are_torchvisions() -> None:
    frames, seen = noise(), set()
    # Corners of the frame as points: where they go tells which rectangle fills the new frame.
    points = torch.tensor([[0.0, 0], [1, 1], [0.5, 0.5], [0, 1], [1, 0]])[None]
    for seed in range(40):
        cropped, _, moved, _ = augment_clip(
            frames, NOTHING_KNOWN[0], points, NOTHING_KNOWN[2], CROPS, np.random.default_rng(seed)
        )
        width, height = (SIDE / (moved[0, 1] - moved[0, 0])).tolist()
        left, top = (-moved[0, 0] * torch.tensor([width, height])).round().int().tolist()
        width, height = round(width), round(height)
        expected = resized_crop(frames, top, left, height, width, [SIDE, SIDE], antialias=False)
        assert differences(cropped, expected, width, height).max() <= 1
        seen.add((left, top, width, height))
    assert len(seen) > 35


def test_boxes_and_points_are_fractions_of_the_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    with_fixed_crop(monkeypatch)
    # x, y, w, h in pixels: inside of the crop, cut by its left and upper edge, and left of it.
    boxes = torch.tensor([[36.0, 27, 12, 15], [18, 6, 24, 36], [4, 30, 38, 20]]) / SIDE
    points = torch.tensor([[48.0, 42], [24, 12], [72, 72], [12, 42], [60, 57]]) / SIDE
    mask = torch.tensor([True, True, True])
    _, moved_boxes, moved_points, known = augment_clip(
        noise().expand(3, -1, -1, -1),
        boxes,
        points.expand(3, 5, 2),
        mask,
        CROPS,
        np.random.default_rng(0),
    )
    torch.testing.assert_close(
        moved_boxes[:2], torch.tensor([[0.25, 0.25, 0.25, 0.25], [0, 0, 0.375, 0.5]])
    )
    expected = torch.tensor([[0.5, 0.5], [0, 0], [1, 1], [-0.25, 0.5], [0.75, 0.75]])
    torch.testing.assert_close(moved_points, expected.expand(3, 5, 2))
    # The centre of the third one is at 23 pixels.
    assert known.tolist() == [True, True, False]


def test_the_crop_comes_after_rand_augment(monkeypatch: pytest.MonkeyPatch) -> None:
    with_fixed_crop(monkeypatch)
    monkeypatch.setattr(augment, "_PHOTOMETRIC", [])
    monkeypatch.setattr(augment, "GEOMETRIC", {"ShearX": GEOMETRIC["ShearX"]})
    ramp = torch.arange(0, 192, 2)
    frames = torch.stack([ramp.expand(SIDE, SIDE), ramp[:, None].expand(SIDE, SIDE)])
    frames = torch.cat([frames, frames.flip(-1)[:1]])[None].to(torch.uint8)
    shear: Any = NAME_TO_OP["ShearX"]
    expected = []
    for factor in (0.3, -0.3):
        picture = shear(
            Image.fromarray(frames[0].permute(1, 2, 0).contiguous().numpy()),
            factor,
            resample=Image.Resampling.BILINEAR,
            fillcolor=(128,) * 3,
        )
        sheared = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        expected.append(
            resized_crop(sheared, TOP, LEFT, HEIGHT, WIDTH, [SIDE, SIDE], antialias=False)
        )
    settings = CROPS.model_copy(update={"rand_augment_ops": 1, "rand_augment_magnitude": 10})
    signs = set()
    for seed in range(8):
        cropped = augment_clip(frames, *NOTHING_KNOWN, settings, np.random.default_rng(seed))[0]
        shares = [
            (differences(cropped, each, WIDTH, HEIGHT) <= 2).float().mean().item()
            for each in expected
        ]
        assert max(shares) > 0.97
        assert min(shares) < 0.5
        signs.add(shares.index(max(shares)))
    assert signs == {0, 1}


@pytest.mark.parametrize(
    ("area", "aspect", "side"), [(0.08, 4 / 3, 224), (0.5, 2.0, 64), (0.9, 4.0, 64)]
)
def test_crops_are_distributed_as_torchvisions(area: float, aspect: float, side: int) -> None:
    number = 3000
    random = np.random.default_rng(0)
    ours = [rectangle(random_crop(area, aspect, side, random), side) for _ in range(number)]
    torch.manual_seed(0)
    frame = torch.empty(3, side, side)
    drawn = (
        RandomResizedCrop.get_params(frame, [area, 1.0], [1 / aspect, aspect])
        for _ in range(number)
    )
    theirs = [(left, top, width, height) for top, left, height, width in drawn]
    whole = (0, 0, side, side)
    # Of binomial counts; the first case hardly ever fails, the last one most of the time.
    share = theirs.count(whole) / number
    deviation = (2 * max(share * (1 - share), 1 / number) / number) ** 0.5
    assert ours.count(whole) / number == pytest.approx(share, abs=4 * deviation)
    for one, other in zip(np.array(ours).T, np.array(theirs).T, strict=True):
        # Kolmogorov and Smirnov's largest distance of two distributions, at a level of 1e-4.
        places = np.arange(-1, side + 1)
        shares = [np.searchsorted(np.sort(each), places, "right") / number for each in (one, other)]
        assert np.abs(shares[0] - shares[1]).max() < 2.23 * (2 / number) ** 0.5
    ratios = np.array([width / height for _, _, width, height in ours])
    assert ratios.max() <= aspect * 1.05
    assert ratios.min() >= 1 / aspect / 1.05


def test_without_crops_nothing_is_drawn_for_them() -> None:
    generators = [np.random.default_rng(0), np.random.default_rng(0)]
    for aspect, generator in zip((1.0, 4 / 3), generators, strict=True):
        settings = NO_AUGMENTATION.model_copy(update={"crop_area": 1.0, "crop_aspect": aspect})
        frames = noise()
        assert augment_clip(frames, *NOTHING_KNOWN, settings, generator)[0] is frames
    assert generators[0].random() == generators[1].random()
    assert "crops" not in settings.changes
    assert CROPS.changes == ["crops"]
