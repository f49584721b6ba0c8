import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from alembic.util import CommandError
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from project import ROOT

from pipeline.common.files import project_root
from pipeline.tracking import names
from pipeline.tracking.experiment import TrackedExperiment
from pipeline.tracking.observer import FoldFiles, log_experiment, track_fold, training_seconds

CHOICES: dict[str, str | int] = {
    "dataset": "sample",
    "arch": "cascaded",
    "decoder": "vit",
    "model": "tiny",
    "recipe": "quick",
    "seed": 1,
}
PARAMS = {"seed": 1, "models": {"image_size": 112}}
CURVE = [
    {"epoch": 1, "train_loss": 2.5},
    {"epoch": 2, "train_loss": 1.5},
    {"epoch": 3, "train_loss": 1.0},
]
SUMMARY = {"uar_mean": 0.5, "uar_pooled": 0.6}
GROUPED = {"test/uar_mean": 0.5, "test/uar_pooled": 0.6}
DIGEST = "0123456789abcdef" * 4
EXPERIMENT = TrackedExperiment(CHOICES, PARAMS, DIGEST)
# As MLflow has them: the parameters and the choices.
FLAT = {name: str(value) for name, value in CHOICES.items()} | {"models.image_size": "112"}


def seconds_of(choices: dict[str, str | int]) -> float | None:
    return training_seconds(TrackedExperiment(choices, {}, ""))


def run_fold(
    fold: int,
    curve: list[dict[str, float]] = CURVE,
    experiment: TrackedExperiment = EXPERIMENT,
) -> int:
    """Log a fold live; returns the number of its epochs."""
    epochs = 0
    with track_fold(experiment, fold) as log:
        for line in curve:
            log.metrics(line, step=int(line["epoch"]))
            epochs += 1
        log.metrics({"test_uar": fold / 10})
    return epochs


def aggregate(
    folds: tuple[int, ...] = (1, 2),
    artifacts: tuple[Path, ...] = (),
    models: dict[int, Path] | None = None,
    summary: dict[str, float] = SUMMARY,
    experiment: TrackedExperiment = EXPERIMENT,
) -> None:
    files = {fold: FoldFiles(CURVE, {"test_uar": fold / 10}) for fold in folds}
    more: dict[str, Any] = {"split": {"protocol": "paper"}, "folds": list(folds)}
    log_experiment(experiment, files, summary, list(artifacts), models or {}, more)


def client(project: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project / 'mlflow.db'}")


