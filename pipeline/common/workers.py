"""Doing one thing to many items on all cores, in order, with a progress bar."""

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from importlib.util import find_spec
from multiprocessing import forkserver
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

# Dask's own variable: the address of the scheduler of a cluster.
_CLUSTER = "DASK_SCHEDULER_ADDRESS"

Item = TypeVar("Item")
Result = TypeVar("Result")


def num_cores() -> int:
    """Cores that this process may use."""
    # macOS does not know which; there it is all of them.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def import_for_workers(*modules: str) -> None:
    """Let a server import modules, beside what this process does next.

    The processes of `map_in_processes` are forked from that server, so that these modules and all
    that they import (torch takes seconds) are there once, in time and in memory. The module that is
    run cannot be one of them: Python warns where it finds it imported.
    """
    if not os.environ.get(_CLUSTER):
        multiprocessing.set_forkserver_preload(list(modules))
        forkserver.ensure_running()


def map_in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], description: str
) -> Iterator[Result]:
    """Results in the order of the items, for work that waits on another program."""
    with ThreadPoolExecutor(num_cores()) as pool:
        yield from _progress(pool.map(function, items), len(items), description)


class Work(NamedTuple):
    """What processes do: a function of one item, and what prepares a process for it."""

    function: Callable[[Any], Any]
    initializer: Callable[..., Any] | None
    initargs: tuple[Any, ...]


class Folders(NamedTuple):
    """What a function reads and writes, and what the workers of a cluster therefore have to see."""

    read: Sequence[Path] = ()
    written: Sequence[Path] = ()


NO_FOLDERS = Folders()


def map_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    description: str,
    initializer: Callable[..., Any] | None = None,
    initargs: Iterable[Any] = (),
    on_crash: Callable[[Item], Result] | None = None,
    folders: Folders = NO_FOLDERS,
) -> Generator[Result, None, None]:
    """Results in the order of the items, for work that computes.

    Each process runs `initializer` once. Closing the results early gives up what has not begun.
    Where the environment variable DASK_SCHEDULER_ADDRESS names a Dask cluster, the processes are
    its workers (docs/cluster.md), and the results are the same.

    Args:
        function: What is done to an item.
        items: The items.
        description: Of the progress bar.
        initializer: What prepares a process.
        initargs: Its arguments.
        on_crash: The result for an item that ends its process, as a segmentation fault does or a
            lack of memory. Without it such an item ends the map, with a BrokenProcessPool here and
            a KilledWorker on a cluster.
        folders: Of `function`.

    Raises:
        SystemExit: The cluster cannot be used; the message says why.
    """
    work = Work(function, initializer, tuple(initargs))
    address = os.environ.get(_CLUSTER)
    if address:
        results = _on_cluster(address, work, items, on_crash, folders)
    else:
        results = _results(work, items, on_crash)
    with closing(results):
        yield from _progress(results, len(items), description)


def map_in_turn(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    description: str,
    initializer: Callable[..., Any],
    initargs: Iterable[Any],
    folders: Folders,
) -> Generator[Result, None, None]:
    """Results in the order of the items, for work of which one item fills a machine.

    On a cluster as `map_in_processes`; otherwise in this process, one item after the other.
    """
    work = Work(function, initializer, tuple(initargs))
    address = os.environ.get(_CLUSTER)
    if address:
        results = _on_cluster(address, work, items, None, folders)
    else:
        results = _here(work, items)
    with closing(results):
        yield from _progress(results, len(items), description, unit="shard")


def _here(work: Work, items: Sequence[Any]) -> Generator[Any, None, None]:
    if work.initializer:
        work.initializer(*work.initargs)
    yield from map(work.function, items)


def _on_cluster(
    address: str,
    work: Work,
    items: Sequence[Any],
    on_crash: Callable[[Any], Any] | None,
    folders: Folders,
) -> Generator[Any, None, None]:
    if find_spec("distributed") is None:
        raise SystemExit(
            f"{_CLUSTER} is set and Dask is not installed: python -m pip install "
            "-r requirements-cluster.txt -c constraints.txt, or unset the variable"
        )
    # Imported here, because a machine without a cluster does not have Dask.
    from pipeline.common.cluster import map_on_cluster

    return map_on_cluster(address, work, items, on_crash, folders)


def _start_pool(work: Work, num_items: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        max(1, min(num_cores(), num_items)),
        # Forking a process that has started threads can deadlock; the server starts none.
        mp_context=multiprocessing.get_context("forkserver"),
        initializer=_start_worker,
        initargs=(work.initializer, work.initargs),
    )


def _results(
    work: Work,
    items: Sequence[Item],
    on_crash: Callable[[Item], Result] | None,
) -> Generator[Result, None, None]:
    """A process that ends takes its pool with it; what was not done by then is done anew."""
    futures: dict[int, Future[Result]] = {}
    lost = list(range(len(items)))
    position = 0
    while position < len(items):
        with _start_pool(work, len(lost)) as pool:
            try:
                for i in lost:
                    futures[i] = pool.submit(work.function, items[i])
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
            alone = _each_alone(work, [items[i] for i in suspects], on_crash)
            futures |= dict(zip(suspects, alone, strict=True))
            lost = lost[len(suspects) :]


def _each_alone(
    work: Work,
    items: Sequence[Item],
    on_crash: Callable[[Item], Result],
) -> list[Future[Result]]:
    """Finished futures of the items, each done in a process of its own."""
    with ExitStack() as stack:
        pools = [stack.enter_context(_start_pool(work, 1)) for _ in items]
        ready = [pool.submit(_nothing) for pool in pools]
        futures = [
            pool.submit(work.function, item) for pool, item in zip(pools, items, strict=True)
        ]
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


def _progress(
    results: Iterable[Result], total: int, description: str, unit: str = "clip"
) -> Iterator[Result]:
    yield from tqdm(results, desc=description, total=total, unit=unit, mininterval=1)
