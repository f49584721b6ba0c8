import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest
from project import ROOT

from pipeline.common.workers import map_in_processes


def note(number: int, folder: Path) -> int:
    (folder / str(number)).touch()
    time.sleep(0.2)
    return number


def test_results_that_are_closed_early_give_up_what_has_not_begun(tmp_path: Path) -> None:
    with closing(map_in_processes(partial(note, folder=tmp_path), range(40), "noting")) as results:
        assert next(results) == 0
    assert len(list(tmp_path.iterdir())) < 20


def crash_on(number: int, victims: list[int]) -> int:
    if number in victims:
        os.kill(os.getpid(), signal.SIGSEGV)
    return number * number


@pytest.mark.parametrize("victims", [[0], [2, 3, 9]], ids=str)
def test_an_item_that_ends_its_process_costs_itself_and_no_other(victims: list[int]) -> None:
    results = map_in_processes(
        partial(crash_on, victims=victims), range(10), "crashing", on_crash=lambda number: -number
    )
    assert list(results) == [-i if i in victims else i * i for i in range(10)]


def test_a_process_that_ends_is_an_error_where_nothing_is_said_about_it() -> None:
    with pytest.raises(BrokenProcessPool):
        list(map_in_processes(partial(crash_on, victims=[3]), range(10), "crashing"))


def test_processes_that_cannot_start_are_an_error_and_not_a_fault_of_the_items() -> None:
    results = map_in_processes(
        abs, [1, 2, 3], "starting", initializer=int, initargs=("x",), on_crash=lambda number: -1
    )
    with pytest.raises(BrokenProcessPool):
        list(results)


WAITING = """
from pipeline.common.workers import map_in_processes
from time import sleep
if __name__ == "__main__":
    results = map_in_processes(sleep, [0] + [1000] * 9, "waiting")
    next(results)
    print("started", flush=True)
    sleep(1000)
"""


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING, encoding="utf-8")
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "waiting.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout
    assert parent.stdout.readline() == "started\n"
    workers = psutil.Process(parent.pid).children(recursive=True)
    assert workers
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
