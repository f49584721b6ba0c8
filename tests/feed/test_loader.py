import os
import signal
import subprocess
import sys

import psutil
import pytest
from project import ROOT

FAILING = """
import builtins, multiprocessing, sys
from torch.utils.data import Dataset
from pipeline.feed.loader import load

class Numbers(Dataset):
    def __getitem__(self, number):
        return number

def train():
    coming = iter(load(Numbers(), range(1000), num_workers=2))
    while next(coming) < 3:
        pass
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    raise getattr(builtins, sys.argv[1])("in the third step")

train()
"""


@pytest.mark.parametrize(
    ("error", "status"), [("FloatingPointError", 1), ("KeyboardInterrupt", -signal.SIGINT)]
)
def test_an_error_ends_the_process_and_its_workers(error: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILING, error],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == status, done.stderr
    assert done.stderr.endswith(f"{error}: in the third step\n")
    workers = [int(word) for word in done.stdout.split()]
    assert len(workers) == 2
    assert not any(psutil.pid_exists(worker) for worker in workers)
