"""A picture file that a stranger made, on its own or in place of a video."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.common.frames import FrameSettings
from pipeline.video.container import MAX_PIXELS, UnusableVideo, too_large
from pipeline.video.pictures import LONGER_SIDE, Picture

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
# Each further format is one more way in.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")


def is_picture(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() in SUFFIXES


def open_picture(path: Path, shorter_side: int | None = None) -> Image.Image:
    """The picture in RGB, turned as it is shown.

    Args:
        path: JPEG, PNG, BMP, WebP or TIFF; grey, 16 bits deep and CMYK are converted, and what is
            transparent is black.
        shorter_side: In pixels, where the picture is then shrunk to: a large JPEG is scaled while
            it is decoded, to no less than twice that.

    Raises:
        UnusableVideo: No such file, none of these, damaged, or larger than 7680 x 4320.
    """
    if not path.is_file():
        raise UnusableVideo("missing", f"{path.name}: no such file; check the path")
    try:
        # Pillow's own limit is a warning; the one below is an error.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise too_large(path)
                if shorter_side:
                    image.draft(None, (2 * shorter_side, 2 * shorter_side))
                return _rgb(ImageOps.exif_transpose(image))
    except UnusableVideo:
        raise
    except UnidentifiedImageError as error:
        raise _unreadable(path, f"none of the kinds {', '.join(_FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise too_large(path) from error
    # Pillow's decoders raise these for damaged files, SyntaxError among them for broken PNG chunks.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise _unreadable(path, f"damaged: {error}") from error


def _unreadable(path: Path, cause: str) -> UnusableVideo:
    return UnusableVideo("unreadable", f"{path.name}: not a readable picture ({cause})")


def _rgb(upright: Image.Image) -> Image.Image:
    if upright.mode.startswith("I"):  # 16 bits, of which Pillow would cut the upper ones off
        depth = np.asarray(upright, np.float64)
        upright = Image.fromarray((depth / 257).clip(0, 255).round().astype(np.uint8))
    if "A" in upright.getbands() or "transparency" in upright.info:
        black = Image.new("RGBA", upright.size, (0, 0, 0, 255))
        upright = Image.alpha_composite(black, upright.convert("RGBA"))
    return upright.convert("RGB")


def read_picture(path: Path, settings: FrameSettings) -> tuple[Picture, tuple[int, int]]:
    """A picture as `read_pictures` gives those of a video, and the whole one's width and height.

    Raises:
        UnusableVideo: As `open_picture`.
    """
    upright = open_picture(path)
    width, height = upright.size
    target = (settings.size, settings.size)
    if settings.crop == "square":
        upright = ImageOps.fit(upright, target, Image.Resampling.BICUBIC)
    elif settings.crop == "none":
        upright = upright.resize(target, Image.Resampling.BICUBIC)
    else:
        upright.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.BICUBIC)
    return np.array(upright), (width, height)
