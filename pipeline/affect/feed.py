"""The pictures of a training and of an evaluation, as batches.

How a picture is changed is a function of the seed, the epoch and the picture's name.

Shape letters: N pictures, S stored side and P side that a model reads, in pixels.
"""

import hashlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import functional as F

from pipeline.affect.labels import targets_of, truth_of
from pipeline.affect.stored import StoredSet
from pipeline.common.params import Section
from pipeline.feed.augment import Probability
from pipeline.feed.batches import BatchPlan, EpochBatches
from pipeline.feed.order import Numbers, Share
from pipeline.store.batch import Batch


class AugmentSettings(Section):
    """Changes to a picture, drawn anew in every epoch.

    Attributes:
        crop: Side of the window that the model sees over the picture's side. It is at a random
            place while training and in the middle otherwise; the paper's 224 of 232 are 0.966.
        flip_probability: Chance that a picture is mirrored.
        jitter_probability: Chance that its colours are changed.
        brightness: Colours change by a factor from 1 - brightness to 1 + brightness.
        contrast: Likewise.
        saturation: Likewise.
        hue: Largest turn of the hue, as a share of the colour circle.
    """

    crop: Annotated[float, Field(gt=0, le=1)]
    flip_probability: Probability
    jitter_probability: Probability
    brightness: Annotated[float, Field(ge=0, lt=1)]
    contrast: Annotated[float, Field(ge=0, lt=1)]
    saturation: Annotated[float, Field(ge=0, lt=1)]
    hue: Annotated[float, Field(ge=0, le=0.5)]


class Pictures:
    """Some of the stored pictures with their labels, numbered from 0.

    Args:
        stored: The set.
        numbers: Of the pictures in the manifest.
        side: P.
        crop: See `AugmentSettings`.

    Attributes:
        labels: (N,) class indices; those of unknown expressions come after all classes.
    """

    def __init__(
        self, stored: StoredSet, numbers: Sequence[int], *, side: int, crop: float
    ) -> None:
        self.stored = stored
        self.numbers = list(numbers)
        self.side = side
        self.crop = crop
        self.images = [stored.images[number] for number in self.numbers]
        self.truth = truth_of(self.images, stored.card.classes)
        self.targets = targets_of(self.truth)
        self.labels: Numbers = np.where(
            self.truth.expression_known, self.truth.expression, len(stored.card.classes)
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, numbers: list[int], /) -> Batch:
        """As an evaluation sees them: the middle of each."""
        return self.batch(numbers, [self._middle(self.read(number)) for number in numbers])

    def read(self, number: int) -> Tensor:
        """(3, S, S), uint8."""
        return torch.from_numpy(np.array(self.stored.pixels[self.numbers[number]])).permute(2, 0, 1)

    def batch(self, numbers: Sequence[int], pictures: Sequence[Tensor]) -> Batch:
        """Pictures (3, P, P) with the labels of those numbers."""
        chosen = list(numbers)
        return Batch(
            ids=[self.images[i].id for i in chosen],
            groups=[self.images[i].group for i in chosen],
            inputs=torch.stack(list(pictures)),
            targets={
                name: target._replace(values=target.values[chosen], known=target.known[chosen])
                for name, target in self.targets.items()
            },
        )

    def _middle(self, picture: Tensor) -> Tensor:
        window = round(self.crop * picture.shape[-1])
        start = (picture.shape[-1] - window) // 2
        return cut_out(picture, start, start, window, self.side)


def cut_out(picture: Tensor, top: int, left: int, window: int, side: int) -> Tensor:
    """A square of a picture (3, S, S), scaled to (3, P, P)."""
    size = [side, side]
    if window == side:
        return picture[:, top : top + side, left : left + side]
    cut: Tensor = F.resized_crop(picture, top, left, window, window, size, antialias=True)
    return cut


def change(
    picture: Tensor, settings: AugmentSettings, side: int, random: np.random.Generator
) -> Tensor:
    """A picture (3, S, S) as a training sees it, (3, P, P)."""
    window = round(settings.crop * picture.shape[-1])
    top, left = random.integers(picture.shape[-1] - window + 1, size=2).tolist()
    changed: Tensor = cut_out(picture, top, left, window, side)
    if random.random() < settings.flip_probability:
        changed = F.hflip(changed)
    if random.random() >= settings.jitter_probability:
        return changed
    factors = 1 + random.uniform(-1, 1, size=3) * (
        settings.brightness,
        settings.contrast,
        settings.saturation,
    )
    brightness, contrast, saturation = factors.tolist()
    changed = F.adjust_brightness(changed, brightness)
    changed = F.adjust_contrast(changed, contrast)
    changed = F.adjust_saturation(changed, saturation)
    turn = settings.hue * random.uniform(-1, 1)
    turned: Tensor = F.adjust_hue(changed, turn) if settings.hue else changed
    return turned


class PictureBatches(EpochBatches):
    """Batches of pictures, each changed in another way in every epoch.

    Args:
        pictures: That are trained on.
        settings: What is changed in them.
        plan: How an epoch is cut; unknown expressions count as a class.
    """

    def __init__(self, pictures: Pictures, settings: AugmentSettings, plan: BatchPlan) -> None:
        super().__init__(_ChangedPictures(pictures, settings, plan.seed), pictures.labels, plan)


class _ChangedPictures(Dataset[Batch]):
    def __init__(self, pictures: Pictures, settings: AugmentSettings, seed: int) -> None:
        self.pictures = pictures
        self.settings = settings
        self.seed = seed

    def __getitem__(self, share: Share) -> Batch:
        own = self.pictures
        if share.idle:
            return own[share.numbers].without_targets()
        changed = []
        for number, repeat in zip(share.numbers, share.repeats, strict=True):
            digest = hashlib.sha256(own.images[number].id.encode()).digest()[:8]
            key = (self.seed, share.epoch, int.from_bytes(digest, "big"), repeat)
            random = np.random.default_rng(key)
            changed.append(change(own.read(number), self.settings, own.side, random))
        return own.batch(share.numbers, changed)
