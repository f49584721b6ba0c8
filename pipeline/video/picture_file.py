"""A picture file in place of a video."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pipeline.common.frames import FrameSettings
from pipeline.video.container import MAX_PIXELS, UnusableVideo, too_large
from pipeline.video.pictures import LONGER_SIDE, Picture

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_FORMATS = ["JPEG", "PNG", "WEBP", "BMP"]


def is_picture(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() in SUFFIXES


def read_picture(path: Path, settings: FrameSettings) -> tuple[Picture, tuple[int, int]]:
    """A picture as `read_pictures` gives those of a video, and the whole one's width and height.

    Raises:
        UnusableVideo: No such file, no picture, or one larger than 7680 x 4320.
    """
    if not path.is_file():
        raise UnusableVideo("missing", f"{path.name}: no such file; check the path")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise too_large(path)
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UnusableVideo):
            raise
        raise UnusableVideo("unreadable", f"{path.name}: not a readable picture") from error
    width, height = upright.size
    target = (settings.size, settings.size)
    if settings.crop == "square":
        upright = ImageOps.fit(upright, target, Image.Resampling.BICUBIC)
    elif settings.crop == "none":
        upright = upright.resize(target, Image.Resampling.BICUBIC)
    else:
        upright.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.BICUBIC)
    return np.array(upright), (width, height)
