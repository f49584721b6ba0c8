"""The batches of a pre-training: which samples, what part of them, and which tokens are hidden.

All of it is a function of the seed, the epoch and the sample's name.
"""

import hashlib
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.feed.batches import BatchPlan, EpochBatches
from pipeline.feed.order import Share
from pipeline.pretrain.crops import AugmentSettings, augment
from pipeline.pretrain.masks import MASK, Masking, with_masks
from pipeline.pretrain.sources import SampleSource
from pipeline.store.batch import Batch, Target
from pipeline.video.container import UnusableVideo

# Where a batch's targets say which of its samples could not be read: `values` (B,) booleans.
SKIPPED = "skipped"


class Form(NamedTuple):
    """What a model is told of a sample.

    Attributes:
        num_frames: T, of a clip (T, 3, S, S); 0 for a picture (3, S, S).
        size: S, in pixels.
        masking: Of its tokens.
    """

    num_frames: int
    size: int
    masking: Masking


class PretrainBatches(EpochBatches):
    """Batches of unlabelled samples, other parts of which are drawn in every epoch.

    Args:
        source: Of the samples that are trained on.
        form: What the model is told of a sample.
        settings: What is changed in it.
        plan: How an epoch is cut; there are no classes to balance.
    """

    def __init__(
        self,
        source: SampleSource,
        form: Form,
        settings: AugmentSettings,
        plan: BatchPlan,
    ) -> None:
        samples = _DrawnSamples(source, form, settings, plan.seed)
        super().__init__(samples, np.zeros(len(source), np.int64), plan)


class _DrawnSamples(Dataset[Batch]):
    def __init__(
        self, source: SampleSource, form: Form, settings: AugmentSettings, seed: int
    ) -> None:
        self.source = source
        self.form = form
        self.settings = settings
        self.seed = seed

    def __getitem__(self, share: Share) -> Batch:
        if share.idle:
            batch = _batch(self.source, self.form, share.numbers, [None] * len(share.numbers))
            masked = with_masks(batch, self.form.masking, seed=self.seed, epoch=share.epoch)
            return masked.without_targets()
        inputs = []
        for number, repeat in zip(share.numbers, share.repeats, strict=True):
            digest = hashlib.sha256(self.source.name(number).encode()).digest()[:8]
            key = (self.seed, share.epoch, int.from_bytes(digest, "big"), repeat)
            random = np.random.default_rng(key)
            inputs.append(_read(self.source, self.form, self.settings, number, random))
        batch = _batch(self.source, self.form, share.numbers, inputs)
        return _hide(
            with_masks(
                batch,
                self.form.masking,
                seed=self.seed,
                epoch=share.epoch,
                repeats=share.repeats,
            )
        )


class HeldOutSamples:
    """Samples that are the same in every epoch: middle frames, the centre, one mask.

    Args:
        source: Of the held-out samples.
        form: What the model is told of a sample.
        most: Of the samples, spread evenly over all.
        seed: Of the masks.
    """

    def __init__(self, source: SampleSource, form: Form, *, most: int, seed: int) -> None:
        self.source = source
        self.form = form
        count = min(most, len(source))
        self.numbers = [i * len(source) // count for i in range(count)]
        self.seed = seed

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, numbers: list[int], /) -> Batch:
        chosen = [self.numbers[number] for number in numbers]
        still = AugmentSettings(crop="none", flip_probability=0.0)
        inputs = [_read(self.source, self.form, still, number, None) for number in chosen]
        batch = _batch(self.source, self.form, chosen, inputs)
        return _hide(with_masks(batch, self.form.masking, seed=self.seed, epoch=0))


def _read(
    source: SampleSource,
    form: Form,
    settings: AugmentSettings,
    number: int,
    random: np.random.Generator | None,
) -> Tensor | None:
    """What the model sees of a sample; None where it cannot be read."""
    try:
        pictures = source.read(number, random)
    except UnusableVideo as error:
        warnings.warn(f"skipped {source.path(number)}: {error}", stacklevel=2)
        return None
    frames = augment(pictures, settings, form.size, random or np.random.default_rng(0))
    return frames if form.num_frames else frames[0]


def _batch(
    source: SampleSource, form: Form, numbers: list[int], inputs: list[Tensor | None]
) -> Batch:
    """The batch of some samples; those that could not be read are black."""
    lengths = (form.num_frames,) if form.num_frames else ()
    black = torch.zeros(*lengths, 3, form.size, form.size, dtype=torch.uint8)
    skipped = torch.tensor([value is None for value in inputs])
    return Batch(
        ids=[source.name(number) for number in numbers],
        groups=[source.group(number) for number in numbers],
        inputs=torch.stack([black if value is None else value for value in inputs]),
        targets={SKIPPED: Target(skipped, torch.ones_like(skipped))},
    )


def _hide(batch: Batch) -> Batch:
    """The batch, in which samples that could not be read do not count.

    Raises:
        RuntimeError: That is all of several: the files are gone, and not a few of them damaged.
    """
    skipped = batch.targets[SKIPPED].values
    if len(batch) > 1 and skipped.all():
        raise RuntimeError(
            f"none of the {len(batch)} samples of a batch can be read, such as {batch.ids[0]}: is "
            "their folder still there?"
        )
    mask = batch.targets[MASK]
    return batch.with_target(MASK, mask._replace(known=mask.known & ~skipped))
