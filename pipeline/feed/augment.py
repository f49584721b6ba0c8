"""Changes to clips in which labels move with the pixels; RandAugment and erasing are timm's.

Frames of a clip share all random decisions but noise; inputs are left as they are.

Shape letters: T frames, I side of a square frame in pixels.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import cos, exp, radians, sin
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.auto_augment import LEVEL_TO_ARG, NAME_TO_OP
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms.functional import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
)

from pipeline.common.params import Section
from pipeline.feed.geometry import GEOMETRIC, move_labels, random_crop, resample

Probability = Annotated[float, Field(ge=0, le=1)]


class AugmentSettings(Section):
    """Changes to single clips; see `augment_clip`.

    Attributes:
        flip_probability: Chance that a clip is mirrored.
        shift: Largest movement across and down, as a share of the frame.
        scale: A clip is enlarged by a factor from exp(-scale) to exp(scale).
        rotation: Largest, in degrees, either way.
        crop_area: Smallest share of the frame that a random crop keeps, which then fills the frame;
            1 is off.
        crop_aspect: Largest ratio of a crop's longer side to its shorter one.
        colour: Brightness, contrast and saturation change by factors from 1 - colour to 1 + colour.
        rand_augment_ops: RandAugment's operations drawn per clip, with replacement; 0 is off.
        rand_augment_probability: Chance of each that it is applied: 1 in the paper, one half in
            timm.
        rand_augment_magnitude: 0 to 10; 10 rotates by 30 degrees, shears by 0.3, moves by 0.45 of
            the frame, enhances by a factor of 0.1 or 1.9, solarizes from 0 and keeps 1 bit; at 0
            only Posterize (4 bits), AutoContrast and Equalize do anything. Signs are random.
        rand_augment_deviation: Standard deviation of an operation's magnitude, which is normal and
            clipped to 0 to 10, as timm's mstd; 0: it is always the same.
        erase_probability: Chance that a rectangle of a clip is erased.
        copies: Of each clip in a step, each one changed by draws of its own; VideoMAE's repeated
            augmentation.
    """

    flip_probability: Probability
    shift: Annotated[float, Field(ge=0, le=0.5)]
    scale: Annotated[float, Field(ge=0, le=1)]
    rotation: Annotated[float, Field(ge=0, le=180)]
    crop_area: Annotated[float, Field(gt=0, le=1)]
    crop_aspect: Annotated[float, Field(ge=1)]
    colour: Annotated[float, Field(ge=0, lt=1)]
    rand_augment_ops: NonNegativeInt
    rand_augment_probability: Probability
    rand_augment_magnitude: Annotated[float, Field(ge=0, le=10)]
    rand_augment_deviation: NonNegativeFloat
    erase_probability: Probability
    copies: PositiveInt

    @model_validator(mode="after")
    def _copies_differ(self) -> Self:
        if self.copies > 1 and not self.changes:
            raise ValueError(
                f"{self.copies} copies of a clip would be the same: nothing else of augment is on; "
                "take copies: 1"
            )
        return self

    @property
    def changes(self) -> list[str]:
        """What may change a clip, in words; nothing where every clip stays as it is."""
        strengths = {
            "flips": self.flip_probability,
            "shifts": self.shift,
            "scaling": self.scale,
            "rotation": self.rotation,
            "crops": 1 - self.crop_area,
            "colour": self.colour,
            "RandAugment": self.rand_augment_ops * self.rand_augment_probability,
            "erasing": self.erase_probability,
        }
        return [name for name, strength in strengths.items() if strength]


# With the geometric ones, the paper's operations without Identity, in timm's variants that grow
# with the magnitude. timm's list of those has Invert and SolarizeAdd too; the paper has neither.
_PHOTOMETRIC = [
    "AutoContrast", "Equalize", "PosterizeIncreasing", "SolarizeIncreasing",
    "ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing",
]  # fmt: skip


def augment_clip(
    frames: Tensor,
    boxes: Tensor,
    points: Tensor,
    mask: Tensor,
    settings: AugmentSettings,
    generator: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Place, colour and RandAugment, then a crop, then random erasing; not `horizontal_flip`.

    Colours change before pixels move, so that histograms hold no fill; all that moves pixels is one
    bilinear resampling, filled with grey (128). Erasing puts noise into one rectangle of all
    frames, 2 to 33 % of the area; labels stay, for the hidden face is still there.

    Args:
        frames: (T, 3, I, I) uint8 RGB.
        boxes: (T, 4) x, y, w, h, fractions of the frame; moved ones bound their corners, clipped.
        points: (T, 5, 2) x, y as fractions of the frame; moved ones may lie outside of it.
        mask: (T,) frames with known labels; False where the box's centre left the frame.
        settings: How much.
        generator: Of all draws; advanced.

    Source: RandAugment (Cubuk et al., 2020), section 3; Random Erasing (Zhong et al., 2020); timm;
    crops as in torchvision's RandomResizedCrop.
    """
    side = frames.shape[-1]
    source = _placement(settings, generator)
    if settings.colour:
        frames = _change_colours(frames, *generator.uniform(-1, 1, 3) * settings.colour + 1)
    with global_generators_seeded_by(generator):
        operations = _draw_operations(settings, generator)
        erased = _random_rectangle(settings.erase_probability, side)
    photometric = [operation for operation in operations if operation.name not in GEOMETRIC]
    if photometric:
        frames = _recolour(frames, photometric)
    # The way back to the source goes through the last change first.
    for name, arguments in operations:
        if name in GEOMETRIC:
            source @= source.new_tensor([*GEOMETRIC[name](*arguments), [0, 0, 1]])
    if settings.crop_area < 1:
        source @= random_crop(settings.crop_area, settings.crop_aspect, side, generator)
    if not torch.equal(source, torch.eye(3, dtype=torch.float64)):
        frames = resample(frames, source)
        boxes, points, inside = move_labels(boxes, points, source.inverse())
        mask = mask & inside
    if erased.any():
        # timm's noise, normal with a mean and deviation of ImageNet's, in units of a uint8 frame.
        size = (len(frames), int(erased.sum()), 3)
        noise = 255 * generator.normal(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, size)
        frames = frames.clone()
        frames[:, :, erased] = torch.from_numpy(noise.clip(0, 255).astype(np.uint8)).mT
    return frames, boxes, points, mask


