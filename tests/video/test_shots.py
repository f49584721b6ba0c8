from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame
from scipy.ndimage import gaussian_filter
from small_videos import render, sample

from pipeline.video.shots import ShotFinder

Picture = npt.NDArray[np.uint8]


def scene(seed: int) -> Picture:
    """Soft blobs, 96 x 128."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(96, 128, 3)), (9, 9, 0))
    levels: npt.NDArray[np.float64] = 128 + 40 * noise / noise.std()
    return levels.clip(0, 255).astype(np.uint8)


ONE, OTHER = scene(1), scene(2)


def first_frames(*pictures: Picture) -> list[int]:
    finder = ShotFinder()
    for picture in pictures:
        finder.add(VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24"))
    return finder.first_frames()


def shown(factor: float, picture: Picture = ONE) -> Picture:
    """With the light changed."""
    return (factor * picture.astype(float)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("number", [1, 2, 7, 18, 19])
def test_another_picture_begins_another_shot(number: int) -> None:
    assert first_frames(*[ONE] * number, *[OTHER] * (20 - number)) == [number]


def test_each_of_several_shots_is_found() -> None:
    assert first_frames(*[ONE] * 9, *[OTHER] * 9, *[ONE] * 9, *[scene(3)] * 9) == [9, 18, 27]


def test_a_frame_that_mixes_two_shots_is_of_neither() -> None:
    mixed = (ONE // 2 + OTHER // 2).astype(np.uint8)
    assert first_frames(*[ONE] * 9, mixed, *[OTHER] * 9) == [9, 10]


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_flash_is_no_cut(length: int) -> None:
    white = np.full_like(ONE, 255)
    assert first_frames(*[ONE] * 9, *[white] * length, *[ONE] * 9) == []


@pytest.mark.parametrize("factor", [0.3, 0.6, 1.4])
def test_a_change_of_light_is_no_cut(factor: float) -> None:
    assert first_frames(*[ONE] * 9, *[shown(factor)] * 9) == []


def test_a_camera_that_is_pushed_or_shaken_makes_no_cut() -> None:
    assert first_frames(*[ONE] * 9, *[np.roll(ONE, (3, 8), (0, 1))] * 9) == []
    random = np.random.default_rng(3)
    shaken = [np.roll(ONE, random.integers(-20, 21, 2), (0, 1)) for _ in range(30)]
    assert first_frames(*shaken) == []


def test_a_picture_that_moves_in_jerks_makes_no_cut() -> None:
    """As where a slow film is shown fast: every third frame moves, by as much as fits."""
    assert first_frames(*(np.roll(ONE, 12 * (i // 3), 1) for i in range(30))) == []


def test_one_frame_alone_is_one_shot() -> None:
    assert first_frames(ONE) == []
    assert first_frames(ONE, ONE) == []


def test_sampled_frames_know_their_shot(tmp_path: Path) -> None:
    """10 frames of one card and 30 of another."""
    cards = ["testsrc=s=96x64:r=25:d=0.4", "smptebars=s=96x64:r=25:d=1.2"]
    inputs = [argument for card in cards for argument in ("-f", "lavfi", "-i", card)]
    path = render(tmp_path / "cut.mkv", *inputs, "-filter_complex", "concat", "-pix_fmt", "yuv420p")
    # Frames 1, 3, 6, 8 and 11, 13, ... of 40.
    assert sample(path).shots.tolist() == [0] * 4 + [1] * 12
    assert sample(path, num_frames=2).shots.tolist() == [0, 0]
