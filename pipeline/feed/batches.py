"""The batches of a training and of an evaluation, for one device.

Augmentation is a function of the seed, the epoch and the clip, as the order is.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.feed.augment import AugmentSettings, augment_clip
from pipeline.feed.loader import Source, load, load_in_order
from pipeline.feed.order import Numbers, Rank, Share, epoch_order, num_passes, num_steps, shares
from pipeline.feed.transforms import horizontal_flip
from pipeline.store.batch import Batch, Target


class LabelledSource(Source, Protocol):
    """Samples with a class index each, (N,), and so many samplings of every clip's frames."""

    labels: Numbers
    segments: int


class BatchPlan(NamedTuple):
    """How epochs are cut into the batches of one device.

    Attributes:
        batch_size: Samples per step, on all devices together.
        class_balanced: See `epoch_order`.
        min_steps: Fewest steps of an epoch, which goes through few samples several times.
        seed: Of the training.
        rank: The device.
        num_workers: Processes of this device that read and decode.
    """

    batch_size: int
    class_balanced: bool
    min_steps: int
    seed: int
    rank: Rank
    num_workers: int


class EpochBatches:
    """One device's batches, epoch after epoch.

    Args:
        samples: Their batches by `Share`.
        labels: (N,) class indices of the samples.
        plan: How an epoch is cut.

    Attributes:
        steps_per_epoch: Batches of an epoch.
    """

    def __init__(
        self,
        samples: Dataset[Batch],
        labels: Numbers,
        plan: BatchPlan,
    ) -> None:
        size = plan.batch_size
        self.passes = num_passes(len(labels), batch_size=size, min_steps=plan.min_steps)
        self.steps_per_epoch = num_steps(self.passes * len(labels), size)
        self.samples = samples
        self.labels = labels
        self.plan = plan

    def starting_at(self, epoch: int, step: int) -> Iterator[Batch]:
        """The batches from a step on, without end; nothing that comes before it is read.

        Workers go on to the next epoch while the last one is validated.

        Args:
            epoch: From 1.
            step: Steps of that epoch which were taken before.
        """
        steps = _Steps(self, epoch, step)
        return iter(load(self.samples, steps, num_workers=self.plan.num_workers))


class _Steps:
    """The shares of a device, from a step on."""

    def __init__(self, batches: EpochBatches, epoch: int, step: int) -> None:
        self.batches = batches
        self.epoch = epoch
        self.step = step

    def __iter__(self) -> Iterator[Share]:
        own, plan, epoch, step = self.batches, self.batches.plan, self.epoch, self.step
        while True:
            order = epoch_order(
                own.labels,
                seed=plan.seed,
                epoch=epoch,
                class_balanced=plan.class_balanced,
                passes=own.passes,
            )
            found = shares(order, epoch=epoch, batch_size=plan.batch_size, rank=plan.rank)
            yield from found[step:]
            epoch, step = epoch + 1, 0


class TrainingBatches(EpochBatches):
    """Batches of labelled clips, in which the clips are changed.

    Args:
        source: Of the training subjects.
        augment: Changes to single clips, and how many copies of each a step takes.
        plan: How an epoch is cut.
    """

    def __init__(self, source: LabelledSource, augment: AugmentSettings, plan: BatchPlan) -> None:
        super().__init__(_AugmentedSamples(source, augment, plan.seed), source.labels, plan)


def evaluation_batches(
    source: Source, *, batch_size: int, rank: Rank, num_workers: int
) -> DataLoader[Batch]:
    """One device's share of all samples, once and in order; the devices' shares follow one another.

    Args:
        source: Of the subjects to be predicted.
        batch_size: Most samples of a batch of one device.
        rank: The device.
        num_workers: Processes of this device that read and decode.
    """
    own = np.array_split(np.arange(len(source)), rank.world_size)[rank.number].tolist()
    return load_in_order(_SomeSamples(source, own), batch_size=batch_size, num_workers=num_workers)


class _SomeSamples:
    """Some of the samples, numbered anew."""

    def __init__(self, source: Source, numbers: list[int]) -> None:
        self.source = source
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, numbers: list[int], /) -> Batch:
        return self.source[[self.numbers[number] for number in numbers]]


class MiddleSegment:
    """The samples of a source, of each the middle one of the samplings of its frames."""

    segments = 1

    def __init__(self, source: LabelledSource) -> None:
        self.source = source
        self.labels = source.labels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, numbers: list[int], /) -> Batch:
        count = self.source.segments
        return self.source[numbers].segment(count // 2, count)


class _AugmentedSamples(Dataset[Batch]):
    def __init__(self, source: LabelledSource, augment: AugmentSettings, seed: int) -> None:
        self.source = source
        self.augment = augment
        self.seed = seed

    def __getitem__(self, share: Share) -> Batch:
        batch = self.source[share.numbers]
        segments = self.source.segments
        if share.idle:
            return batch.segment(0, segments).without_targets()
        return augment_batch(
            batch,
            self.augment,
            segments=segments,
            seed=self.seed,
            epoch=share.epoch,
            repeats=share.repeats,
        )


def augment_batch(
    batch: Batch,
    settings: AugmentSettings,
    *,
    segments: int = 1,
    seed: int,
    epoch: int,
    repeats: list[int],
) -> Batch:
    """Copies of every clip, side by side, each changed by draws of its own.

    Draws depend on the seed, the epoch, the clip's name, and how many copies of it the epoch had
    before.

    Args:
        batch: Frames, as `StoredFrames` gives them.
        settings: See `AugmentSettings`.
        segments: Samplings that the frames hold, of which each copy takes one at random.
        seed: Of the training.
        epoch: From 1.
        repeats: How often each clip came before in this epoch.
    """
    if not settings.changes and segments == 1:
        return batch
    assert batch.inputs.ndim == 5, "frames can be augmented, tokens cannot"
    boxes, points = batch.targets["boxes"], batch.targets["points"]
    samples = list(product(range(len(batch)), range(settings.copies)))
    clips = []
    for i, copy in samples:
        digest = int.from_bytes(hashlib.sha256(batch.ids[i].encode()).digest()[:8], "big")
        repeat = repeats[i] * settings.copies + copy
        random = np.random.default_rng((seed, epoch, digest, *([repeat] if repeat else [])))
        clip, known = (batch.inputs[i], boxes.values[i], points.values[i]), boxes.known[i]
        if segments > 1:
            first = int(random.integers(segments))
            frames, its_boxes, its_points = (values[first::segments] for values in clip)
            clip, known = (frames, its_boxes, its_points), known[first::segments]
        if random.random() < settings.flip_probability:
            clip = horizontal_flip(*clip)
        clips.append(augment_clip(*clip, known, settings, random))
    frames, moved_boxes, moved_points, mask = map(torch.stack, zip(*clips, strict=True))
    moved = {"boxes": Target(moved_boxes, mask), "points": Target(moved_points, mask)}
    copied = batch.without_inputs().rows([i for i, _ in samples])
    return replace(copied, inputs=frames, targets={**copied.targets, **moved})
