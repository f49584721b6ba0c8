import io

import numpy as np
import pytest
from PIL import Image

from pipeline.common.frames import Frames
from pipeline.store.strips import decode_strip, encode_strip, strip_size


def smooth_frames(size: int = 64) -> Frames:
    ramp = np.linspace(0, 255, size)
    plane = np.stack(np.meshgrid(ramp, ramp), axis=-1)
    return np.stack([np.dstack([plane, np.full((size, size), 16 * t)]) for t in range(16)]).astype(
        np.uint8
    )


def test_frames_come_back_nearly_unchanged() -> None:
    frames = smooth_frames()
    decoded = decode_strip(encode_strip(frames, quality=95), 64)
    assert np.abs(decoded.astype(int) - frames).mean() < 1.5


@pytest.mark.parametrize("size", [32, 16, 8, 40])
def test_smaller_frames_do_not_mix_with_their_neighbours(size: int) -> None:
    frames = np.zeros((16, 64, 64, 3), np.uint8)
    frames[1::2] = 255
    decoded = decode_strip(encode_strip(frames, quality=95), size)
    assert decoded.shape == (16, size, size, 3)
    assert decoded[::2].max() < 8
    assert decoded[1::2].min() > 247


def test_the_size_is_read_from_the_header() -> None:
    assert strip_size(encode_strip(smooth_frames(), quality=50)) == 64


def test_frames_whose_blocks_would_mix_are_refused() -> None:
    with pytest.raises(ValueError, match="divisible by 8"):
        encode_strip(np.zeros((16, 60, 60, 3), np.uint8), quality=95)


def test_a_picture_that_is_no_strip_is_refused() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 100)).save(stream, format="JPEG")
    with pytest.raises(ValueError, match="64 x 100"):
        decode_strip(stream.getvalue(), 64)
