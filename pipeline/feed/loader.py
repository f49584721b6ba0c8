"""From numbered samples to batches, by worker processes where there are any."""

import atexit
import multiprocessing
import signal
from collections.abc import Iterable, Sized
from functools import cache
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.store.batch import Batch


class Source(Sized, Protocol):
    """Samples that are numbered from 0, such as `StoredFrames`."""

    def __getitem__(self, numbers: list[int], /) -> Batch: ...


def load(samples: Dataset[Batch], items: Iterable[Any], *, num_workers: int) -> DataLoader[Batch]:
    """The items of a data set whose items are batches, in the order in which they are named.

    Workers read ahead and outlive a pass over the items.

    Args:
        samples: Such as `StoredFrames`.
        items: Each one an argument of the data set.
        num_workers: Processes that read and decode; 0 does it in this one.
    """
    if num_workers:
        _end_workers_at_exit()
    return DataLoader(
        samples,
        sampler=items,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        worker_init_fn=_ignore_signals,
        # Its own, because a loader draws a number; torch's generator belongs to the training.
        generator=torch.Generator(),
    )


def load_in_order(source: Source, *, batch_size: int, num_workers: int = 0) -> DataLoader[Batch]:
    """Every sample once and in order, in batches of B, the last one perhaps smaller."""
    numbers = list(range(len(source)))
    batches = [numbers[i : i + batch_size] for i in range(0, len(numbers), batch_size)]
    return load(_PlainSamples(source), batches, num_workers=num_workers)


class _PlainSamples(Dataset[Batch]):
    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, numbers: list[int]) -> Batch:
        return self.source[numbers]


def _ignore_signals(_: int) -> None:
    """Slurm and terminals signal all processes; the trainer still needs its workers then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@cache
def _end_workers_at_exit() -> None:
    """From now on, end the workers of a process that an error ends.

    The error's traceback keeps their loader alive, and multiprocessing would send them the signal
    that they ignore, and wait for them.
    """
    atexit.register(_kill_workers)


def _kill_workers() -> None:
    # Else torch would say of each of them that it was killed, after the error's own message.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
