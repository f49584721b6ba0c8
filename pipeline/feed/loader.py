"""From numbered clips to batches, by worker processes where there are any."""

import atexit
import multiprocessing
import multiprocessing.util  # its own clean-up at exit, which comes after the one below
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.store.shards import Batch, Clips


def load_batches(
    shards: list[Path],
    *,
    classes: list[str],
    image_size: int,
    batch_size: int,
    num_workers: int = 0,
) -> DataLoader[Batch]:
    """Every clip of the shards once and in order, in batches of B, the last one perhaps smaller."""
    clips = Clips(shards, classes=classes, image_size=image_size)
    numbers = range(len(clips))
    batches = [list(numbers[i : i + batch_size]) for i in range(0, len(clips), batch_size)]
    return load(clips, batches, num_workers=num_workers)


def load(clips: Dataset[Batch], items: Iterable[Any], *, num_workers: int) -> DataLoader[Batch]:
    """The items of a data set whose items are batches, in the order in which they are named.

    Workers read ahead and outlive a pass over the items.

    Args:
        clips: Such as `Clips`.
        items: Each one an argument of the data set.
        num_workers: Processes that read and decode; 0 does it in this one.
    """
    return DataLoader(
        clips,
        sampler=items,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        worker_init_fn=_ignore_signals,
        # Its own, because a loader draws a number; torch's generator belongs to the training.
        generator=torch.Generator(),
    )


def _ignore_signals(_: int) -> None:
    """Slurm and terminals signal all processes; the trainer still needs its workers then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """End the workers of a process that an error ends.

    The error's traceback keeps their loader alive, and multiprocessing would send them the signal
    that they ignore, and wait for them.
    """
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
