from dataclasses import replace

import numpy as np
import pytest

from pipeline.models.vit import IMAGENET_MEAN, IMAGENET_STD
from pipeline.store.strips import encode_strip
from pipeline.verify.readings import Reading, read_strip, single_changes

SIDE = 64
USUAL = Reading(SIDE, (IMAGENET_MEAN, IMAGENET_STD), None)


def clip() -> np.ndarray:
    """Four frames: brighter from one to the next, red on the left half, blue on the right."""
    frames = np.zeros((4, SIDE, SIDE, 3), np.uint8)
    for i, level in enumerate((40, 80, 120, 160)):
        frames[i, :, : SIDE // 2, 0] = level
        frames[i, :, SIDE // 2 :, 2] = level
    return frames


STRIP = encode_strip(clip(), quality=100)


def corners(reading: Reading) -> list[list[int]]:
    """Of each frame red and blue in the top left and in the top right corner."""
    frames = read_strip(STRIP, reading).astype(int)
    return [[*frame[1, 1, [0, 2]], *frame[1, -2, [0, 2]]] for frame in frames]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [[40, 0, 0, 40], [80, 0, 0, 80], [120, 0, 0, 120], [160, 0, 0, 160]]),
        (
            {"blue_first": True},
            [[0, 40, 40, 0], [0, 80, 80, 0], [0, 120, 120, 0], [0, 160, 160, 0]],
        ),
        ({"mirrored": True}, [[0, 40, 40, 0], [0, 80, 80, 0], [0, 120, 120, 0], [0, 160, 160, 0]]),
        ({"times": "backwards"}, [[n, 0, 0, n] for n in (160, 120, 80, 40)]),
        ({"times": "middle half"}, [[n, 0, 0, n] for n in (80, 80, 120, 120)]),
        ({"times": "first half"}, [[n, 0, 0, n] for n in (40, 40, 80, 80)]),
        ({"times": "one frame"}, [[120, 0, 0, 120]] * 4),
        ({"smooth": False}, [[n, 0, 0, n] for n in (40, 80, 120, 160)]),
        ({"size": 32}, [[n, 0, 0, n] for n in (40, 80, 120, 160)]),
    ],
    ids=str,
)
def test_a_change_is_seen_in_the_frames(
    change: dict[str, object], expected: list[list[int]]
) -> None:
    reading = replace(USUAL, **change)  # type: ignore[arg-type]
    np.testing.assert_allclose(corners(reading), expected, atol=6)


@pytest.mark.parametrize(("share", "pixels"), [(0.75, 85), (0.875, 73), (1.25, 51)])
def test_a_crop_makes_the_face_larger_or_smaller(share: float, pixels: int) -> None:
    frames = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    frames[:, 16:48, 16:48] = 200  # A square of half the side.
    seen = read_strip(encode_strip(frames, quality=100), replace(USUAL, size=128, share=share))
    assert (seen[0, 64, :, 0] > 100).sum() == pytest.approx(pixels, abs=2)


def test_every_step_is_changed_alone() -> None:
    changes = single_changes(USUAL, patch_size=16)
    for change in changes:
        differing = [
            name for name in vars(USUAL) if vars(change.reading)[name] != vars(USUAL)[name]
        ]
        assert len(differing) == 1, change
    assert len({change.reading for change in changes}) == len(changes)
    steps = {change.step for change in changes}
    assert steps == {"input size", "scaling", "sampling", "crop", "colour order", "normalisation"}
    with_pooling = single_changes(replace(USUAL, pooling="first token"), patch_size=16)
    assert len(with_pooling) == len(changes) + 2
