"""Which clips make up each step of the training, who takes them, and how they are augmented.

All of it is a function of the seed, the epoch and the clip: not of the number of devices or of
workers, nor of whether the training was interrupted.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.feed.augment import augment_clip
from pipeline.feed.loader import load
from pipeline.feed.transforms import horizontal_flip
from pipeline.mtcae.loss import NO_LABEL
from pipeline.store.shards import Batch

Numbers = npt.NDArray[np.int64]


class ClipSource(Protocol):
    """Clips numbered from 0, such as `Clips` of shards.

    Attributes:
        labels: A class index per clip.
    """

    labels: Numbers

    def __getitem__(self, numbers: list[int], /) -> Batch: ...


class Augmentation(NamedTuple):
    """Changes to single clips; see `augment_clip`."""

    flip_probability: float = 0.0
    rand_augment_ops: int = 0
    rand_augment_magnitude: float = 0.0
    erase_probability: float = 0.0

    @property
    def changes_nothing(self) -> bool:
        """Whether every clip stays as it is."""
        return not (self.flip_probability or self.rand_augment_ops or self.erase_probability)


class Share(NamedTuple):
    """What one device takes of a step.

    A device for which no clip is left takes one that another has, without its labels, so that it
    has something to answer when the devices sum up their gradients.

    Attributes:
        epoch: From 1.
        clips: Their numbers.
        repeats: How often each of them came before in this epoch.
        labelled: False where no clip is left.
    """

    epoch: int
    clips: list[int]
    repeats: list[int]
    labelled: bool


def epoch_order(labels: Numbers, *, seed: int, epoch: int, class_balanced: bool) -> Numbers:
    """The numbers of the clips in the order of an epoch.

    Every clip once or, class-balanced, every class equally often, give or take one: clips of large
    classes are left out in turn and those of small ones repeated, no clip of a class a second time
    before all of them came once. The number of clips stays the same.

    Args:
        labels: (N,) class indices.
        seed: Of the training.
        epoch: From 1.
        class_balanced: See above.
    """
    random = np.random.default_rng((seed, epoch))
    if not class_balanced:
        return random.permutation(len(labels))
    classes = random.permutation(np.unique(labels))
    chosen = []
    for i, label in enumerate(classes):
        members = np.flatnonzero(labels == label)
        wanted = len(range(i, len(labels), len(classes)))
        rounds = [random.permutation(members) for _ in range(-(-wanted // len(members)))]
        chosen.append(np.concatenate(rounds)[:wanted])
    return random.permutation(np.concatenate(chosen))


def num_steps(num_clips: int, batch_size: int) -> int:
    """Steps of an epoch; the last batch may be smaller."""
    return -(-num_clips // batch_size)


def shares(
    order: Numbers, *, epoch: int, batch_size: int, rank: int, world_size: int
) -> list[Share]:
    """One device's part of every step of an epoch; all parts together are every clip once.

    Args:
        order: Of `epoch_order`.
        epoch: Its number.
        batch_size: Clips per step, on all devices together.
        rank: Of the device.
        world_size: Number of devices.
    """
    parts = []
    repeats = pd.Series(order).groupby(order).cumcount().to_numpy()
    for i in range(0, len(order), batch_size):
        batch = np.arange(i, min(i + batch_size, len(order)))
        own = np.array_split(batch, world_size)[rank]
        taken = own if len(own) else batch[:1]
        parts.append(
            Share(epoch, order[taken].tolist(), repeats[taken].tolist(), labelled=bool(len(own)))
        )
    return parts


def training_batches(
    clips: ClipSource,
    *,
    first_epoch: int,
    first_step: int,
    batch_size: int,
    rank: int,
    world_size: int,
    class_balanced: bool,
    augmentation: Augmentation,
    seed: int,
    num_workers: int,
) -> Iterator[Batch]:
    """One device's batches from a step on, epoch after epoch without end.

    Workers go on to the next epoch while the last one is validated. Nothing of the clips before the
    first step is read.

    Args:
        clips: Of the training subjects.
        first_epoch: From 1.
        first_step: Steps of that epoch which were taken before.
        batch_size: Clips per step, on all devices together.
        rank: Of the device.
        world_size: Number of devices.
        class_balanced: See `epoch_order`.
        augmentation: Of single clips.
        seed: Of the training.
        num_workers: Processes of this device that read and decode.
    """

    class Steps:
        def __iter__(self) -> Iterator[Share]:
            epoch, step = first_epoch, first_step
            while True:
                order = epoch_order(
                    clips.labels, seed=seed, epoch=epoch, class_balanced=class_balanced
                )
                yield from shares(
                    order, epoch=epoch, batch_size=batch_size, rank=rank, world_size=world_size
                )[step:]
                epoch, step = epoch + 1, 0

    return iter(load(_Augmented(clips, augmentation, seed), Steps(), num_workers=num_workers))


def evaluation_batches(
    clips: ClipSource, *, batch_size: int, rank: int, world_size: int, num_workers: int
) -> DataLoader[Batch]:
    """One device's share of all clips, once and in order; the devices' shares follow one another.

    Args:
        clips: Of the subjects to be predicted.
        batch_size: Most clips of a batch of one device.
        rank: Of the device.
        world_size: Number of devices.
        num_workers: Processes of this device that read and decode.
    """
    own = np.array_split(np.arange(len(clips.labels)), world_size)[rank].tolist()
    batches = [own[i : i + batch_size] for i in range(0, len(own), batch_size)]
    return load(_Plain(clips), batches, num_workers=num_workers)


class _Plain(Dataset[Batch]):
    def __init__(self, clips: ClipSource) -> None:
        self.clips = clips

    def __getitem__(self, numbers: list[int]) -> Batch:
        return self.clips[numbers]


class _Augmented(Dataset[Batch]):
    def __init__(self, clips: ClipSource, augmentation: Augmentation, seed: int) -> None:
        self.clips = clips
        self.augmentation = augmentation
        self.seed = seed

    def __getitem__(self, share: Share) -> Batch:
        batch = self.clips[share.clips]
        if not share.labelled:
            labels = torch.full_like(batch.labels, NO_LABEL)
            return batch._replace(labels=labels, mask=torch.zeros_like(batch.mask))
        return augment(
            batch, self.augmentation, seed=self.seed, epoch=share.epoch, repeats=share.repeats
        )


def augment(
    batch: Batch, augmentation: Augmentation, *, seed: int, epoch: int, repeats: list[int]
) -> Batch:
    """Every clip changed by draws that depend on the seed, the epoch, its name and its repeat.

    Args:
        batch: Frames, without tokens.
        augmentation: See `Augmentation`.
        seed: Of the training.
        epoch: From 1.
        repeats: How often each clip came before in this epoch.

    Raises:
        ValueError: The batch carries tokens, which cannot be augmented.
    """
    if augmentation.changes_nothing:
        return batch
    if batch.tokens is not None:
        raise ValueError(f"{augmentation} needs frames, and the batch carries an encoder's tokens")
    parts = []
    for i, (name, repeat) in enumerate(zip(batch.clips, repeats, strict=True)):
        digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        random = np.random.default_rng((seed, epoch, digest, *([repeat] if repeat else [])))
        mirrored = torch.tensor([random.random() < augmentation.flip_probability])
        frames, boxes, points = horizontal_flip(
            batch.frames[i : i + 1], batch.boxes[i : i + 1], batch.points[i : i + 1], mirrored
        )
        parts.append(
            augment_clip(
                frames[0],
                boxes[0],
                points[0],
                batch.mask[i],
                rand_augment_ops=augmentation.rand_augment_ops,
                rand_augment_magnitude=augmentation.rand_augment_magnitude,
                erase_probability=augmentation.erase_probability,
                generator=random,
            )
        )
    frames, boxes, points, mask = (torch.stack(column) for column in zip(*parts, strict=True))
    return batch._replace(frames=frames, boxes=boxes, points=points, mask=mask)