@contextmanager
def global_generators_seeded_by(generator: np.random.Generator) -> Iterator[None]:
    """For timm, which draws from these two; afterwards they are as before."""
    seed = int(generator.integers(2**32))
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


class _Operation(NamedTuple):
    """One of RandAugment's, and what timm makes of its magnitude."""

    name: str
    arguments: tuple[float, ...]


def _draw_operations(settings: AugmentSettings, generator: np.random.Generator) -> list[_Operation]:
    """RandAugment's operations for a clip; all but their names is drawn by Python's generator."""
    operations = []
    names = [*_PHOTOMETRIC, *GEOMETRIC]
    probability, deviation = settings.rand_augment_probability, settings.rand_augment_deviation
    for name in generator.choice(names, settings.rand_augment_ops).tolist():
        if probability < 1 and random.random() > probability:
            continue
        magnitude = settings.rand_augment_magnitude
        if deviation:
            magnitude = min(max(random.gauss(magnitude, deviation), 0.0), 10.0)
        to_arguments: Callable[..., tuple[float, ...]] | None = LEVEL_TO_ARG[name]
        arguments = to_arguments(magnitude, {}) if to_arguments else ()
        if name == "PosterizeIncreasing":
            arguments = (max(1, *arguments),)  # timm's 0 bits at magnitude 10 are an error
        operations.append(_Operation(name, arguments))
    return operations


def _random_rectangle(probability: float, side: int) -> Tensor:
    """(I, I) the pixels to be erased: none, or with that probability a rectangle."""
    if not probability:
        return torch.zeros(side, side, dtype=torch.bool)
    erase = RandomErasing(probability, device="cpu")  # type: ignore[no-untyped-call]
    erased: Tensor = erase(torch.ones(1, side, side))[0] == 0
    return erased


def _placement(settings: AugmentSettings, generator: np.random.Generator) -> Tensor:
    """A random matrix (3, 3) from places of the new frame to places of the old one, -1 to 1."""
    if not (settings.shift or settings.scale or settings.rotation):
        return torch.eye(3, dtype=torch.float64)
    across, down, growth, turn = generator.uniform(-1, 1, 4)
    angle, factor = radians(settings.rotation * turn), exp(-settings.scale * growth)
    c, s = factor * cos(angle), factor * sin(angle)
    moves = [2 * settings.shift * across, 2 * settings.shift * down]
    return torch.tensor([[c, -s, moves[0]], [s, c, moves[1]], [0, 0, 1]], dtype=torch.float64)


def _change_colours(
    frames: Tensor, brightness: float, contrast: float, saturation: float
) -> Tensor:
    frames = adjust_brightness(frames, brightness)
    frames = adjust_contrast(frames, contrast)
    changed: Tensor = adjust_saturation(frames, saturation)
    return changed


def _recolour(frames: Tensor, operations: list[_Operation]) -> Tensor:
    timm_operations: dict[str, Any] = NAME_TO_OP
    pictures = [Image.fromarray(frame) for frame in frames.movedim(1, -1).contiguous().numpy()]
    for name, arguments in operations:
        pictures = [timm_operations[name](picture, *arguments) for picture in pictures]
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(arrays).movedim(-1, 1).contiguous()
