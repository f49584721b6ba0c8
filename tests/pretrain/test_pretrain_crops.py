import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from pipeline.pretrain.crops import (
    AugmentSettings,
    Rectangle,
    augment,
    centre_square,
    cut_out,
    multi_scale_crop,
    random_area_crop,
)

STILL = AugmentSettings(crop="none", flip_probability=0.0)


def test_multi_scale_crops_have_the_published_sides_and_places() -> None:
    random = np.random.default_rng(0)
    crops = {multi_scale_crop(400, 200, random) for _ in range(4000)}
    # 1, .875, .75 and .66 of the shorter side; each is beside itself or a neighbour.
    sides = {(crop.width, crop.height) for crop in crops}
    assert {width for width, _ in sides} == {200, 175, 150, 132}
    assert len(sides) == 4 + 2 * 3
    assert (200, 150) not in sides
    places = {(crop.left, crop.top) for crop in crops if (crop.width, crop.height) == (132, 132)}
    # 268 and 68 pixels are free, in quarters: 67 and 17.
    corners = {(x, y) for x in (0, 268) for y in (0, 68)}
    middles = {(134, 0), (134, 68), (0, 34), (268, 34), (134, 34)}
    between = {(x, y) for x in (67, 201) for y in (17, 51)}
    assert places == corners | middles | between


def test_crops_by_area_are_spread_as_torchvision_spreads_them() -> None:
    random = np.random.default_rng(0)
    own = [random_area_crop(120, 90, random) for _ in range(3000)]
    torch.manual_seed(0)
    picture = torch.zeros(3, 90, 120)
    params = RandomResizedCrop.get_params
    theirs = [params(picture, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    columns = {
        "left": ([c.left for c in own], [c[1] for c in theirs]),
        "top": ([c.top for c in own], [c[0] for c in theirs]),
        "width": ([c.width for c in own], [c[3] for c in theirs]),
        "height": ([c.height for c in own], [c[2] for c in theirs]),
    }
    for name, (ours, others) in columns.items():
        quarters = [np.quantile(values, [0.1, 0.5, 0.9]) for values in (ours, others)]
        assert np.abs(quarters[0] - quarters[1]).max() < 4, name


def test_a_picture_too_narrow_for_such_crops_gives_its_centre() -> None:
    narrow = random_area_crop(300, 3, np.random.default_rng(0))
    assert narrow == centre_square(300, 3) == Rectangle(148, 0, 3, 3)


def test_all_frames_of_a_clip_are_cut_alike() -> None:
    ramp = np.arange(40, dtype=np.uint8)
    pictures = np.broadcast_to(ramp[None, None, :, None], (5, 30, 40, 3)).copy()
    settings = AugmentSettings(crop="multi_scale", flip_probability=0.5)
    flipped = 0
    for seed in range(20):
        frames = augment(pictures, settings, 16, np.random.default_rng(seed))
        assert frames.shape == (5, 3, 16, 16)
        assert torch.equal(frames, frames[:1].expand_as(frames))
        flipped += int(frames[0, 0, 0, 0] > frames[0, 0, 0, -1])
    assert 4 < flipped < 16


def test_the_centre_is_scaled_as_pillow_scales_it() -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (2, 20, 30, 3), np.uint8)
    frames = augment(pictures, STILL, 8, random)
    for frame, picture in zip(frames, pictures, strict=True):
        square = Image.fromarray(picture[:, 5:25])
        expected = np.asarray(square.resize((8, 8), Image.Resampling.BICUBIC))
        assert np.array_equal(frame.permute(1, 2, 0).numpy(), expected)
    # Faces that are aligned and of the right size stay as they are.
    same = cut_out(pictures, Rectangle(3, 4, 16, 16), 16, Image.Resampling.BILINEAR)
    assert np.array_equal(same.permute(0, 2, 3, 1).numpy(), pictures[:, 4:20, 3:19])


@pytest.mark.parametrize(
    ("crop", "side"), [("multi_scale", 340), ("random_area", 579), ("none", 224)]
)
def test_no_crop_has_to_be_enlarged(crop: str, side: int) -> None:
    settings = AugmentSettings.model_validate({"crop": crop, "flip_probability": 0})
    assert settings.side_before(224) == side
    random = np.random.default_rng(0)
    draw = {"multi_scale": multi_scale_crop, "random_area": random_area_crop}
    if crop in draw:
        drawn = [draw[crop](side, side, random) for _ in range(500)]
        assert min(min(part.width, part.height) for part in drawn) >= 224
