import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from pipeline.tracking import log_experiment, project_root, track_fold

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


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs; MLflow takes seconds to create its tables, so that is done once."""
    folder = tmp_path_factory.mktemp("store")
    client(folder).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def project(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one commit and an empty store, as the current folder."""
    shutil.copy(empty_store, tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DVC_EXP_NAME", "bold-cat")
    subprocess.run(["git", "init", "-q", "-b", "main"], check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    return tmp_path


def run_fold(fold: int, curve: list[dict[str, float]] = CURVE) -> int:
    """Log a fold live; returns the number of its epochs."""
    epochs = 0
    with track_fold(CHOICES, fold, PARAMS) as log:
        for line in curve:
            log.metrics(line, step=int(line["epoch"]))
            epochs += 1
        log.metrics({"test_uar": fold / 10})
    return epochs


def aggregate(folds: tuple[int, ...] = (1, 2), artifacts: tuple[Path, ...] = ()) -> None:
    files = {fold: (CURVE, {"test_uar": fold / 10}) for fold in folds}
    log_experiment(CHOICES, PARAMS, files, SUMMARY, list(artifacts))


def client(project: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project / 'mlflow.db'}")


def runs(project: Path) -> tuple[list[Run], dict[int, Run]]:
    """Parent runs, and the children by fold."""
    store = client(project)
    experiment = store.get_experiment_by_name("dfer-sample")
    assert experiment is not None
    found = list(store.search_runs([experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY))
    children = [run for run in found if "fold" in run.data.tags]
    by_fold = {int(run.data.tags["fold"]): run for run in children}
    assert len(by_fold) == len(children)
    return [run for run in found if "fold" not in run.data.tags], by_fold


def curve_of(project: Path, run: Run, metric: str = "train_loss") -> list[tuple[int, float]]:
    history = client(project).get_metric_history(run.info.run_id, metric)
    return [(point.step, point.value) for point in history]


def test_an_experiment_is_one_parent_with_a_child_for_each_fold(project: Path) -> None:
    run_fold(1)
    run_fold(2)
    aggregate()
    (parent,), children = runs(project)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == SUMMARY
    assert sorted(children) == [1, 2]
    for fold, child in children.items():
        assert child.info.status == "FINISHED"
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert curve_of(project, child) == [(1, 2.5), (2, 1.5), (3, 1.0)]
        assert child.data.metrics["test_uar"] == fold / 10
        assert child.data.params == {"seed": "1", "models.image_size": "112", "fold": str(fold)}


def test_runs_say_which_experiment_and_commit_they_are_of(project: Path) -> None:
    run_fold(1)
    aggregate((1,))
    (parent,), children = runs(project)
    commit = (project / ".git" / "refs" / "heads" / "main").read_text().strip()
    wanted = {
        "arch": "cascaded",
        "decoder": "vit",
        "dvc_experiment": "bold-cat",
        "mlflow.source.git.commit": commit,
    }
    for run in (parent, children[1]):
        assert wanted.items() <= run.data.tags.items()
    assert parent.info.run_name == "bold-cat"
    assert children[1].info.run_name == "bold-cat fold 1"


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
    assert children[1].data.metrics["test_uar"] == 0.1
    # The one that was logged live is left as it is.
    assert curve_of(project, children[2]) == [(1, 2.5)]


def test_a_fold_that_runs_again_takes_the_place_of_the_earlier_run(project: Path) -> None:
    run_fold(1)
    run_fold(1, curve=CURVE[:2])
    parents, children = runs(project)
    assert len(parents) == 1
    assert curve_of(project, children[1]) == [(1, 2.5), (2, 1.5)]


def test_another_dvc_experiment_is_another_parent(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_fold(1)
    monkeypatch.setenv("DVC_EXP_NAME", "shy-dog")
    run_fold(2)
    parents, children = runs(project)
    assert sorted(run.info.run_name for run in parents) == ["bold-cat", "shy-dog"]
    assert (
        children[1].data.tags["mlflow.parentRunId"] != children[2].data.tags["mlflow.parentRunId"]
    )


def failing_fold(error: BaseException) -> None:
    with track_fold(CHOICES, 1, PARAMS) as log:
        log.metrics({"train_loss": 1.0}, step=1)
        raise error


@pytest.mark.parametrize("error", [FloatingPointError("the loss is nan"), KeyboardInterrupt()])
def test_a_training_that_fails_is_marked_so_and_its_error_goes_on(
    project: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        failing_fold(error)
    _, children = runs(project)
    assert children[1].info.status == "FAILED"


def test_numbers_that_are_not_finite_are_left_out(project: Path) -> None:
    with track_fold(CHOICES, 1, PARAMS) as log:
        log.metrics({"a": 1.0, "b": float("nan"), "c": float("inf")})
    assert runs(project)[1][1].data.metrics == {"a": 1.0}


def test_an_unreachable_server_costs_a_warning_and_not_the_training(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.warns(UserWarning, match="the files hold everything"):
        assert run_fold(1) == len(CURVE)
    with pytest.warns(UserWarning, match="the files hold everything"):
        aggregate()


def test_a_server_that_goes_away_costs_one_warning(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object, **options: object) -> None:
        raise MlflowException("the server is gone\nat length")

    with warnings.catch_warnings(record=True) as caught, track_fold(CHOICES, 1, PARAMS) as log:
        warnings.simplefilter("always")
        monkeypatch.setattr(log.client, "log_batch", gone)
        for line in CURVE:
            log.metrics(line, step=int(line["epoch"]))
    messages = [str(warning.message) for warning in caught if "MLflow" in str(warning.message)]
    assert messages == [
        "MLflow: the server is gone; going on without it, the files hold everything"
    ]


def test_the_tables_are_attached_and_no_picture_is(project: Path) -> None:
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


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("No module named 'psycopg'"), TimeoutError()]
)
def test_a_missing_driver_or_a_silent_error_costs_a_warning_and_not_the_training(
    error: Exception, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("pipeline.tracking.Store.__init__", fail)
    with pytest.warns(UserWarning, match="MLflow: .+; going on without it"):
        assert run_fold(1) == len(CURVE)
