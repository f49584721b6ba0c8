"""Doing one thing to many items on all cores, in order, with a progress bar."""

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from threading import Thread
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def map_in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], description: str
) -> Iterator[Result]:
    """Results in the order of the items, for work that waits on another program."""
    with ThreadPoolExecutor(num_cores()) as pool:
        yield from _progress(pool, function, items, description)


def map_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    description: str,
    initializer: Callable[..., Any] | None = None,
    initargs: Iterable[Any] = (),
) -> Generator[Result, None, None]:
    """Results in the order of the items, for work that computes.

    Each process runs `initializer` once. Closing the results early gives up what has not begun.
    """
    # Forking a process that has started threads can deadlock; torch starts some.
    context = multiprocessing.get_context("spawn")
    processes = max(1, min(num_cores(), len(items)))
    with ProcessPoolExecutor(
        processes,
        mp_context=context,
        initializer=_start_worker,
        initargs=(initializer, tuple(initargs)),
    ) as pool:
        yield from _progress(pool, function, items, description)


def _start_worker(initializer: Callable[..., Any] | None, initargs: tuple[Any, ...]) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    if initializer:
        initializer(*initargs)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, who would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _progress(
    pool: Executor, function: Callable[[Item], Result], items: Sequence[Item], description: str
) -> Iterator[Result]:
    results = pool.map(function, items)
    yield from tqdm(results, desc=description, total=len(items), unit="clip", mininterval=1)
