"""What to do when the memory of a device is full."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Let an out-of-memory error say what to do about it.

    Raises:
        torch.OutOfMemoryError: With the advice in front of what torch says.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(
            f"the device's memory is full: {advice}; {str(error).partition('.')[0]}"
        ) from error
