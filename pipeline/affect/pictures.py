"""An image file as the square of RGB pixels that is stored.

Shape letters: S side of a square picture in pixels.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.affect.stored import Picture
from pipeline.video.picture_file import open_picture


def read_picture(file: Path, side: int) -> Picture:
    """The picture upright and of S x S pixels; another shape is stretched.

    Raises:
        ValueError: See `open_picture`.
    """
    colours = open_picture(file)
    if colours.size != (side, side):
        colours = colours.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(colours, np.uint8)
