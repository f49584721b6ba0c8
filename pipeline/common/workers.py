"""Doing one thing to many items on all cores, in order, with a progress bar."""

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from functools import partial
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
        yield from _progress(pool.map(function, items), len(items), description)


def map_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    description: str,
    initializer: Callable[..., Any] | None = None,
    initargs: Iterable[Any] = (),
    on_crash: Callable[[Item], Result] | None = None,
) -> Generator[Result, None, None]:
    """Results in the order of the items, for work that computes.

    Each process runs `initializer` once. Closing the results early gives up what has not begun.

    Args:
        function: What is done to an item.
        items: The items.
        description: Of the progress bar.
        initializer: What prepares a process.
        initargs: Its arguments.
        on_crash: The result for an item that ends its process, as a segmentation fault does or a
            lack of memory. Without it such an item ends the map, with a BrokenProcessPool.
    """
    start = partial(_start_pool, initializer, tuple(initargs))
    with closing(_results(start, function, items, on_crash)) as results:
        yield from _progress(results, len(items), description)


def _start_pool(
    initializer: Callable[..., Any] | None, initargs: tuple[Any, ...], num_items: int
) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        max(1, min(num_cores(), num_items)),
        # Forking a process that has started threads can deadlock; torch starts some.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(initializer, initargs),
    )


def _results(
    start: Callable[[int], ProcessPoolExecutor],
    function: Callable[[Item], Result],
    items: Sequence[Item],
    on_crash: Callable[[Item], Result] | None,
) -> Generator[Result, None, None]:
    """A process that ends takes its pool with it; what was not done by then is done anew."""
    futures: dict[int, Future[Result]] = {}
    lost = list(range(len(items)))
    position = 0
    while position < len(items):
        with start(len(lost)) as pool:
            try:
                for i in lost:
                    futures[i] = pool.submit(function, items[i])
                while position < len(items):
                    yield futures[position].result()
                    del futures[position]
                    position += 1
            except BrokenProcessPool:
                if on_crash is None:
                    raise
            finally:
                pool.shutdown(cancel_futures=True)
        lost = [i for i in range(position, len(items)) if i not in futures or _is_lost(futures[i])]
        if on_crash and lost:
            # Items are begun in order, so that it was one of the first.
            suspects = lost[: num_cores()]
            alone = _each_alone(start, function, [items[i] for i in suspects], on_crash)
            futures |= dict(zip(suspects, alone, strict=True))
            lost = lost[len(suspects) :]


def _each_alone(
    start: Callable[[int], ProcessPoolExecutor],
    function: Callable[[Item], Result],
    items: Sequence[Item],
    on_crash: Callable[[Item], Result],
) -> list[Future[Result]]:
    """Finished futures of the items, each done in a process of its own."""
    with ExitStack() as stack:
        pools = [stack.enter_context(start(1)) for _ in items]
        ready = [pool.submit(_nothing) for pool in pools]
        futures = [pool.submit(function, item) for pool, item in zip(pools, items, strict=True)]
        for future in ready:
            future.result()  # Where no process can be started at all it is not the item's fault.
    for i, item in enumerate(items):
        if _is_lost(futures[i]):
            futures[i] = Future()
            futures[i].set_result(on_crash(item))
    return futures


def _is_lost(future: Future[Any]) -> bool:
    return isinstance(future.exception(), BrokenProcessPool)


def _nothing() -> None:
    pass


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


def _progress(results: Iterable[Result], total: int, description: str) -> Iterator[Result]:
    yield from tqdm(results, desc=description, total=total, unit="clip", mininterval=1)
