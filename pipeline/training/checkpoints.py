"""The state of a training on disk, from which one that was stopped goes on.

It lies in a scratch folder of its own for every training, named by all that decides its result (see
identity.py), so that a training with any change starts afresh. The folder must be on a disk that
all processes of the training see.
"""

import fcntl
import os
import pickle
import shutil
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.common.files import atomic_path

# Work that a killed training loses at most, however long its epochs are.
_SAVE_SECONDS = 300
# At the end of an epoch, where saving is of most use, it may take this part of the time.
_SAVE_SHARE = 0.05


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
