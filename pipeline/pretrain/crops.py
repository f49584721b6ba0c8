"""What a pre-training sees of a picture: a random part of it, the same for all frames of a clip.

Shape letters: T frames, H x W pixels of a picture, S side of a frame as the model reads it.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.common.frames import Frames
from pipeline.common.params import Section
from pipeline.feed.augment import Probability

# Sides of VideoMAE's crops, as shares of the shorter side of the picture.
SCALES = (1.0, 0.875, 0.75, 0.66)
# Smallest share of the area and most of the ratio of the sides of MAE's crops.
_SMALLEST_AREA, _LARGEST_ASPECT = 0.2, 4 / 3


class AugmentSettings(Section):
    """What is changed in a sample, anew in every epoch.

    Attributes:
        crop: `multi_scale`: of VideoMAE; `random_area`: of MAE; `none`: the centre square, for
            faces that are aligned already.
        flip_probability: Chance that a sample is mirrored.
    """

    crop: Literal["multi_scale", "random_area", "none"]
    flip_probability: Probability

    def side_before(self, size: int) -> int:
        """Shorter side, in pixels, of pictures whose smallest crop is `size` pixels long."""
        smallest = {
            "multi_scale": min(SCALES),
            "random_area": math.sqrt(_SMALLEST_AREA / _LARGEST_ASPECT),
            "none": 1.0,
        }
        return math.ceil(size / smallest[self.crop])


class Rectangle(NamedTuple):
    """A part of a picture, in whole pixels from the top left corner."""

    left: int
    top: int
    width: int
    height: int


def augment(
    pictures: Frames, settings: AugmentSettings, size: int, random: np.random.Generator
) -> Tensor:
    """Cut one random part out of all pictures (T, H, W, 3): (T, 3, S, S), uint8.

    Args:
        pictures: Of one sample.
        settings: How.
        size: S.
        random: Of all draws; advanced.
    """
    height, width = pictures.shape[1:3]
    # VideoMAE resizes bilinearly, MAE bicubically.
    filter_ = Image.Resampling.BICUBIC
    if settings.crop == "multi_scale":
        part, filter_ = multi_scale_crop(width, height, random), Image.Resampling.BILINEAR
    elif settings.crop == "random_area":
        part = random_area_crop(width, height, random)
    else:
        part = centre_square(width, height)
    frames = cut_out(pictures, part, size, filter_)
    return frames.flip(-1) if random.random() < settings.flip_probability else frames


def cut_out(pictures: Frames, part: Rectangle, size: int, resampling: Image.Resampling) -> Tensor:
    """A part of all pictures (T, H, W, 3), scaled to (T, 3, S, S)."""
    rows = slice(part.top, part.top + part.height)
    columns = slice(part.left, part.left + part.width)
    frames = [
        np.asarray(Image.fromarray(picture[rows, columns]).resize((size, size), resampling))
        for picture in pictures
    ]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def centre_square(width: int, height: int) -> Rectangle:
    """The largest square in the middle of a picture."""
    side = min(width, height)
    return Rectangle((width - side) // 2, (height - side) // 2, side, side)


def multi_scale_crop(width: int, height: int, random: np.random.Generator) -> Rectangle:
    """A part whose sides are neighbours among `SCALES`, at one of 13 places.

    The places are the corners, the centre, the middles of the edges, and halfway from the centre
    to each corner.

    Source: Temporal Segment Networks (arXiv 1608.00859), section 3.3, and the code of VideoMAE.
    """
    sides = [int(min(width, height) * scale) for scale in SCALES]
    pairs = [
        (sides[i], sides[j])
        for i in range(len(sides))
        for j in range(len(sides))
        if abs(i - j) <= 1
    ]
    crop_width, crop_height = pairs[random.integers(len(pairs))]
    # In quarters of the way from the left and from the top.
    places = [(x, y) for x in range(5) for y in range(5) if (x % 2 == 0) == (y % 2 == 0)]
    x, y = places[random.integers(len(places))]
    left, top = (width - crop_width) // 4 * x, (height - crop_height) // 4 * y
    return Rectangle(left, top, crop_width, crop_height)


def random_area_crop(width: int, height: int, random: np.random.Generator) -> Rectangle:
    """A part of at least a fifth of the area, whose sides' ratio is at most 4 to 3 either way.

    Of ten rectangles the first one that fits is taken, or else the centre square.

    Source: MAE (arXiv 2111.06377), table 8; RandomResizedCrop of torchvision.
    """
    for _ in range(10):
        area = width * height * random.uniform(_SMALLEST_AREA, 1)
        aspect = math.exp(math.log(_LARGEST_ASPECT) * random.uniform(-1, 1))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left, top = random.integers([width - crop_width + 1, height - crop_height + 1]).tolist()
            return Rectangle(left, top, crop_width, crop_height)
    return centre_square(width, height)


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
