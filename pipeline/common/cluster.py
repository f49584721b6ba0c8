"""The same map as workers.py does in processes, on the workers of a Dask cluster.

The scheduler never sees the project's code: a task is made of functions of cloudpickle and the
standard library, whose arguments are bytes. cluster_worker.py is what these bytes do on a worker.
"""

import logging
import operator
import pickle
import re
import sys
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib import import_module
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any
from uuid import uuid4

import cloudpickle
from distributed import CancelledError, Client, Future, KilledWorker, wait
from distributed.versions import error_message
from tqdm import tqdm

from pipeline.common import cluster_worker
from pipeline.common.cluster_worker import Job, check, installed_version, run
from pipeline.common.files import sha256_of
from pipeline.common.imports import PACKAGES, needed_files
from pipeline.common.workers import Folders, Work

_ROOT = Path(__file__).parents[2]
_CONNECT_SECONDS = 10
# After so long without a result it is said when the cluster has no workers.
_SILENT_SECONDS = 30.0
# Items under way for each worker: a slow one is no reason for the others to wait, and a million are
# no burden for the scheduler.
_AHEAD = 32
# Files of each folder that is read which a worker has to see.
_WITNESSES = 3


def map_on_cluster(
    address: str,
    work: Work,
    items: Sequence[Any],
    on_crash: Callable[[Any], Any] | None,
    folders: Folders,
) -> Generator[Any, None, None]:
    """Results in the order of the items; see `map_in_processes`.

    Raises:
        SystemExit: The scheduler cannot be reached or is lost, or a worker sees other files, other
            code or other libraries than this process; the message says which and what to do.
    """
    token = uuid4().hex
    with _connect(address) as client, _witnesses(folders, token) as files:
        function = _importable(work.function)
        start = work.initializer and _importable(work.initializer)
        job = Job(
            token=token,
            root=str(_ROOT),
            folder=str(Path.cwd()),
            packages=PACKAGES,
            code=_code(function),
            files=files,
            versions=_versions(),
            work=pickle.dumps((function, start, work.initargs)),
        )
        done = 0
        try:
            _refuse_unfit_workers(client, job)
            with closing(_results(_Tasks(client, job), items, on_crash)) as results:
                for result in results:
                    yield result
                    done += 1
        except _Lost as error:
            raise SystemExit(
                f"the Dask scheduler at {address} was lost after {done} of {len(items)} items: "
                "start it and its workers again, and run the same command; it begins anew"
            ) from error


