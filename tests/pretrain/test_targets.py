import numpy as np
import pytest
import torch
from small_pretrain import FRAMES, SIDE, clips, pictures
from torch import Tensor

from pipeline.pretrain.targets import patch_targets, tubelet_targets


def random_frames() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, FRAMES, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


def test_a_channel_of_a_tubelet_is_normalised_by_its_own_mean_and_unbiased_deviation() -> None:
    frames = random_frames()
    values = tubelet_targets(frames, tubelet_size=2, patch_size=16).values
    assert values.shape == (2, 8, 1536)
    # The tubelet of the second two frames in the first row and second column, its green.
    pixels = frames[1, 2:, 1, :16, 16:].numpy() / 255
    expected = (pixels - pixels.mean()) / (pixels.std(ddof=1) + 1e-6)
    # Frame, row, column, channel: every third value is green.
    np.testing.assert_allclose(values[1, 5, 1::3], expected.ravel(), atol=1e-5)


def test_the_channels_of_a_patch_are_normalised_together() -> None:
    images = random_frames()[:, 0] / 255
    values = patch_targets(images, patch_size=16).values
    assert values.shape == (2, 4, 768)
    pixels = images[1, :, 16:, :16].permute(1, 2, 0).numpy()
    expected = (pixels - pixels.mean()) / np.sqrt(pixels.var(ddof=1) + 1e-6)
    np.testing.assert_allclose(values[1, 2], expected.ravel(), atol=1e-5)


def test_a_prediction_of_zero_has_the_error_of_the_unbiased_variance() -> None:
    frames = random_frames()
    tubelets = tubelet_targets(frames, tubelet_size=2, patch_size=16).values
    patches = patch_targets(frames[:, 0] / 255, patch_size=16).values
    assert tubelets.square().mean().item() == pytest.approx(511 / 512, abs=1e-5)
    assert patches.square().mean().item() == pytest.approx(767 / 768, abs=1e-4)


def test_a_uniform_patch_has_targets_of_zero() -> None:
    grey = torch.full((1, 3, 16, 16), 77, dtype=torch.uint8)
    assert not patch_targets(grey / 255, 16).values.any()
    assert not tubelet_targets(grey[None].expand(1, 2, 3, 16, 16), 2, 16).values.any()


@pytest.mark.parametrize("as_fractions", [False, True])
def test_pixels_come_back_from_the_targets(as_fractions: bool) -> None:
    frames = clips(2) / 255 if as_fractions else clips(2)
    found = tubelet_targets(frames, tubelet_size=2, patch_size=16)
    first = (frames if as_fractions else frames / 255)[0, :2, :, :16, :16].permute(0, 2, 3, 1)
    torch.testing.assert_close(found.pixels(found.values)[0, 0], first.flatten())
    images = pictures(2) / 255
    patches = patch_targets(images, patch_size=8)
    first = images[0, :, :8, :8].permute(1, 2, 0)
    torch.testing.assert_close(patches.pixels(patches.values)[0, 0], first.flatten())
