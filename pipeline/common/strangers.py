"""Files and answers that strangers wrote: opened with care, and refused in words.

A library that parses such a thing raises whatever its authors did not foresee: KeyError for an odd
pickle, RecursionError for nested JSON, OverflowError for a size beyond 63 bits. Each of them says
only that this one thing cannot be read.
"""

import errno
import json
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")


Refusal = Callable[[Exception], Exception]
"""From what a parser raised to the error that is raised in its place; see `words_of`."""


@contextmanager
def refusing(refusal: Refusal, *, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn any exception of a parser into the refusal of what it read.

    The project's only `except Exception`, because the block holds nothing but a call of a parser,
    whose exceptions cannot be listed. What says that the machine failed passes: an OSError with a
    number, such as that of a full disk, and what is no Exception, such as KeyboardInterrupt.

    Args:
        refusal: Its error is not chained to the parser's, which may hold an address with a
            password.
        but: Passes too.
    """
    try:
        yield
    except but:
        raise
    except Exception as error:
        # Of an OSError, damage has no number (gzip, bz2) or that of seeking to nowhere.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise refusal(error) from None


def each(items: Iterator[_T], refusal: Refusal) -> Iterator[_T]:
    """What a parser yields; see `refusing`. What is done with the items is outside of the guard."""
    while True:
        with refusing(refusal):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


def words_of(error: BaseException) -> str:
    """The first line of what an exception says, fit for a terminal, with its kind where it is odd.

    `KeyError(7)` says no more than "7": "KeyError: 7" is what a reader can look up.
    """
    line = "".join(filter(str.isprintable, str(error).strip().partition("\n")[0]))[:300]
    is_telling = isinstance(error, ValueError | RuntimeError | OSError) and line
    return line if is_telling else f"{type(error).__name__}: {line}".removesuffix(": ")


def check_regular(path: Path) -> None:
    """Make sure that a path is a file: opening a pipe would wait for ever.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: It is a folder, a pipe or a device.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        is_folder = stat.S_ISDIR(mode)
        raise ValueError(
            f"{path} is a {'folder' if is_folder else 'pipe or a device'}, where a file is needed"
            f"{': name the file in it' if is_folder else ''}"
        )


def read_json(path: Path) -> Any:
    """A JSON document.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no JSON.
    """
    check_regular(path)
    with refusing(lambda error: ValueError(f"{path} is no JSON: {words_of(error)}")):
        return json.loads(path.read_text(encoding="utf-8"))
