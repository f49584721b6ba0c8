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


@pytest.fixture(scope="module")
def archives() -> dict[str, bytes]:
    return ravdess_archives()


@pytest.fixture(scope="module")
def undisturbed(
    archives: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with Host() as host:
        small_clone(folder, host, archives)("dvc", "repro", "split")
    return outs_of(folder)


@pytest.mark.parametrize(
    "caught",
    [
        lambda folder: list((folder / "downloads/ravdess").glob("Actor_0[12]")),
        lambda folder: len(list((folder / "data/frames/ravdess").glob("*.jpg"))) > 2,
        lambda folder: list((folder / "data/shards/ravdess").glob("*.tar")),
    ],
    ids=["download", "sample", "label"],
)
def test_a_killed_stage_run_again_gives_the_same_bytes(
    caught: Callable[[Path], object],
    archives: dict[str, bytes],
    undisturbed: dict[str, Any],
    tmp_path: Path,
) -> None:
    with Host() as host:
        run = small_clone(tmp_path, host, archives)
        # Slow enough to be caught in the middle of the third archive.
        name = "Video_Speech_Actor_03.zip"
        host.trickle_bytes = len(archives[name]) // 100
        host.fail(f"/api/records/{RECORD}/files/{name}/content", Fault.TRICKLE)
        process = subprocess.Popen(
            ["dvc", "repro", "split"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while not caught(tmp_path):
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        run("dvc", "repro", "split")
    assert outs_of(tmp_path) == undisturbed
