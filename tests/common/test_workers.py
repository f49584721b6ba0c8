import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
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
    workers = psutil.Process(parent.pid).children()
    assert workers
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
