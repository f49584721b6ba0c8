import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import psutil
import pytest
import torch
from project import ROOT
from torch.utils.data import Dataset

from pipeline.feed import loader
from pipeline.feed.loader import load, num_workers_with_room
from pipeline.store.batch import Batch

FAILING = """
import builtins, multiprocessing, sys, torch
from torch.utils.data import Dataset
from pipeline.feed.loader import load
from pipeline.store.batch import Batch

class Numbers(Dataset):
    def __getitem__(self, number):
        return Batch([], [], torch.tensor(number), {})

def train():
    coming = iter(load(Numbers(), range(1000), num_workers=2))
    while next(coming).inputs < 3:
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


class LargeBatches(Dataset[Batch]):
    """Of 2 MB each, from a worker that can make no file of more than 1 MB."""

    def __getitem__(self, number: int) -> Batch:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, most))
        return Batch([], [], torch.zeros(2 * 10**6, dtype=torch.uint8), {})


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is no file elsewhere")
def test_where_shared_memory_is_full_an_error_says_what_to_do() -> None:
    batches = load(LargeBatches(), range(8), num_workers=1)
    with pytest.raises(OSError, match=r"no shared memory for a batch of 2 MB .*--shm-size=2g"):
        next(iter(batches))


@pytest.mark.filterwarnings("ignore:.*has room for the batches of")
@pytest.mark.parametrize(
    ("free", "num_workers"), [(10**9, 8), (180, 8), (179, 7), (60, 2), (59, 1), (39, 0), (0, 0)]
)
def test_as_many_workers_read_as_find_room_for_two_batches_each(
    free: int, num_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(loader, "_SHARED", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, free))
    # Two more are in use or on their way.
    assert num_workers_with_room(8, batch_bytes=10) == num_workers
    monkeypatch.setattr(loader, "_SHARED", tmp_path / "none")
    assert num_workers_with_room(8, batch_bytes=10) == 8
