"""What a stage prints, kept in a file too."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import TextIOBase
from pathlib import Path
from typing import TextIO

from pipeline.common.files import project_root


class _Both(TextIOBase):
    """Writes into two streams."""

    def __init__(self, first: TextIO, second: TextIO) -> None:
        self.streams = first, second

    def write(self, text: str, /) -> int:
        for stream in self.streams:
            stream.write(text)
            stream.flush()
        return len(text)

    def flush(self) -> None:
        for stream in self.streams:
            stream.flush()


@contextmanager
def log_file(name: str) -> Iterator[None]:
    """Keep what is printed in `logs/<DVC experiment>/<name>.log` of the project; it is continued.

    The folder is no out of DVC: lines hold times, and an experiment's copy of the project is
    removed in the end.
    """
    experiment = os.environ.get("DVC_EXP_NAME") or "workspace"
    path = project_root(Path()) / "logs" / experiment / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        try:
            with redirect_stdout(_Both(sys.stdout, file)):
                yield
        except SystemExit as error:
            if isinstance(error.code, str):
                file.write(f"{error.code}\n")
            raise
        except BaseException as error:
            file.write(f"{type(error).__name__}: {error}\n")
            raise
