"""A picture out of a file that a stranger made: upright RGB of bounded size."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.common.clips import Refusal
from pipeline.common.frames import Frames
from pipeline.video.container import MAX_PIXELS

# Each further format is one more way in.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")


class UnusablePicture(ValueError):
    """A file that cannot give a picture; `refusal` says why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(reason, message)


def read_picture(path: Path, shorter_side: int) -> Frames:
    """The picture (1, H, W, 3), turned as it is shown.

    Args:
        path: JPEG, PNG, BMP, WebP or TIFF; grey, 16 bits deep and CMYK are converted, and what is
            transparent is black.
        shorter_side: In pixels, to which a larger picture is shrunk.

    Raises:
        UnusablePicture: No such file, none of these, damaged, or larger than 7680 x 4320.
    """
    if not path.is_file():
        raise UnusablePicture("missing", f"{path.name}: no such file")
    try:
        # Pillow's own limit is a warning; the one below is an error.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                return _pixels(image, path, shorter_side)
    except UnidentifiedImageError as error:
        raise UnusablePicture(
            "unreadable", f"{path.name}: no picture of the kinds {', '.join(_FORMATS)}"
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except UnusablePicture:
        raise
    # Pillow's decoders raise these for damaged files, SyntaxError among them for broken PNG chunks.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnusablePicture("unreadable", f"{path.name}: damaged ({error})") from error


def _pixels(image: Image.Image, path: Path, shorter_side: int) -> Frames:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(path)
    if min(image.size) < 1:
        raise UnusablePicture("unreadable", f"{path.name}: a picture without pixels")
    # A JPEG is scaled while it is decoded, never below this size.
    image.draft(None, (2 * shorter_side, 2 * shorter_side))
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits, of which Pillow would cut the upper ones off
        depth = np.asarray(upright, np.float64)
        upright = Image.fromarray((depth / 257).clip(0, 255).round().astype(np.uint8))
    if "A" in upright.getbands() or "transparency" in upright.info:
        black = Image.new("RGBA", upright.size, (0, 0, 0, 255))
        upright = Image.alpha_composite(black, upright.convert("RGBA"))
    return shrink_to(np.asarray(upright.convert("RGB"))[None], shorter_side)


def _too_large(path: Path) -> UnusablePicture:
    return UnusablePicture("too_large", f"{path.name}: larger than 7680 x 4320 pixels")


def shrink_to(pictures: Frames, shorter_side: int) -> Frames:
    """Pictures (T, H, W, 3) whose shorter side is at most that long."""
    height, width = pictures.shape[1:3]
    scale = shorter_side / min(height, width)
    if scale >= 1:
        return pictures
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.stack(
        [
            np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
            for picture in pictures
        ]
    )
