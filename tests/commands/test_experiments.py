import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT

from commands.ablation import (
    COMMITTED,
    _stop_stages,
    _wait_for_workers,
    experiment_name,
    finished_experiments,
    present_state,
    read_params,
)
from pipeline.mtcae.structures import Structure

CASCADED, STL = Structure("cascaded", "vit"), Structure("stl", "vit")


def git(*arguments: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", *author, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of a line of code, with the parameters of this one and results of the cascade."""
    monkeypatch.chdir(tmp_path)
    git("init", "-q", "-b", "main")
    subprocess.run(["dvc", "init", "-q"], check=True)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    Path("code.py").write_text("1\n", encoding="utf-8")
    write_summary(0.5)
    git("add", "--all")
    git("commit", "-q", "-m", "first")
    return tmp_path


def write_summary(uar: float) -> None:
    Path("metrics").mkdir(exist_ok=True)
    Path("metrics/summary.json").write_text(json.dumps({"uar": uar}), encoding="utf-8")


def add_experiment(name: str, uar: float, code: str = "1\n", arch: str = "stl") -> None:
    """As DVC stores a finished one: a commit upon HEAD, under a ref of its own."""
    head = git("rev-parse", "HEAD")
    params = read_params() | {"arch": arch}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    Path("code.py").write_text(code, encoding="utf-8")
    write_summary(uar)
    git("commit", "-q", "--all", "-m", name)
    git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", "HEAD")
    git("reset", "-q", "--hard", head)


def scores() -> dict[Structure, tuple[str, Any]]:
    found = finished_experiments(read_params())
    return {structure: (each.name, each.summary["uar"]) for structure, each in found.items()}


def test_experiments_of_other_code_are_not_in_the_table(project: Path) -> None:
    add_experiment("of-this-code", 0.6)
    add_experiment("newer-of-other-code", 0.9, code="2\n")
    assert scores() == {CASCADED: (COMMITTED, 0.5), STL: ("of-this-code", 0.6)}
    Path("code.py").write_text("2\n", encoding="utf-8")
    assert scores() == {STL: ("newer-of-other-code", 0.9)}


def test_the_experiment_of_the_present_name_comes_before_newer_ones(project: Path) -> None:
    params = read_params()
    name = experiment_name(STL, params, present_state(params))
    add_experiment(name, 0.6)
    add_experiment("newer", 0.9)
    assert scores()[STL] == (name, 0.6)


def test_a_name_changes_with_all_that_decides_the_results(project: Path) -> None:
    params = read_params()
    params["dataset"], params["encoder"]["weights"] = "custom", "weights/mine.pt"
    videos = Path("datasets/custom/videos")
    videos.mkdir(parents=True)
    Path("weights").mkdir()
    names = []

    def note() -> None:
        names.append(experiment_name(STL, params, present_state(params)))

    note()
    for path in (
        Path("datasets/custom/clips.csv"),
        Path("weights/mine.pt"),
        videos / "a.mp4",
        Path("code.py"),
    ):
        for content in ("first", "second one"):
            path.write_text(content, encoding="utf-8")
            note()
    params["seed"] = 2
    note()
    assert len(set(names)) == len(names) == 10
    note()
    assert names[-1] == names[-2]


def test_only_stages_in_copies_of_this_project_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "mine/.dvc/tmp/exps/tmp1"
    folders = [copy, copy / "data", tmp_path / "mine", tmp_path / "others/.dvc/tmp/exps/tmp1"]
    started = []
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        sleep = [sys.executable, "-c", "import time; time.sleep(300)", "stages.finetune"]
        started.append(subprocess.Popen(sleep, cwd=folder))
    monkeypatch.chdir(tmp_path / "mine")
    try:
        _stop_stages()
        assert [process.wait(timeout=30) for process in started[:2]] == [-signal.SIGTERM] * 2
        assert [process.poll() for process in started[2:]] == [None, None]
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_workers_that_are_about_to_end_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "others").mkdir()
    soon, late = (
        subprocess.Popen(
            [sys.executable, "-c", f"import time; time.sleep({seconds})", "queue-worker"],
            cwd=folder,
        )
        for seconds, folder in ((3, tmp_path), (300, tmp_path / "others"))
    )
    monkeypatch.chdir(tmp_path)
    try:
        _wait_for_workers()
        assert soon.wait(timeout=1) == 0
        assert late.poll() is None
    finally:
        late.kill()
        late.wait()
