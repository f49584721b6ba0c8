"""A training that was stopped goes on from where it was, to the last bit on a CPU.

The state lies in a scratch folder of its own for every training, named by all that decides its
result, so that a training with any change starts afresh. The folder must be on a disk that all
processes of the training see.
"""

import fcntl
import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from pipeline.common.files import atomic_path, sha256_of

# Work that a killed training loses at most, however long its epochs are.
_SAVE_SECONDS = 300
# At the end of an epoch, where saving is of most use, it may take this part of the time.
_SAVE_SHARE = 0.05


def training_key(
    params: Mapping[str, Any], fold: Mapping[str, Any], inputs: list[Path], root: Path
) -> str:
    """A name for a training, which changes with all that decides its result.

    Args:
        params: All parameters, as JSON knows them.
        fold: Number and subjects.
        inputs: Files that are read; their content counts, and their names without folders.
        root: Folder of the project; those modules of pipeline/ and stages/ that are loaded count.
            `__init__.py` does not: a program loads that of its own folder only with `python -m`.
    """
    loaded = {Path(str(getattr(module, "__file__", None))) for module in [*sys.modules.values()]}
    loaded = {path for path in loaded if path.name != "__init__.py"}
    folders = [root / "pipeline", root / "stages"]
    own = sorted(path for path in loaded if any(path.is_relative_to(f) for f in folders))
    described = {
        "params": params,
        "fold": fold,
        "inputs": [[path.name, sha256_of(path)] for path in inputs],
        "sources": [[path.relative_to(root).as_posix(), sha256_of(path)] for path in own],
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]


class Checkpoints:
    """The state of one training on disk.

    Args:
        folder: Its scratch folder; made where there is none.
        writer: Whether this process writes. It alone may use the folder for as long as it lives.

    Raises:
        BlockingIOError: Another process is at this training.
    """

    def __init__(self, folder: Path, *, writer: bool = True) -> None:
        self.folder = folder
        self.path = folder / "state.pt"
        self.writer = writer
        self.lock: int | None = None
        self.saved_at = time.monotonic()
        self.save_seconds = 0.0
        if writer:
            self.lock = _lock(folder / "lock")
            # Left by a process that was killed while it wrote.
            for leftover in folder.glob(".*.partial*"):
                leftover.unlink()

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last, on the CPU; None where none is, or it is damaged."""
        if not self.path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            warnings.warn(
                f"{self.path} is damaged ({reason}); the training starts afresh", stacklevel=2
            )
            return None
        return state

    def due(self, *, epoch_ended: bool) -> bool:
        """Whether it is time to save again, in the opinion of the process that writes."""
        if not self.writer:
            return False
        waited = time.monotonic() - self.saved_at
        return waited >= (self.save_seconds / _SAVE_SHARE if epoch_ended else _SAVE_SECONDS)

    def save(self, state: Mapping[str, Any]) -> None:
        """Put a state into the place of the last one; a crash leaves either of them whole."""
        start = time.monotonic()
        with atomic_path(self.path) as temporary, temporary.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        # The new name, too, must be on the disk.
        directory = os.open(self.folder, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - start

    def remove(self) -> None:
        """Remove the folder of a training that is done."""
        if self.lock is not None:
            os.close(self.lock)  # NFS keeps a file that is open, and with it the folder
            self.lock = None
        shutil.rmtree(self.folder)


def _lock(path: Path) -> int:
    """A lock that ends with the process."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            # Not flock, which the loader's workers would inherit and hold on to after a kill.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            os.close(handle)
            raise BlockingIOError(
                f"another process is at this very training (its state is in {path.parent}): wait "
                "for it to end, or stop it; the same command then goes on from where it was"
            ) from error
        # The last owner may have removed the folder between the two calls.
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
        os.close(handle)


def random_state() -> dict[str, Any]:
    """The state of every global generator that a training may draw from."""
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    name, keys, *rest = numpy_state
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put every global generator back to what `random_state` found."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class StopRequest:
    """Whether SIGTERM or SIGINT arrived, as Slurm, a spot machine or Ctrl-C sends them."""

    def __init__(self) -> None:
        self.signal = 0

    def receive(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        # A second Ctrl-C does what it always does: somebody cannot wait for the end of the step.
        # A second SIGTERM does not: Slurm sends one to every process, torchrun to all of its own.
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    def leave(self, where: str, *, quiet: bool) -> None:
        """End the process in the way that its parent expects after this signal.

        Raises:
            SystemExit: Always.
        """
        number = self.signal or signal.SIGTERM
        if not quiet:
            print(
                f"stopped by {signal.Signals(number).name} {where}, and saved: the same command "
                "goes on from there",
                file=sys.stderr,
                flush=True,
            )
        raise SystemExit(128 + number)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """While the block runs, SIGTERM and SIGINT only leave a note."""
    request = StopRequest()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, request.receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