@contextmanager
def _connect(address: str) -> Iterator[Client]:
    logger = logging.getLogger("distributed.client")
    level = logger.level
    # What matters of it is said here, in a sentence.
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):  # Other versions are an error, further down.
            client = Client(address, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise SystemExit(
            f"the Dask scheduler of DASK_SCHEDULER_ADDRESS={address} cannot be reached: {error}. "
            "Start it (docs/cluster.md), or unset the variable to work on this machine alone"
        ) from error
    try:
        yield client
    finally:
        client.close()
        logger.setLevel(level)


def _refuse_unfit_workers(client: Client, job: Job) -> None:
    """Before anything is done; workers that join later are asked with their first item."""
    cloudpickle.register_pickle_by_value(cluster_worker)
    with _connection():
        found = client.get_versions()
        other = error_message(found["scheduler"], found["workers"], found["client"])["warning"]
        if other:
            raise SystemExit(
                f"the Dask cluster runs other versions than this process. {other}\n"
                "Start scheduler and workers in an environment like this one"
            )
        problems = client.run(check(job), on_error="ignore").values()
    for problem in filter(None, problems):
        raise SystemExit(problem)


class _Lost(Exception):
    """The connection to the scheduler ended."""


@contextmanager
def _connection() -> Iterator[None]:
    try:
        yield
    except (CancelledError, OSError) as error:
        raise _Lost from error


class _Tasks:
    """Items as tasks of the cluster."""

    def __init__(self, client: Client, job: Job) -> None:
        self.client = client
        self.call = cloudpickle.dumps(partial(run, job))
        self.keys = zip(repeat(job.token), count())

    def begin(self, item: Any) -> Future:
        key = next(self.keys)
        call = (operator.call, (cloudpickle.loads, self.call), pickle.dumps(item))
        # Each in a graph of its own: Dask then keeps to their order.
        return self.client.get({key: call}, [key], sync=False, fifo_timeout=0)[0]

    def wait(self, futures: list[Future]) -> None:
        """Until they are done, in whatever way."""
        with _connection():
            while True:
                with suppress(TimeoutError):
                    wait(futures, timeout=_SILENT_SECONDS)
                    return
                if not self.num_workers():
                    tqdm.write("the Dask cluster has no workers; waiting for some", sys.stderr)

    def num_workers(self) -> int:
        with _connection():
            return len(self.client.nthreads())

    def result(self, future: Future) -> Any:
        """What the function returns or raises.

        Raises:
            KilledWorker: Several workers died that had this item.
            SystemExit: A worker cannot do this map.
        """
        self.wait([future])
        try:
            problem, pickled = future.result()
        except (CancelledError, OSError) as error:
            if future.status == "error":
                raise  # The function's own.
            raise _Lost from error
        if problem:
            raise SystemExit(problem)
        return pickle.loads(pickled)


def _results(
    tasks: _Tasks, items: Sequence[Any], on_crash: Callable[[Any], Any] | None
) -> Generator[Any, None, None]:
    begun: deque[Future] = deque()
    remaining = iter(items)
    room = 0
    for item in items:
        if len(begun) <= room // 2:
            room = _AHEAD * max(1, tasks.num_workers())
            begun += map(tasks.begin, islice(remaining, max(0, room - len(begun))))
        try:
            result = tasks.result(begun.popleft())
        except KilledWorker:
            # Another item that its workers held may have been the reason: once more, alone.
            tasks.wait(list(begun))
            try:
                result = tasks.result(tasks.begin(item))
            except KilledWorker:
                if on_crash is None:
                    raise
                result = on_crash(item)
        yield result


def _importable(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function out of its module's full name, which other processes can import.

    Raises:
        ValueError: It is in a script that was not started by `python -m`.
    """
    if isinstance(function, partial):
        return partial(_importable(function.func), *function.args, **function.keywords)
    if function.__module__ != "__main__":
        return function
    spec = sys.modules["__main__"].__spec__
    if spec is None:
        raise ValueError(f"{sys.argv[0]} cannot run on a cluster: start it by `python -m`")
    found: Callable[..., Any] = getattr(import_module(spec.name), function.__qualname__)
    return found


def _code(function: Callable[..., Any]) -> dict[str, str]:
    """SHA-256 of the project's files that a function needs."""
    while isinstance(function, partial):
        function = function.func
    module = Path(getattr(sys.modules[function.__module__], "__file__", None) or "")
    if _ROOT not in module.parents:
        return {}
    needed = needed_files(module.relative_to(_ROOT), _ROOT)
    return {path.as_posix(): sha256_of(_ROOT / path) for path in sorted(needed)}


def _versions() -> dict[str, str]:
    """Of Python and of those libraries of requirements.txt that this process has."""
    text = (_ROOT / "requirements.txt").read_text(encoding="utf-8")
    names = ["python", *re.findall(r"^([\w-]+)==", text, re.MULTILINE)]
    return {name: found for name in names if (found := installed_version(name))}


@contextmanager
def _witnesses(folders: Folders, token: str) -> Iterator[dict[str, int]]:
    """Sizes of files that all workers have to see, by absolute path."""
    found: list[Path] = []
    for folder in (folder.absolute() for folder in folders.read):
        found += islice(filter(Path.is_file, folder.rglob("*")), _WITNESSES)
    probes = [folder.absolute() / f".{token}.probe" for folder in folders.written]
    try:
        for probe in probes:
            probe.write_text("Other machines have to see this file.\n", encoding="utf-8")
        yield {str(path): path.stat().st_size for path in [*found, *probes]}
    finally:
        for probe in probes:
            probe.unlink(missing_ok=True)