def all_runs(project: Path) -> list[Run]:
    store = client(project)
    experiment = store.get_experiment_by_name("dfer-sample")
    assert experiment is not None
    return list(store.search_runs([experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY))


def runs(project: Path) -> tuple[list[Run], dict[int, Run]]:
    """Parent runs, and the children by fold."""
    found = all_runs(project)
    children = [run for run in found if "fold" in run.data.tags]
    by_fold = {int(run.data.tags["fold"]): run for run in children}
    assert len(by_fold) == len(children)
    return [run for run in found if "fold" not in run.data.tags], by_fold


def metrics_of(project: Path, run_id: str) -> dict[str, float]:
    return dict(client(project).get_run(run_id).data.metrics)


def curve_of(project: Path, run: Run, metric: str = "train/loss") -> list[tuple[int, float]]:
    history = client(project).get_metric_history(run.info.run_id, metric)
    return [(point.step, point.value) for point in history]


def test_an_experiment_is_one_parent_with_a_child_for_each_fold(project: Path) -> None:
    run_fold(1)
    run_fold(2)
    aggregate()
    (parent,), children = runs(project)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == GROUPED
    assert sorted(children) == [1, 2]
    for fold, child in children.items():
        assert child.info.status == "FINISHED"
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert curve_of(project, child) == [(1, 2.5), (2, 1.5), (3, 1.0)]
        assert child.data.metrics["test/uar"] == fold / 10
        assert child.data.params == FLAT | {"fold": str(fold)}
    assert parent.data.params == FLAT | {"split.protocol": "paper", "folds": "[1, 2]"}


def test_runs_say_which_experiment_and_commit_they_are_of(project: Path) -> None:
    run_fold(1)
    aggregate((1,))
    (parent,), children = runs(project)
    commit = (project / ".git" / "refs" / "heads" / "main").read_text().strip()
    wanted = {
        "arch": "cascaded",
        "decoder": "vit",
        "seed": "1",
        "dvc_experiment": "bold-cat",
        "mlflow.source.git.commit": commit,
    }
    for run in (parent, children[1]):
        assert wanted.items() <= run.data.tags.items()
    assert parent.info.run_name == EXPERIMENT.name
    assert children[1].info.run_name == f"{EXPERIMENT.name} fold 1"


def test_the_same_results_are_logged_once(project: Path) -> None:
    run_fold(1)
    aggregate((1,))
    before = runs(project)
    aggregate((1,))
    parents, children = runs(project)
    assert [run.info.run_id for run in parents] == [run.info.run_id for run in before[0]]
    assert {fold: run.info.run_id for fold, run in children.items()} == {
        fold: run.info.run_id for fold, run in before[1].items()
    }


def test_folds_out_of_the_cache_of_dvc_are_added_from_their_files(project: Path) -> None:
    run_fold(2, curve=CURVE[:1])
    aggregate()
    _, children = runs(project)
    assert curve_of(project, children[1]) == [(1, 2.5), (2, 1.5), (3, 1.0)]
    assert children[1].info.status == "FINISHED"
    assert children[1].data.metrics["test/uar"] == 0.1
    # The one that was logged live is left as it is.
    assert curve_of(project, children[2]) == [(1, 2.5)]


def test_a_fold_whose_log_broke_off_is_logged_from_its_files(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object, **options: object) -> None:
        raise MlflowException("database is locked")

    def broken_fold() -> None:
        with track_fold(EXPERIMENT, 1) as log:
            log.metrics(CURVE[0], step=1)
            assert log.store
            monkeypatch.setattr(log.store.client, "log_batch", gone)
            log.metrics(CURVE[1], step=2)

    with pytest.warns(UserWarning, match="database is locked"):
        broken_fold()
    aggregate((1,))
    (parent,), children = runs(project)
    assert [parent.info.status, children[1].info.status] == ["FINISHED", "FINISHED"]
    assert curve_of(project, children[1]) == [(1, 2.5), (2, 1.5), (3, 1.0)]


def test_a_fold_that_runs_again_takes_the_place_of_the_earlier_run(project: Path) -> None:
    run_fold(1)
    run_fold(1, curve=CURVE[:2])
    parents, children = runs(project)
    assert len(parents) == 1
    assert curve_of(project, children[1]) == [(1, 2.5), (2, 1.5)]


def test_a_run_with_other_metrics_than_the_files_is_replaced_by_what_they_say(
    project: Path,
) -> None:
    """DVC takes a fold from its cache after another one was trained with other code."""
    with track_fold(EXPERIMENT, 1) as log:
        log.metrics({"test_uar": 0.9})
    aggregate((1,))
    _, children = runs(project)
    assert children[1].data.metrics["test/uar"] == 0.1
    assert curve_of(project, children[1]) == [(1, 2.5), (2, 1.5), (3, 1.0)]


def test_folds_from_files_have_the_parameters_of_live_ones(project: Path) -> None:
    """Those of a file are lists where params.yaml's may be tuples, and in another order."""
    params = {"classes": ("happy", "sad"), "recipes": {"learning_rate": 1e-3, "compile": False}}
    live = EXPERIMENT._replace(params=params)
    read = json.loads(json.dumps(params, sort_keys=True))
    run_fold(1, experiment=live)
    aggregate(experiment=EXPERIMENT._replace(params=read))
    (parent,), children = runs(project)
    wanted = {"classes": '["happy", "sad"]', "recipes.learning_rate": "0.001"}
    wanted |= {"recipes.compile": "false"} | {k: str(v) for k, v in CHOICES.items()}
    assert children[1].data.params == wanted | {"fold": "1"}
    assert children[2].data.params == wanted | {"fold": "2"}
    assert wanted.items() <= parent.data.params.items()


def test_a_running_experiment_can_be_told_from_others(project: Path) -> None:
    with track_fold(EXPERIMENT, 1):
        (parent,), _ = runs(project)
        assert parent.data.params == FLAT


@pytest.mark.parametrize(
    "params",
    [
        {"seed": 1, "models": {"image_size": 56}},
        PARAMS | {"encoder": {"name": "marlin-large", "sha256": "a" * 64}},
        PARAMS | {"encoder": {"name": "marlin-large", "sha256": "b" * 64}},
    ],
)
def test_other_parameters_are_another_parent_although_the_results_are_the_same(
    params: dict[str, Any], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc repro` outside of a DVC experiment has no name to tell them apart."""
    monkeypatch.delenv("DVC_EXP_NAME")
    experiments = [EXPERIMENT, EXPERIMENT._replace(params=params)]
    for experiment in experiments:
        run_fold(1, experiment=experiment)
    for experiment in experiments:
        aggregate((1,), experiment=experiment)
    found = all_runs(project)
    parents = {run.info.run_name: run.info.run_id for run in found if "fold" not in run.data.tags}
    assert len(found) == 4
    assert sorted(parents) == sorted(experiment.name for experiment in experiments)
    for run in found:
        if "fold" in run.data.tags:
            parent, _, _ = str(run.info.run_name).partition(" fold ")
            assert run.data.tags["mlflow.parentRunId"] == parents[parent]


def test_more_parameters_than_mlflow_takes_at_once_are_logged_and_long_ones_cut(
    project: Path,
) -> None:
    numbers = {f"number{i}": str(i) for i in range(250)}
    experiment = EXPERIMENT._replace(params=numbers | {"subjects": ["a" * 99] * 99})
    run_fold(1, experiment=experiment)
    aggregate((1,), experiment=experiment)
    (parent,), children = runs(project)
    for run in (parent, children[1]):
        assert numbers.items() <= run.data.params.items()
        assert json.dumps(["a" * 99] * 99).startswith(run.data.params["subjects"][:5990])
    assert parent.info.status == "FINISHED"
    assert parent.data.tags[names.AGGREGATED] == "yes"


def test_parameters_that_are_no_json_cost_a_warning_and_not_the_training(project: Path) -> None:
    experiment = EXPERIMENT._replace(params={"path": project})
    with pytest.warns(UserWarning, match="not JSON serializable.*the files hold everything"):
        assert run_fold(1, experiment=experiment) == len(CURVE)
    with pytest.warns(UserWarning, match="not JSON serializable.*the files hold everything"):
        log_experiment(EXPERIMENT, {}, SUMMARY, [], {}, {"path": project})


def test_other_data_is_another_parent(project: Path) -> None:
    run_fold(1)
    run_fold(2, experiment=EXPERIMENT._replace(data_digest="f" * 64))
    assert len(runs(project)[0]) == 2


def test_parent_and_folds_name_the_data_set_with_its_hash(project: Path) -> None:
    run_fold(1)
    aggregate()
    (parent,), children = runs(project)
    for run in (parent, children[1], children[2]):
        inputs = client(project).get_run(run.info.run_id).inputs
        assert inputs is not None
        (logged,) = inputs.dataset_inputs
        assert logged.dataset.name == "sample"
        assert logged.dataset.digest == DIGEST[:36]
        assert json.loads(str(logged.dataset.profile)) == {"sha256": DIGEST}
        assert json.loads(str(logged.dataset.source)) == {"uri": "data/shards/sample"}
        assert [(tag.key, tag.value) for tag in logged.tags] == [
            ("mlflow.data.context", "training")
        ]


def test_no_run_is_left_running_where_dvc_skips_the_aggregate(project: Path) -> None:
    run_fold(1)
    aggregate((1,))
    run_fold(1)  # by force, with the results that DVC knows
    assert [run.info.status for run in all_runs(project)] == ["FINISHED"] * 4


def test_an_aggregate_after_that_closes_the_new_run(project: Path) -> None:
    run_fold(1)
    aggregate((1,))
    run_fold(1)
    aggregate((1,))
    parents = [run for run in all_runs(project) if "fold" not in run.data.tags]
    assert [run.data.metrics for run in parents] == [GROUPED, GROUPED]
    assert [run.data.tags[names.AGGREGATED] for run in parents] == ["yes", "yes"]


def test_a_parent_is_running_while_one_of_its_folds_is(project: Path) -> None:
    for fold in (1, 2):
        with track_fold(EXPERIMENT, fold):
            (parent,), _ = runs(project)
            assert parent.info.status == "RUNNING"
        (parent,), _ = runs(project)
        assert parent.info.status == "FINISHED"


def run_alone(program: str) -> None:
    """Run a program in a process of its own, which must not fail."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_observer_neither_imports_mlflow_nor_changes_the_environment() -> None:
    run_alone("""
import os, sys
before = dict(os.environ)
import pipeline.tracking.observer
assert "mlflow" not in sys.modules
assert dict(os.environ) == before
""")


def test_without_mlflow_a_training_goes_on_with_one_warning(project: Path) -> None:
    run_alone(f"""
import sys, warnings
from pipeline.tracking import names
from pipeline.tracking.experiment import TrackedExperiment
from pipeline.tracking.observer import track_fold
sys.modules["mlflow"] = None  # Whoever imports it gets a ModuleNotFoundError.
epochs = []
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with track_fold({EXPERIMENT}, 1) as log:
        for epoch in (1, 2):
            log.metrics({{"train_loss": 1.0}}, step=epoch)
            epochs.append(epoch)
assert epochs == [1, 2]
assert ["the files hold everything" in str(one.message) for one in caught] == [True], caught
""")
    assert client(project).get_experiment_by_name("dfer-sample") is None


def start_fold(seed: int, then: str = "pass") -> subprocess.Popen[str]:
    """A fold in a process of its own; any warning is an error there, but for MLflow's own."""
    experiment = EXPERIMENT._replace(choices=CHOICES | {"seed": seed})
    program = f"""
from pipeline.tracking import names
from pipeline.tracking.experiment import TrackedExperiment
from pipeline.tracking.observer import track_fold
import pipeline.tracking.runs, warnings
warnings.simplefilter("error", UserWarning)
with track_fold({experiment}, 1) as log:
    log.metrics({{"train_loss": 9.0}}, step=1)
    {then}
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_experiments_that_start_at_the_same_time_do_not_harm_the_new_store(project: Path) -> None:
    (project / "mlflow.db").unlink()
    for process in [start_fold(seed) for seed in (1, 2, 3)]:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    found = all_runs(project)
    assert sorted(run.data.tags["seed"] for run in found) == ["1", "1", "2", "2", "3", "3"]
    assert {run.info.status for run in found} == {"FINISHED"}
    assert sorted(path.name for path in project.iterdir()) == [".git", "mlflow.db"]


def test_data_that_another_experiment_adds_at_the_same_moment_are_taken_from_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_inputs = SqlAlchemyStore.log_inputs
    calls = []

    def fail_once(self: SqlAlchemyStore, *args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == 1:
            raise MlflowException("UNIQUE constraint failed: datasets.name, datasets.digest")
        log_inputs(self, *args, **kwargs)

    monkeypatch.setattr(SqlAlchemyStore, "log_inputs", fail_once)
    run_fold(1)
    (parent,), children = runs(project)
    for run in (parent, children[1]):
        assert run.inputs
        assert run.inputs.dataset_inputs[0].dataset.name == "sample"


def test_a_killed_training_is_taken_up_by_the_next_run(project: Path) -> None:
    killed = start_fold(1, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.wait() == -signal.SIGKILL
    assert runs(project)[1][1].info.status == "RUNNING"
    run_fold(1)
    aggregate((1,))
    (parent,), children = runs(project)
    assert parent.data.metrics == GROUPED
    assert [parent.info.status, children[1].info.status] == ["FINISHED", "FINISHED"]
    assert curve_of(project, children[1]) == [(1, 2.5), (2, 1.5), (3, 1.0)]


def test_the_training_time_is_the_mean_of_the_newest_run_of_each_fold(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed_fold(fold: int, seconds: float) -> None:
        run_fold(fold)
        child = runs(project)[1][fold]
        client(project).log_metric(child.info.run_id, names.SECONDS, seconds, step=1)

    assert seconds_of(CHOICES) is None
    timed_fold(1, 50.0)
    timed_fold(2, 20.0)
    assert seconds_of(CHOICES) == 35.0
    # Added from files: says nothing about time.
    aggregate((1, 2, 3))
    assert seconds_of(CHOICES) == 35.0
    # In whatever DVC experiment.
    monkeypatch.setenv("DVC_EXP_NAME", "shy-dog")
    run_fold(1)
    newest = max(all_runs(project), key=lambda run: int(run.info.start_time))
    client(project).log_metric(newest.info.run_id, names.SECONDS, 10.0, step=1)
    assert seconds_of(CHOICES) == 15.0
    for other in ({"seed": 2}, {"arch": "stl"}, {"dataset": "custom"}):
        assert seconds_of({**CHOICES, **other}) is None


def test_asking_for_the_training_time_makes_no_store(project: Path) -> None:
    (project / "mlflow.db").unlink()
    assert seconds_of(CHOICES) is None
    assert not (project / "mlflow.db").exists()


def test_the_training_time_is_measured(project: Path) -> None:
    with track_fold(EXPERIMENT, 1):
        time.sleep(0.2)
    seconds = seconds_of(CHOICES)
    assert seconds is not None
    assert 0.2 <= seconds < 10


def test_the_training_time_counts_the_epochs_from_before_a_stop(project: Path) -> None:
    with track_fold(EXPERIMENT, 1) as log:
        for epoch in (1, 2):
            log.metrics({"seconds": 100.0}, step=epoch)
    assert seconds_of(CHOICES) == 200.0


def test_a_training_that_fails_has_no_training_time(project: Path) -> None:
    with pytest.raises(FloatingPointError):
        failing_fold(FloatingPointError("the loss is nan"))
    assert seconds_of(CHOICES) is None


@pytest.mark.parametrize("wanted", [True, False])
def test_system_metrics_are_a_switch(
    wanted: bool, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wanted:
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    with track_fold(EXPERIMENT, 1) as log:
        log.metrics({"train_loss": 1.0}, step=1)
        deadline = time.monotonic() + (30 if wanted else 0.5)
        while "system/cpu_utilization_percentage" not in metrics_of(project, log.run_id):
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
    metrics = metrics_of(project, log.run_id)
    assert any(name.startswith("system/") for name in metrics) == wanted
    assert "train/loss" in metrics
    assert not [thread for thread in threading.enumerate() if "SystemMetrics" in thread.name]


def test_another_dvc_experiment_is_another_parent(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_fold(1)
    monkeypatch.setenv("DVC_EXP_NAME", "shy-dog")
    run_fold(2)
    parents, children = runs(project)
    assert sorted(run.data.tags["dvc_experiment"] for run in parents) == ["bold-cat", "shy-dog"]
    assert {run.info.run_name for run in parents} == {EXPERIMENT.name}
    assert (
        children[1].data.tags["mlflow.parentRunId"] != children[2].data.tags["mlflow.parentRunId"]
    )


def failing_fold(error: BaseException) -> None:
    with track_fold(EXPERIMENT, 1) as log:
        log.metrics({"train_loss": 1.0}, step=1)
        raise error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FloatingPointError("the loss is nan"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(143), "KILLED"),
    ],
)
def test_a_training_that_fails_or_is_stopped_is_marked_so_and_its_error_goes_on(
    project: Path, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)):
        failing_fold(error)
    _, children = runs(project)
    assert children[1].info.status == status


def test_numbers_that_are_not_finite_are_left_out(project: Path) -> None:
    with track_fold(EXPERIMENT, 1) as log:
        log.metrics({"a": 1.0, "b": float("nan"), "c": float("inf")})
    metrics = runs(project)[1][1].data.metrics
    assert metrics.keys() == {"test/a", names.SECONDS}
    assert metrics["test/a"] == 1.0


def test_an_unreachable_server_costs_a_warning_and_not_the_training(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.warns(UserWarning, match="the files hold everything"):
        assert run_fold(1) == len(CURVE)
    with pytest.warns(UserWarning, match="the files hold everything") as warned:
        aggregate(models={1: project / "model.safetensors"})
    assert len(warned) == 1
    with pytest.warns(UserWarning, match="the files hold everything"):
        assert seconds_of(CHOICES) is None


def test_a_server_that_goes_away_costs_one_warning(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object, **options: object) -> None:
        raise MlflowException("the server is gone\nat length")

    with (
        warnings.catch_warnings(record=True) as caught,
        track_fold(EXPERIMENT, 1) as log,
    ):
        warnings.simplefilter("always")
        assert log.store
        monkeypatch.setattr(log.store.client, "log_batch", gone)
        for line in CURVE:
            log.metrics(line, step=int(line["epoch"]))
    messages = [str(warning.message) for warning in caught if "MLflow" in str(warning.message)]
    assert messages == [
        "MLflow: the server is gone; going on without it, the files hold everything"
    ]


def test_only_the_tables_that_are_named_are_attached(project: Path) -> None:
    (project / "table.md").write_text("a table")
    run_fold(1)
    aggregate((1,), artifacts=(project / "table.md",))
    logged = [path for path in (project / "mlartifacts").rglob("*") if path.is_file()]
    assert [path.name for path in logged] == ["table.md"]
    assert logged[0].read_text() == "a table"


def test_the_copy_in_which_dvc_runs_an_experiment_belongs_to_the_project(tmp_path: Path) -> None:
    for copy in (".dvc/tmp/exps/tmpabc", ".dvc/tmp/exps/standalone/tmpabc/metrics"):
        assert project_root(tmp_path / copy) == tmp_path
    for folder in (tmp_path, tmp_path / ".dvc" / "tmp"):
        assert project_root(folder) == folder


def test_a_queued_experiment_is_logged_in_the_store_of_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = project / ".dvc" / "tmp" / "exps" / "tmpabc"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    run_fold(1)
    assert list(runs(project)[1]) == [1]
    assert list(copy.iterdir()) == []


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "sqlite:///{}/mlflow.db"])
def test_a_queued_experiment_with_a_database_of_its_own_leaves_nothing_in_its_copy(
    uri: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = project / ".dvc/tmp/exps/tmpabc"
    copy.mkdir(parents=True)
    (project / "table.csv").write_text("a\n", encoding="utf-8")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(project))
    monkeypatch.chdir(copy)
    run_fold(1)
    aggregate((1,), artifacts=(project / "table.csv",))
    (parent,), _ = runs(project)
    assert parent.info.artifact_uri.startswith((project / "mlartifacts").as_uri())
    assert (project / "mlartifacts").is_dir()
    assert list(copy.iterdir()) == []


@pytest.mark.parametrize("uri", ["./mlruns", "file:mlruns"])
def test_a_queued_experiment_with_a_folder_of_runs_leaves_them_in_that_of_the_project(
    uri: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = project / "100% sure?/.dvc/tmp/exps/tmpabc"
    copy.mkdir(parents=True)
    (copy / "table.csv").write_text("a\n", encoding="utf-8")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(copy)
    run_fold(1)
    aggregate((1,), artifacts=(copy / "table.csv",))
    assert [path.name for path in copy.iterdir()] == ["table.csv"]
    runs_folder = project / "100% sure?/mlruns"
    client = MlflowClient(runs_folder.as_uri())
    experiments = [each.experiment_id for each in client.search_experiments()]
    assert len(client.search_runs(experiments)) == 2
    (artifact,) = runs_folder.rglob("table.csv")
    assert artifact.read_text(encoding="utf-8") == "a\n"


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'psycopg'"),
        TimeoutError(),
        CommandError("Can't locate revision identified by '1234'"),
        Exception("Unable to locate credentials"),  # botocore's are nothing more special
    ],
)
def test_a_missing_driver_or_a_silent_error_costs_a_warning_and_not_the_training(
    error: Exception, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("pipeline.tracking.runs.Store.__init__", fail)
    with pytest.warns(UserWarning, match="MLflow: .+; going on without it"):
        assert run_fold(1) == len(CURVE)


def test_a_run_of_a_killed_process_does_not_go_on_for_ever(project: Path) -> None:
    program = """
import os, signal
from test_tracking import EXPERIMENT
from pipeline.tracking.observer import track_fold
with track_fold(EXPERIMENT, 1) as log:
    log.metrics({"train_loss": 1.0}, step=1)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    places = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests/tracking'}"}
    command = [sys.executable, "-c", program]
    subprocess.run(command, cwd=project, env={**os.environ, **places}, check=False)
    assert {run.info.status for run in all_runs(project)} == {"RUNNING"}
    # Another one of this process, which lives.
    with track_fold(EXPERIMENT, 2):
        (parent,), children = runs(project)
        assert parent.info.status == "RUNNING"
        assert {fold: run.info.status for fold, run in children.items()} == {
            1: "KILLED",
            2: "RUNNING",
        }


def test_a_run_says_its_table_and_its_helpers_are_hidden(project: Path, tmp_path: Path) -> None:
    page = tmp_path / "table.md"
    page.write_text("# A table\n" + "a line of it\n" * 1000, encoding="utf-8")
    run_fold(1)
    aggregate((1,), artifacts=(page,))
    (parent,), _ = runs(project)
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("# A table\na line of it\n")
    assert note.endswith("\na line of it")
    assert len(note) <= 8000
    shown = {name for name in parent.data.tags if not name.startswith("mlflow.")}
    assert shown == {"arch", "decoder", "model", "recipe", "seed", "dvc_experiment"}
