"""What tests have the workers of a cluster do; light, because each worker imports it."""

import os
import signal
import time
from pathlib import Path

_base = 0


def start(base: int) -> None:
    global _base
    _base = base


def add(number: int) -> tuple[int, str]:
    return _base + number, str(Path.cwd())


def add_slowly(number: int) -> tuple[int, int]:
    """The sum, and the process that made it."""
    time.sleep(0.1)
    return _base + number, os.getpid()


def crash_on(number: int, victims: list[int]) -> int:
    if number in victims:
        os.kill(os.getpid(), signal.SIGSEGV)
    return number * number
