"""What the workers of a Dask cluster run for a map; cluster.py is the other side.

It reaches them by value, because they can import the project only after it has told them where the
project lies. So nothing of the project is imported here, and state is kept at Dask's worker.
"""

import hashlib
import importlib
import os
import pickle
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from distributed import get_worker

# Network file systems show a new file to other machines late.
_PATIENCE_SECONDS = 10.0


class Job(NamedTuple):
    """What a map needs of a worker.

    Attributes:
        token: Names the map.
        root: The project's folder.
        folder: The one from which relative paths start.
        packages: First names of the project's modules.
        code: SHA-256 of the project's files that run, by their paths under the root.
        files: Sizes in bytes of some files that have to be seen, by absolute paths.
        versions: Of Python and libraries.
        work: Function, initializer and its arguments, pickled.
    """

    token: str
    root: str
    folder: str
    packages: tuple[str, ...]
    code: dict[str, str]
    files: dict[str, int]
    versions: dict[str, str]
    work: bytes


def run(job: Job, item: bytes) -> tuple[str, bytes]:
    """What is wrong with this worker, or nothing and the result; item and result are pickled.

    The first item of a map prepares the worker, so that workers may join at any time. When two maps
    take turns on a worker, each turn prepares it anew.
    """
    worker = get_worker()
    if getattr(worker, "map_token", None) != job.token:
        worker.map_token = None
        problem = _problem(job, worker)
        if problem:
            return problem, b""
        try:
            worker.map_function = _prepare(job)
        except ImportError as error:
            return f"{_name(worker)} cannot run the project's code: {error}", b""
        worker.map_token = job.token
    return "", pickle.dumps(worker.map_function(pickle.loads(item)))


def check(job: Job) -> Callable[[Any], str]:
    """A function that Dask can send to its workers and that says what is wrong with one."""

    def check_worker(dask_worker: Any) -> str:
        return _problem(job, dask_worker)

    return check_worker


def _problem(job: Job, worker: Any) -> str:
    """What is wrong with this worker, in words; empty where nothing is."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    problem = next(_problems(job, worker), "")
    while problem and time.monotonic() < deadline:
        time.sleep(0.5)
        problem = next(_problems(job, worker), "")
    return f"{_name(worker)} {problem}" if problem else ""


def _name(worker: Any) -> str:
    return f"the worker {worker.address} on {platform.node()}"


def _problems(job: Job, worker: Any) -> Iterator[str]:
    if worker.state.nthreads != 1:
        yield (
            f"does {worker.state.nthreads} things at a time in one process: "
            "start it with --nthreads 1, and as many of them as there are cores"
        )
    shared = "project, videos and results have to lie in folders that all machines see by one name"
    for folder in (job.root, job.folder):
        if not Path(folder).is_dir():
            yield f"sees no folder {folder}: {shared}"
    for name, size in job.files.items():
        path = Path(name)
        if not path.is_file() or path.stat().st_size != size:
            yield f"does not see {path} as it is here: {shared}"
    for name, digest in job.code.items():
        path = Path(job.root) / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            yield f"sees other code in {path} than was started here: {shared}"
    for package, wanted in job.versions.items():
        found = installed_version(package)
        if found not in ("", wanted):
            yield f"has {package} {found} and not {wanted}: install what requirements.txt says"


def installed_version(package: str) -> str:
    """Empty where it is not installed: a worker need not have what only other stages need."""
    if package == "python":
        return platform.python_version()
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _prepare(job: Job) -> Callable[[Any], Any]:
    """Import the code anew: an earlier map may have run an older version of it, or a copy."""
    for name in list(sys.modules):
        if name.partition(".")[0] in job.packages:
            del sys.modules[name]
    sys.path[:] = [job.root, *(entry for entry in sys.path if entry != job.root)]
    importlib.invalidate_caches()
    os.chdir(job.folder)
    function: Callable[[Any], Any]
    function, initializer, initargs = pickle.loads(job.work)
    if initializer:
        initializer(*initargs)
    return function
