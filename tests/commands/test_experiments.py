import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from project import ROOT
from small import setting

from commands.ablation import trials
from commands.experiment_runs import (
    Copied,
    Settings,
    refuse_what_copies_lack,
    run_experiment,
    run_experiments,
)
from commands.experiments import (
    COMMITTED,
    Trial,
    experiment_name,
    finished_experiments,
    present_state,
    read_params,
    read_predictions,
    shared_digest,
)
from commands.list_experiments import main as list_experiments
from commands.starts import run_missing
from pipeline.common.files import write_json
from pipeline.mtcae.structures import STRUCTURES, Structure

# With the seed of params.yaml.
CASCADED, STL = Trial(Structure("cascaded", "vit"), 1), Trial(Structure("stl", "vit"), 1)


def git(*arguments: str, second: int = 0) -> str:
    """What git says; a commit is made at that second of a day."""
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", *author, *arguments]
    env = os.environ | {"GIT_COMMITTER_DATE": f"2026-01-01T00:00:{second:02}+00:00"}
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=env
    ).stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of a line of code, with the parameters of this one and results of the cascade."""
    monkeypatch.chdir(tmp_path)
    git("init", "-q", "-b", "main")
    subprocess.run(["dvc", "init", "-q"], check=True)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    Path("code.py").write_text("1\n", encoding="utf-8")
    write_results(0.5)
    git("add", "--all")
    git("commit", "-q", "-m", "first")
    return tmp_path


def write_results(uar: float, seed: int = 1) -> None:
    tested = pd.DataFrame({"fold": [1], "clip": "a", "subject": "Ann", "actual": "sad"})
    write_json(Path("metrics/summary.json"), {name: {"pooled": uar} for name in ("uar", "war")})
    write_json(Path("metrics/setting.json"), setting(tested, ["sad"], seeds=[seed]).model_dump())


def add_experiment(
    name: str,
    uar: float,
    code: str = "1\n",
    *,
    second: int = 1,
    has_setting: bool = True,
    **changes: object,
) -> None:
    """As DVC stores a finished one, of stl: a commit upon HEAD, under a ref of its own.

    Args:
        name: Of the experiment.
        uar: Of its summary.
        code: What code.py holds.
        second: When it was finished.
        has_setting: Whether its stage aggregate wrote setting.json.
        changes: Of its parameters.
    """
    head = git("rev-parse", "HEAD")
    params = read_params() | {"arch": "stl"} | changes
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    Path("code.py").write_text(code, encoding="utf-8")
    write_results(uar, params["seed"])
    if not has_setting:
        Path("metrics/setting.json").unlink()
    git("commit", "-q", "--all", "-m", name, second=second)
    git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", "HEAD")
    git("reset", "-q", "--hard", head)


def scores() -> dict[Trial, tuple[str, Any]]:
    found = finished_experiments(read_params())
    return {trial: (each.name, each.summary["uar"]["pooled"]) for trial, each in found.items()}


def test_experiments_of_other_code_are_not_in_the_table(project: Path) -> None:
    add_experiment("of-this-code", 0.6)
    add_experiment("newer-of-other-code", 0.9, code="2\n", second=2)
    assert scores() == {CASCADED: (COMMITTED, 0.5), STL: ("of-this-code", 0.6)}
    Path("code.py").write_text("2\n", encoding="utf-8")
    assert scores() == {STL: ("newer-of-other-code", 0.9)}


def test_the_experiment_of_the_present_name_comes_before_newer_ones(project: Path) -> None:
    params = read_params()
    name = experiment_name(STL, params, present_state(params))
    add_experiment(name, 0.6)
    add_experiment("newer", 0.9, second=2)
    assert scores()[STL] == (name, 0.6)


def test_every_seed_of_a_structure_is_an_experiment_of_its_own(project: Path) -> None:
    add_experiment("one", 0.6)
    add_experiment("two", 0.7, seed=2)
    add_experiment("newer-two", 0.8, seed=2, second=2)
    assert scores() == {
        CASCADED: (COMMITTED, 0.5),
        STL: ("one", 0.6),
        STL._replace(seed=2): ("newer-two", 0.8),
    }
    found = finished_experiments(read_params())
    assert [found[STL._replace(seed=seed)].setting.seeds for seed in (1, 2)] == [[1], [2]]


def test_experiments_with_other_parameters_are_not_in_the_table(project: Path) -> None:
    add_experiment("other-folds", 0.6, folds=[1])
    add_experiment("other-model", 0.7, model="small")
    assert scores() == {CASCADED: (COMMITTED, 0.5)}


def test_an_experiment_that_does_not_say_what_it_rests_on_is_not_in_the_table(
    project: Path,
) -> None:
    add_experiment("of-today", 0.6)
    add_experiment("newer-without-a-setting", 0.9, has_setting=False, second=2)
    assert scores()[STL] == ("of-today", 0.6)


def test_predictions_come_out_of_the_cache_and_are_missed_by_name(project: Path) -> None:
    path = Path("data/predictions/sample.parquet")
    path.parent.mkdir(parents=True)
    table = pd.DataFrame({"clip": ["a", "b"], "predicted": ["sad", "happy"]})
    table.to_parquet(path, index=False)
    subprocess.run(["dvc", "add", "-q", str(path)], check=True)
    git("add", "--all")
    git("commit", "-q", "-m", "with predictions")
    path.unlink()
    experiment = finished_experiments(read_params())[CASCADED]
    pd.testing.assert_frame_equal(read_predictions(experiment), table)
    shutil.rmtree(".dvc/cache")
    # Those that no stage made are missing in another way.
    for folder in ("predictions", "baselines"):
        with pytest.raises(FileNotFoundError, match=r"of \(committed\) are not in DVC's cache"):
            read_predictions(experiment, folder)


def test_the_digest_of_what_experiments_share_is_that_of_all_structures_and_seeds(
    project: Path,
) -> None:
    params = read_params()
    digest = shared_digest(params)
    assert shared_digest(params | {"arch": "stl", "decoder": "mlp", "seed": 9}) == digest
    # A preset that is not chosen changes nothing; one that is chosen does.
    for dataset, same in (("ravdess", True), ("sample", False)):
        datasets = params["datasets"] | {dataset: params["datasets"][dataset] | {"more": 1}}
        assert (shared_digest(params | {"datasets": datasets}) == digest) is same
    others = [params | {"folds": [1]}, params | {"model": "small"}]
    assert len({digest, *map(shared_digest, others)}) == 3


def test_a_name_says_structure_and_seed(project: Path) -> None:
    params = read_params()
    trial = Trial(Structure("fully_shared", "mlp"), 3)
    assert experiment_name(trial, params, "").startswith("sample-fully-shared-mlp-seed3-")


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
    names.append(experiment_name(STL._replace(seed=2), params, present_state(params)))
    params["folds"] = [1]
    note()
    assert len(set(names)) == len(names) == 11
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
    assert Copied.of(params).files == [weights, table]
    git("add", str(table))
    assert Copied.of(params).files == [weights]
    # Those elsewhere are used where they are.
    params["encoder"]["weights"] = "/elsewhere/mine.pt"
    assert Copied.of(params).files == []


def test_videos_that_a_copy_would_lack_are_refused_before_the_first_experiment(
    project: Path,
) -> None:
    params = read_params()
    params["dataset"] = "custom"
    with pytest.raises(
        ValueError, match=f"write {project}/datasets/custom/videos into params.yaml"
    ):
        refuse_what_copies_lack(Copied.of(params))
    video = Path("datasets/custom/videos/a.mp4")
    video.parent.mkdir(parents=True)
    video.touch()
    git("add", str(video))
    refuse_what_copies_lack(Copied.of(params))
    params["datasets"]["custom"]["source"] = "/elsewhere"
    refuse_what_copies_lack(Copied.of(params))


@pytest.mark.parametrize(("name", "works"), [("100% 41", True), ("a?", False), ("é", False)])
def test_a_project_of_which_dvc_makes_no_copies_is_refused(
    name: str, works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    params = {"dataset": "mine", "datasets": {"mine": {}}, "encoder": {"weights": "/no"}}
    with (
        nullcontext()
        if works
        else pytest.raises(ValueError, match=f"copies of .*{re.escape(name)}")
    ):
        refuse_what_copies_lack(Copied.of(params))


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
    files = [Path("weights/mine one.pt"), Path("datasets/custom/clips.csv")]
    copied = Copied("affect/dvc.yaml", files, None, "source")
    settings: Settings = {"arch": "fully_shared", "decoder": "mlp", "seed": 3}
    assert run_experiment("mine", settings, copied) is came_to_its_end
    assert (tmp_path / "arguments").read_text().splitlines() == [
        *("exp", "run", "--temp", "--name", "mine"),
        *("--set-param", "arch=fully_shared", "--set-param", "decoder=mlp"),
        *("--set-param", "seed=3"),
        *("--copy-paths", "weights/mine one.pt", "--copy-paths", "datasets/custom/clips.csv"),
        "affect/dvc.yaml",
    ]


def test_what_was_run_is_not_run_again_and_what_fails_is_named(
    project: Path, capfd: pytest.CaptureFixture[str], call_for_dvc: Callable[[str], None]
) -> None:
    params = read_params()
    state = present_state(params)
    names = {
        trial: experiment_name(trial, params, state)
        for trial in (Trial(structure, seed) for seed in (1, 2) for structure in STRUCTURES)
    }
    add_experiment(names[STL], 0.6)
    broken = names[Trial(Structure("fully_shared", "mlp"), 2)]
    # The committed run is not of the present state: that is what `dvc status` says, too.
    call_for_dvc(f'#!/bin/sh\necho "$@"\ncase "$*" in status*|*{broken}*) exit 1;; esac\n')
    assert run_experiments(trials(num_seeds=2), Copied.of(params)) == [broken]
    lines = capfd.readouterr().out.splitlines()
    assert f"{names[STL]} was run before" in lines
    run = [line.split()[4] for line in lines if line.startswith("exp run")]
    # One seed after the other: the table of the first is whole when it stops in the second.
    assert run == [name for trial, name in names.items() if trial != STL]


def test_every_start_is_run_with_its_weights_and_every_seed(
    project: Path, capfd: pytest.CaptureFixture[str], call_for_dvc: Callable[[str], None]
) -> None:
    call_for_dvc('#!/bin/sh\necho "$@"\n')
    Path("weights").mkdir()
    Path("weights/mine.pt").touch()
    params = read_params()
    # The predictions of the committed run are not here: it is run as well.
    run_missing(params, ["from_scratch", "mine.pt"], [1, 2])
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("exp run")]
    runs = [re.findall(r"--set-param (\S+)|--copy-paths (\S+)", line) for line in lines]
    assert [sorted(a or b for a, b in words) for words in runs] == [
        ["encoder.weights=from_scratch", "seed=1", "weights/from_scratch"],
        ["encoder.weights=from_scratch", "seed=2", "weights/from_scratch"],
        ["encoder.weights=mine.pt", "seed=1", "weights/mine.pt"],
        ["encoder.weights=mine.pt", "seed=2", "weights/mine.pt"],
    ]
    assert len({line.split()[4] for line in lines}) == 4


def test_seeds_are_counted_from_that_of_the_parameters(
    project: Path, capfd: pytest.CaptureFixture[str], call_for_dvc: Callable[[str], None]
) -> None:
    text = yaml.safe_dump(read_params() | {"seed": 5})
    Path("params.yaml").write_text(text, encoding="utf-8")
    call_for_dvc('#!/bin/sh\necho "$@"\ncase "$*" in status*) exit 1;; esac\n')
    assert run_experiments(trials(num_seeds=2), Copied.of(read_params())) == []
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("exp run")]
    seeds = [word for line in lines for word in line.split() if word.startswith("seed=")]
    assert seeds == ["seed=5"] * 6 + ["seed=6"] * 6


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
from commands.experiment_runs import Copied, ExperimentInterrupted, run_experiment
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    print(run_experiment("mine", {"arch": "stl"}, Copied("dvc.yaml", [], None, "")))
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


def test_the_list_has_the_committed_run_before_there_is_an_experiment(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["list_experiments"])
    list_experiments()
    (alone,) = capsys.readouterr().out.splitlines()[2:]
    assert alone.startswith("| (committed) | ")
    add_experiment("bold-cat", 0.6)
    list_experiments()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == ["(committed)", "bold-cat"]
    assert "60.0%" in rows[1]
