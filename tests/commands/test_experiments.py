import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT

from commands.ablation import run_experiment, run_missing, untracked_inputs
from commands.experiments import (
    COMMITTED,
    experiment_name,
    finished_experiments,
    present_state,
    read_params,
)
from pipeline.mtcae.structures import STRUCTURES, Structure

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
    params["dataset"], params["encoder"]["weights"] = "custom", "mine.pt"
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


def test_a_copy_is_given_the_inputs_that_git_does_not_know(project: Path) -> None:
    params = read_params()
    params["dataset"], params["encoder"]["weights"] = "custom", "mine.pt"
    Path("weights").mkdir()
    weights, table = Path("weights/mine.pt"), Path("datasets/custom/clips.csv")
    (table.parent / "videos").mkdir(parents=True)
    for path in (weights, table, table.parent / "videos/a.mp4", table.parent / "README.md"):
        path.touch()
    assert untracked_inputs(params) == [weights, table]
    git("add", str(table))
    assert untracked_inputs(params) == [weights]
    # Those elsewhere are used where they are.
    params["encoder"]["weights"] = "/elsewhere/mine.pt"
    assert untracked_inputs(params) == []


@pytest.fixture
def call_for_dvc(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Has the program of that text called in place of DVC."""
    folder = tmp_path_factory.mktemp("bin")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(program: str) -> None:
        (folder / "dvc").write_text(program, encoding="utf-8")
        (folder / "dvc").chmod(0o755)

    return write


@pytest.mark.parametrize(("status", "came_to_its_end"), [(0, True), (1, False)])
def test_an_experiment_is_run_in_a_copy_and_its_failure_is_told(
    status: int,
    came_to_its_end: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call_for_dvc: Callable[[str], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    call_for_dvc(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > arguments\nexit {status}\n")
    copied = [Path("weights/mine one.pt"), Path("datasets/custom/clips.csv")]
    structure = Structure("fully_shared", "mlp")
    assert run_experiment("mine", structure, copied) is came_to_its_end
    assert (tmp_path / "arguments").read_text().splitlines() == [
        *("exp", "run", "--temp", "--name", "mine"),
        *("--set-param", "arch=fully_shared", "--set-param", "decoder=mlp"),
        *("--copy-paths", "weights/mine one.pt", "--copy-paths", "datasets/custom/clips.csv"),
    ]


def test_what_was_run_is_not_run_again_and_what_fails_is_named(
    project: Path, capfd: pytest.CaptureFixture[str], call_for_dvc: Callable[[str], None]
) -> None:
    params = read_params()
    state = present_state(params)
    names = {structure: experiment_name(structure, params, state) for structure in STRUCTURES}
    add_experiment(names[STL], 0.6)
    broken = names[Structure("fully_shared", "mlp")]
    # The committed run is not of the present state: that is what `dvc status` says, too.
    call_for_dvc(f'#!/bin/sh\necho "$@"\ncase "$*" in status*|*{broken}*) exit 1;; esac\n')
    assert run_missing() == [broken]
    lines = capfd.readouterr().out.splitlines()
    assert f"{names[STL]} was run before" in lines
    run = [line.split()[4] for line in lines if line.startswith("exp run")]
    assert run == [names[structure] for structure in STRUCTURES if structure != STL]


# A training that saves its state at the first Ctrl-C, and takes a second for it.
SAVING_DVC = f"""#!{sys.executable}
import signal, sys, time

def save(*_):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("saving", flush=True)
    time.sleep(1)
    print("saved", flush=True)
    sys.exit(1)

signal.signal(signal.SIGINT, save)
print("started", flush=True)
time.sleep(60)
"""
RUNNING = """
import signal
from commands.ablation import ExperimentInterrupted, run_experiment
from pipeline.mtcae.structures import Structure
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    print(run_experiment("mine", Structure("stl", "vit"), []))
except ExperimentInterrupted as interrupted:
    print("interrupted:", interrupted)
"""


@pytest.mark.parametrize("presses", [1, 2])
def test_an_experiment_gets_ctrl_c_itself_and_is_waited_for(
    presses: int, call_for_dvc: Callable[[str], None]
) -> None:
    call_for_dvc(SAVING_DVC)
    # A terminal sends the signal to all processes of a session in the foreground.
    running = subprocess.Popen(
        [sys.executable, "-c", RUNNING],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert running.stdout
        assert running.stdout.readline() == "started\n"
        os.killpg(running.pid, signal.SIGINT)
        assert running.stdout.readline() == "saving\n"
        for _ in range(presses - 1):
            os.killpg(running.pid, signal.SIGINT)
        rest, _ = running.communicate(timeout=30)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
    assert rest.splitlines() == ["saved", "interrupted: mine"]
    assert running.returncode == 0
