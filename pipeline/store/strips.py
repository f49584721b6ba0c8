"""A clip's frames as one JPEG: the frames stacked from top to bottom.

Frames are a multiple of 8 pixels high, so no JPEG block spans two of them. One file per clip
decodes with one call, opens in any viewer and costs about an eighth of the raw pixels
(docs/performance.md).

Shape letters: T frames, S side of a square frame in pixels.
"""

import io

import numpy as np
from PIL import Image

from pipeline.common.frames import Frames


def encode_strip(frames: Frames, quality: int) -> bytes:
    """Encode frames (T, S, S, 3) as a JPEG of T * S rows without chroma subsampling.

    Raises:
        ValueError: The frames are not square RGB with a side divisible by 8.
    """
    count, height, width, channels = frames.shape
    if height != width or height % 8 or channels != 3:
        raise ValueError(f"frames of shape {frames.shape}; expected (T, S, S, 3), S divisible by 8")
    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(frames).reshape(count * height, width, 3))
    image.save(stream, format="JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def strip_size(data: bytes) -> int:
    """S of an encoded strip, read from its header."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        return image.width


def decode_strip(data: bytes, size: int) -> Frames:
    """Decode a strip to frames (T, size, size, 3).

    A size of S, S/2, S/4 or S/8 is cheapest: libjpeg scales inside its inverse cosine transform, so
    frames do not mix. Any other size is resampled frame by frame.

    Raises:
        ValueError: The picture is not a whole number of square frames.
    """
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        if image.height % image.width:
            raise ValueError(
                f"a strip of {image.width} x {image.height} pixels holds no whole frames"
            )
        count = image.height // image.width
        image.draft("RGB", (size, size * count))
        pixels = np.array(image.convert("RGB"))  # a copy that torch may write to
    frames = pixels.reshape(count, -1, pixels.shape[1], 3)
    if pixels.shape[1] == size:
        return frames
    resized = [
        Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC) for frame in frames
    ]
    return np.stack([np.asarray(frame) for frame in resized])
