"""The six structures as DVC experiments, to Table I and MLflow's comparison page."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from browser import browser_page, compare_runs, mlflow_server
from clones import Run, environment, mlflow_runs, new_clone, run_in, undescribed
from mlflow.entities import Run as MlflowRun

from commands.experiments import COMMITTED

pytestmark = pytest.mark.slow

TABLES = [f"metrics/ablation.{kind}" for kind in ("csv", "md", "tex")]
STRUCTURES = [
    "stl",
    "non_fully_shared mlp",
    "non_fully_shared vit",
    "fully_shared mlp",
    "fully_shared vit",
    "cascaded vit",
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """Six experiments; a fold is killed, one stopped by Ctrl-C, and both experiments run again."""
    folder = tmp_path_factory.mktemp("ablation")
    # One of two folds: that several are pooled is shown without DVC.
    run = new_clone(folder, **{"recipes.quick.engine.epochs": "1", "folds": "[1]"})
    run("dvc", "repro")
    # The table of another run, where one is committed: a checkout would bring it back.
    run("git", "rm", "--quiet", "-r", "--ignore-unmatch", *TABLES, "metrics/ablation")
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "--message", "first run")
    stopped = start_ablation(folder)
    wait_for_a_training(folder, stopped)
    os.killpg(stopped.pid, signal.SIGINT)  # As a terminal does it.
    said, _ = stopped.communicate(timeout=120)
    assert stopped.returncode != 0
    assert "was stopped; the next call goes on from there" in said
    assert not trainings(folder)
    failed = start_ablation(folder)
    wait_for_a_training(folder, failed).kill()
    said, _ = failed.communicate(timeout=600)
    assert failed.returncode != 0
    assert "failed: sample-stl-" in said
    run(sys.executable, "-m", "commands.ablation")
    run(sys.executable, "-m", "commands.table_one")
    return folder, run


def start_ablation(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "commands.ablation"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def trainings(folder: Path) -> list[psutil.Process]:
    """Those that run in copies of the project."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if str(process.info["cwd"]).startswith(str(folder / ".dvc/tmp/exps"))
        and "stages.finetune" in (process.info["cmdline"] or [])
    ]


def wait_for_a_training(folder: Path, running: "subprocess.Popen[str]") -> psutil.Process:
    while running.poll() is None:
        if found := trainings(folder):
            return found[0]
        time.sleep(0.05)
    raise AssertionError("no training was seen")


def mlflow_parents(folder: Path) -> dict[str, MlflowRun]:
    """The finished parent run of every experiment."""
    return {
        run.data.tags["dvc_experiment"] or COMMITTED: run
        for run in mlflow_runs(folder)
        if "fold" not in run.data.tags and run.info.status == "FINISHED"
    }


def test_table_one_has_the_six_structures_with_the_scores_of_their_experiments(
    clone: tuple[Path, Run],
) -> None:
    folder, run = clone
    table = pd.read_csv(folder / "metrics/ablation.csv")
    assert table["structure"].tolist() == [*STRUCTURES, "linear model", "majority class", "chance"]
    baselines = pd.read_parquet(folder / "data/baselines/sample.parquet")
    right = baselines["actual"] == baselines["predicted"]
    scores = table.set_index("structure")["uar_pooled"]
    for name, share in right.groupby(baselines["baseline"]).mean().items():
        assert scores[str(name)] == pytest.approx(share, abs=1e-5)
    assert scores["chance"] == pytest.approx(1 / 7, abs=1e-5)
    table = table[: len(STRUCTURES)]
    for _, row in table.iterrows():
        run("git", "checkout", "--quiet", ".")
        if row["experiment"] == COMMITTED:
            run("dvc", "checkout")
        else:
            run("dvc", "exp", "apply", row["experiment"])
        predictions = pd.read_parquet(folder / "data/predictions/sample.parquet")
        right = predictions["actual"] == predictions["predicted"]
        # As many clips of each class: the mean recall is the share of right clips.
        assert row["uar_pooled"] == pytest.approx(right.mean(), abs=1e-5)
        assert row["war_pooled"] == pytest.approx(right.mean(), abs=1e-5)
        assert row["training_seconds"] > 0
    run("git", "checkout", "--quiet", ".")
    # Parallel decoders and a cascade of them have the same parts.
    assert table["num_parameters"].nunique() == 5
    page = (folder / "metrics/ablation.md").read_text(encoding="utf-8")
    assert all(f"| {structure} |" in page for structure in STRUCTURES)
    assert (folder / "metrics/ablation.tex").read_text(encoding="utf-8").count("\\\\") == 10


def test_the_table_is_made_again_from_git_alone(clone: tuple[Path, Run], tmp_path: Path) -> None:
    folder, run = clone
    run("git", "add", "metrics")
    run("git", "commit", "--quiet", "--message", "table")
    other = run_in(tmp_path)
    other("git", "clone", "--quiet", str(folder), "clone")
    again = run_in(tmp_path / "clone")
    again(sys.executable, "-m", "commands.table_one", "--out", "metrics")
    for name in TABLES:
        made = (tmp_path / "clone" / name).read_bytes()
        assert made == (folder / name).read_bytes(), name
    run("git", "reset", "--quiet", "HEAD~1")  # The experiments are upon that commit.
    assert undescribed(folder, "metrics/ablation.csv", "metrics/ablation/*") == set()


def test_what_was_run_is_not_run_again(clone: tuple[Path, Run]) -> None:
    folder, run = clone
    before = len(mlflow_runs(folder))
    said = run(sys.executable, "-m", "commands.ablation")
    assert said.count("was run before") == 6
    assert len(mlflow_runs(folder)) == before


def test_every_experiment_is_one_finished_parent_with_its_folds(clone: tuple[Path, Run]) -> None:
    folder, _ = clone
    table = pd.read_csv(folder / "metrics/ablation.csv").dropna(subset="experiment")
    table = table.set_index("experiment")
    runs = mlflow_runs(folder)
    parents = mlflow_parents(folder)
    for name, row in table.iterrows():
        parent = parents[str(name)]
        assert parent.data.metrics["test/uar_pooled"] == pytest.approx(row["uar_pooled"], abs=1e-5)
        children = [
            run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
        ]
        assert [run.data.tags["fold"] for run in children] == ["1"]
        assert {run.info.status for run in children} == {"FINISHED"}


def test_nothing_is_left_half_done(clone: tuple[Path, Run]) -> None:
    folder, run = clone
    assert "up to date" in run("dvc", "status", "dvc.yaml")
    assert not list((folder / ".dvc/tmp/exps").glob("tmp*"))


def test_the_comparison_page_of_mlflow_shows_the_scores_of_the_table(
    clone: tuple[Path, Run], tmp_path: Path
) -> None:
    folder, _ = clone
    table = pd.read_csv(folder / "metrics/ablation.csv").dropna(subset="experiment")
    shutil.copy(folder / "mlflow.db", tmp_path)
    (experiment,) = {run.info.experiment_id for run in mlflow_runs(folder)}
    with mlflow_server(tmp_path / "mlflow.db", folder / "mlartifacts") as address:
        with browser_page() as page:
            parents = mlflow_parents(folder)
            names = [str(parents[name].info.run_name) for name in table["experiment"]]
            text = compare_runs(page, address, experiment, names)
            kept = Path(os.environ.get("TEST_ARTIFACTS", tmp_path)) / "mlflow-compare.png"
            page.screenshot(path=kept, full_page=True)
    for name in ("uar_pooled", "war_pooled"):
        for value in table[name]:
            assert str(round(value, 3)) in text
    assert kept.stat().st_size > 10_000
