"""Which samples make up each step of a training, and which device takes them.

All of it is a function of the seed and the epoch: not of the number of devices or of workers, nor
of whether the training was interrupted.

Shape letters: N samples.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

Numbers = npt.NDArray[np.int64]


class Rank(NamedTuple):
    """One device among those that train together, counted from 0."""

    number: int = 0
    world_size: int = 1


class Share(NamedTuple):
    """What one device takes of a step.

    Idle devices, for which no sample is left, repeat one without its targets, so that the
    all-reduce of the gradients stays in step.

    Attributes:
        epoch: From 1.
        numbers: Of the samples.
        repeats: How often each of them came before in this epoch.
        idle: Whether no sample is left for this device.
    """

    epoch: int
    numbers: list[int]
    repeats: list[int]
    idle: bool


def epoch_order(
    labels: Numbers, *, seed: int, epoch: int, class_balanced: bool, passes: int = 1
) -> Numbers:
    """The numbers of the samples in the order of an epoch.

    In each pass every sample comes once or, class-balanced, every class equally often, give or take
    one: samples of large classes are left out in turn and those of small ones repeated, none of a
    class a second time before all of them came once. The number of samples stays the same.

    Args:
        labels: (N,) class indices.
        seed: Of the training.
        epoch: From 1.
        class_balanced: See above.
        passes: How often the samples are gone through, one pass after the other.
    """
    random = np.random.default_rng((seed, epoch))
    return np.concatenate([_pass(labels, random, class_balanced) for _ in range(passes)])


def _pass(labels: Numbers, random: np.random.Generator, class_balanced: bool) -> Numbers:
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


def num_passes(num_samples: int, *, batch_size: int, min_steps: int) -> int:
    """How often the samples are gone through in an epoch of at least so many steps."""
    return (min_steps - 1) * batch_size // num_samples + 1


def num_steps(num_samples: int, batch_size: int) -> int:
    """Steps of an epoch; the last batch may be smaller."""
    return -(-num_samples // batch_size)


def shares(order: Numbers, *, epoch: int, batch_size: int, rank: Rank) -> list[Share]:
    """One device's part of every step of an epoch; all parts together are the whole order.

    Args:
        order: Of `epoch_order`.
        epoch: Its number.
        batch_size: Samples per step, on all devices together.
        rank: The device.
    """
    parts = []
    repeats = pd.Series(order).groupby(order).cumcount().to_numpy()
    for i in range(0, len(order), batch_size):
        batch = np.arange(i, min(i + batch_size, len(order)))
        own = np.array_split(batch, rank.world_size)[rank.number]
        taken = own if len(own) else batch[:1]
        parts.append(
            Share(epoch, order[taken].tolist(), repeats[taken].tolist(), idle=not len(own))
        )
    return parts
