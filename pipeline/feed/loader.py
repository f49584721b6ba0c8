"""From numbered samples to batches, by worker processes where there are any."""

import atexit
import multiprocessing
import shutil
import signal
import warnings
from collections.abc import Iterable, Sized
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.store.batch import Batch

# Where Linux keeps what processes share; Docker gives it 64 MB.
_SHARED = Path("/dev/shm")


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
        samples = _SharedSamples(samples)
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


def num_workers_with_room(most: int, batch_bytes: int) -> int:
    """How many workers find room for their batches in shared memory, which a warning says."""
    if not _SHARED.is_dir():
        return most
    # Each reads two ahead, one batch is in use, and one on its way to a GPU.
    room = max(0, (shutil.disk_usage(_SHARED).free // batch_bytes - 2) // 2)
    if room < most:
        warnings.warn(
            f"{_SHARED} has room for the batches of {room} of {most} workers; a container gets "
            "more with --shm-size=2g",
            stacklevel=2,
        )
    return min(most, room)


class _SharedSamples(Dataset[Batch]):
    """Batches in shared memory, in which a worker hands them over.

    Torch's loader would put them there itself, in a thread of the worker: where there is no room
    that thread loses the batch, and the training waits for it for ever.
    """

    def __init__(self, samples: Dataset[Batch]) -> None:
        self.samples = samples

    def __getitem__(self, item: Any) -> Batch:
        batch = self.samples[item]
        try:
            return batch.share_memory()
        except RuntimeError as error:
            raise OSError(
                f"no shared memory for a batch of {batch.inputs.nbytes / 1e6:.0f} MB ({error}). "
                "Each worker keeps two batches there: give it more (Docker: --shm-size=2g), or "
                "set fewer num_workers; with 0 none is needed"
            ) from error


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
