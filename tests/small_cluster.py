"""A Dask cluster of real processes on this machine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from distributed import Client
from project import ROOT


class SmallCluster:
    """A scheduler and its workers; each of them is ended by its process number.

    Args:
        folder: For their files. Workers start in it, so that nothing is found by luck.

    Attributes:
        address: Of the scheduler.
        scheduler: Its process.
        workers: Processes that watch a worker each, Dask's nannies.
    """

    address: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        self.scheduler = self._start("scheduler", *options, "--scheduler-file", str(self.file))
        self.workers: list[psutil.Popen] = []

    def await_scheduler(self) -> None:
        deadline = time.monotonic() + 120
        while not hasattr(self, "address"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
            with suppress(FileNotFoundError, json.JSONDecodeError):  # Not there yet, or not whole.
                self.address = json.loads(self.file.read_text(encoding="utf-8"))["address"]

    def add_worker(self, *, nthreads: int = 1) -> psutil.Popen:
        """Return at once; it joins in some seconds."""
        options = ["--scheduler-file", str(self.file), "--nthreads", str(nthreads)]
        number = str(len(self.workers))
        worker = self._start(
            "worker", *options, "--no-dashboard", "--local-directory", str(self.folder / number)
        )
        self.workers.append(worker)
        return worker

    def await_workers(self, number: int) -> None:
        """Wait until there are exactly so many."""
        deadline = time.monotonic() + 120
        with Client(self.address) as client:
            while len(client.nthreads()) != number:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def end(self, process: psutil.Popen) -> None:
        """With the processes that it started: a nanny has a worker."""
        family = [process, *(process.children(recursive=True) if process.is_running() else [])]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()

    def _start(self, *command: str) -> psutil.Popen:
        fast = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
        with (self.folder / f"{command[0]}.log").open("a") as log:
            return psutil.Popen(
                [sys.executable, "-m", "dask", *command],
                cwd=self.folder,
                # The modules of the tests alone: the project's own a worker has to be told.
                env=os.environ | fast | {"PYTHONPATH": str(ROOT / "tests")},
                stdout=log,
                stderr=subprocess.STDOUT,
            )


@contextmanager
def small_cluster(folder: Path, *, num_workers: int) -> Iterator[SmallCluster]:
    cluster = SmallCluster(folder)
    try:
        cluster.await_scheduler()
        for _ in range(num_workers):
            cluster.add_worker()
        yield cluster
    finally:
        for process in [*cluster.workers, cluster.scheduler]:
            cluster.end(process)
