"""A stage that is killed and run again gives the bytes of an undisturbed run."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clones import environment, lock_of, new_clone
from hosts import Fault, Host
from small_ravdess import archives_table, ravdess_archives

from pipeline.datasets.ravdess import RECORD

pytestmark = pytest.mark.slow


def small_clone(folder: Path, host: Host, archives: dict[str, bytes]) -> Callable[..., str]:
    host.add_record(RECORD, archives)
    changes = {"dataset": "ravdess", "datasets.ravdess.address": host.address}
    run = new_clone(folder, **changes, **{"datasets.ravdess.accept_licence": "true"})
    table = folder / "datasets/ravdess/files.csv"
    table.write_text(archives_table(archives), encoding="utf-8")
    return run


def outs_of(folder: Path) -> dict[str, Any]:
    return {name: stage["outs"] for name, stage in lock_of(folder).items()}


def kill_when(caught: Callable[[], object], folder: Path) -> None:
    """Run the stages up to `split`, and kill them all as soon as something is caught."""
    process = subprocess.Popen(
        ["dvc", "repro", "split"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not caught():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_stages_run_again_give_the_same_bytes(tmp_path: Path) -> None:
    archives = ravdess_archives()
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    with Host() as host:
        small_clone(undisturbed, host, archives)("dvc", "repro", "split")
    with Host() as host:
        run = small_clone(killed, host, archives)
        # Slow enough to be caught in the middle of the third archive.
        name = "Video_Speech_Actor_03.zip"
        host.trickle_bytes = len(archives[name]) // 100
        host.fail(f"/api/records/{RECORD}/files/{name}/content", Fault.TRICKLE)
        frames = killed / "data/frames/ravdess"
        kill_when(lambda: list((killed / "downloads/ravdess").glob("Actor_0[12]")), killed)
        kill_when(lambda: len(list(frames.glob("*.jpg"))) > 2, killed)
        kill_when(lambda: list((killed / "data/shards/ravdess").glob("*.tar")), killed)
        run("dvc", "repro", "split")
    assert outs_of(killed) == outs_of(undisturbed)
