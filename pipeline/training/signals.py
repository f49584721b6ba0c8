"""Signals that ask a training to stop, as Slurm, a spot machine or Ctrl-C send them."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether SIGTERM or SIGINT arrived."""

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
