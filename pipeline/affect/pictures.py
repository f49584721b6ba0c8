"""Image files as RGB pixels, whatever colours they are stored in.

Shape letters: S side of a square picture in pixels.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Picture = npt.NDArray[np.uint8]
"""RGB (S, S, 3)."""

# Each further format is one more way in.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
# A picture with more pixels is refused before it is decoded.
MAX_PIXELS = 50_000_000
# Modes of 16 bits, of which PIL would keep the lower eight.
_WIDE = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def read_picture(file: Path, side: int) -> Picture:
    """The picture upright, in RGB and of S x S pixels; another shape is stretched.

    Grey, CMYK, palette and 16-bit pictures become RGB; of transparency nothing remains.

    Raises:
        ValueError: It is no picture, damaged, or too large.
    """
    try:
        with Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise OSError(f"{image.width} x {image.height} pixels are too many")
            upright = ImageOps.exif_transpose(image)
            colours = _narrow(upright) if upright.mode in _WIDE else upright.convert("RGB")
    # Pillow raises SyntaxError for broken chunks of a PNG.
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as a picture: {error}") from error
    if colours.size != (side, side):
        colours = colours.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(colours, np.uint8)


def _narrow(image: Image.Image) -> Image.Image:
    """The upper eight of 16 bits."""
    values = np.asarray(image).astype(np.int64)
    return Image.fromarray((values.clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
