import shutil
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Barrier

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from pipeline.tracking import runs
from pipeline.tracking.database import database_file, mend_places, sqlite_uri, tracking_uri
from pipeline.tracking.experiment import TrackedExperiment
from pipeline.tracking.names import AGGREGATED
from pipeline.tracking.observer import FoldFiles, log_experiment, track_fold

CHOICES: dict[str, str | int] = {
    "dataset": "sample",
    "arch": "stl",
    "decoder": "vit",
    "model": "tiny",
    "recipe": "quick",
    "seed": 1,
}
ODD = "a b%41 'c' ?d=1#é_"


@pytest.fixture(params=["plain", ODD])
def old(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A project with an empty store as the current folder; models are small text files."""
    folder = tmp_path / str(request.param) / "old"
    folder.mkdir(parents=True)
    shutil.copy(empty_store, folder)
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)

    def package(weights: Path, folder: Path) -> None:
        folder.mkdir()
        shutil.copy(weights, folder / "MLmodel")

    monkeypatch.setattr(runs, "package_model", package)
    return folder


def train(project: Path, seed: int) -> str:
    """Log an experiment whose table and model hold its seed; the id of the fold's run."""
    experiment = TrackedExperiment({**CHOICES, "seed": seed}, {}, "0" * 64)
    with track_fold(experiment, 1) as log:
        log.metrics({"uar": 0.5})
    table, model = project / "table.md", project / "model.safetensors"
    for file in (table, model):
        file.write_text(f"seed {seed}", encoding="utf-8")
    folds = {1: FoldFiles([], {"uar": 0.5})}
    log_experiment(experiment, folds, {"uar_pooled": 0.5}, [table], {1: model}, {})
    return log.run_id


def register(project: Path, run_id: str) -> None:
    """Enter the model of a fold in MLflow's registry."""
    client = client_of(project)
    outputs = client.get_run(run_id).outputs
    assert outputs
    client.create_registered_model("faces")
    client.create_model_version("faces", f"models:/{outputs.model_outputs[0].model_id}")
    model = client.get_logged_model(outputs.model_outputs[0].model_id)
    client.create_model_version("faces", model.artifact_location)


def client_of(project: Path) -> MlflowClient:
    return MlflowClient(sqlite_uri(project / "mlflow.db"))


def files_of(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def logged(project: Path, name: str) -> list[str]:
    """What the artifacts of that name hold."""
    return sorted(path.read_text() for path in (project / "mlartifacts").rglob(name))


def dump(project: Path) -> str:
    """All that the database holds."""
    with closing(sqlite3.connect(project / "mlflow.db")) as connection:
        return "\n".join(connection.iterdump())


def test_a_copied_project_goes_on_in_the_copy_and_leaves_the_old_folder_alone(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fold = train(old, seed=1)
    register(old, fold)
    assert capsys.readouterr().out == ""
    new = old.with_name("new ü%20")
    shutil.copytree(old, new)
    before = files_of(old)
    monkeypatch.chdir(new)
    train(new, seed=2)
    assert capsys.readouterr().out == (
        f"mlflow.db was made in {old}; its artifacts are now looked for in {new / 'mlartifacts'}\n"
    )
    train(new, seed=3)
    assert capsys.readouterr().out == ""
    assert files_of(old) == before
    assert logged(old, "table.md") == ["seed 1"]
    assert logged(new, "table.md") == logged(new, "MLmodel") == ["seed 1", "seed 2", "seed 3"]

    shutil.rmtree(old)
    assert old.as_uri() not in dump(new)
    client = client_of(new)
    (parent,) = client.search_runs(
        [client.get_run(fold).info.experiment_id],
        f"tags.seed = '1' and tags.`{AGGREGATED}` = 'yes'",
    )
    assert parent.info.artifact_uri.startswith((new / "mlartifacts").as_uri() + "/")
    (table,) = client.list_artifacts(parent.info.run_id)
    copy = client.download_artifacts(parent.info.run_id, table.path, str(tmp_path))
    assert Path(copy).read_text(encoding="utf-8") == "seed 1"
    for version in ("1", "2"):
        loaded = download_artifacts(
            client.get_model_version_download_uri("faces", version),
            tracking_uri=sqlite_uri(new / "mlflow.db"),
        )
        assert (Path(loaded) / "MLmodel").read_text() == "seed 1"


@pytest.mark.parametrize("name", ["My Drive", "é#1+2"])
def test_a_folder_with_a_space_gets_no_empty_twin(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    MlflowClient(tracking_uri()).search_experiments()
    assert [path.relative_to(tmp_path) for path in tmp_path.iterdir()] == [Path(name)]
    assert (tmp_path / name / "mlflow.db").is_file()


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "absolute"])
@pytest.mark.parametrize("old", ["plain"], indirect=True)
def test_a_moved_project_that_names_its_own_database_goes_on_in_the_new_folder(
    uri: str, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(old, seed=1)
    new = old.rename(old.with_name("new"))
    monkeypatch.chdir(new)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("absolute", f"sqlite:///{new}/mlflow.db"))
    train(new, seed=2)
    assert not old.exists()
    assert logged(new, "table.md") == ["seed 1", "seed 2"]


def add_places(database: Path, experiments: list[str], runs: list[str]) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        for i, place in enumerate(experiments, start=1):
            connection.execute(
                "INSERT INTO experiments (experiment_id, name, artifact_location) VALUES (?, ?, ?)",
                (i, f"experiment {i}", place),
            )
        for i, place in enumerate(runs):
            connection.execute(
                "INSERT INTO runs (run_uuid, artifact_uri) VALUES (?, ?)", (str(i), place)
            )


def places(database: Path) -> tuple[list[str], list[str]]:
    """Of experiments, but for MLflow's own, and of runs."""
    with closing(sqlite3.connect(database)) as connection:
        experiments = connection.execute(
            "SELECT artifact_location FROM experiments WHERE experiment_id > 0 ORDER BY 1"
        )
        of_runs = connection.execute("SELECT artifact_uri FROM runs ORDER BY run_uuid")
        return [place for (place,) in experiments], [place for (place,) in of_runs]


def test_only_what_is_in_the_old_folder_is_moved_and_all_old_folders_are_known(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = (project / "mlartifacts").as_uri()
    add_places(
        project / "mlflow.db",
        ["file:///a%25b_/mlartifacts", "file:///c/mlartifacts"],
        [
            "file:///a%25b_/mlartifacts/1/mlartifacts/artifacts",
            "file:///c/mlartifacts/2/artifacts",
            "file:///aXX25bX/mlartifacts/3/artifacts",
            "file:///c/mlartifacts2/4/artifacts",
            "s3://bucket/file:///c/mlartifacts/5/artifacts",
        ],
    )
    mend_places(project / "mlflow.db")
    assert places(project / "mlflow.db") == (
        [here, here],
        [
            f"{here}/1/mlartifacts/artifacts",
            f"{here}/2/artifacts",
            "file:///aXX25bX/mlartifacts/3/artifacts",
            "file:///c/mlartifacts2/4/artifacts",
            "s3://bucket/file:///c/mlartifacts/5/artifacts",
        ],
    )
    assert "mlflow.db was made in /a%b_ and /c; its artifacts" in capsys.readouterr().out


@pytest.mark.parametrize(
    "place",
    [
        "s3://bucket/mlartifacts",
        "mlflow-artifacts:/1",
        "file:///old/mlruns",
        "file:///old/MLARTIFACTS",
        "/old/mlartifacts",
    ],
)
def test_places_that_this_project_does_not_give_are_left_alone(
    place: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = project / "mlflow.db"
    add_places(database, [place], [f"{place}/1/artifacts"])
    before = database.read_bytes()
    mend_places(database)
    assert database.read_bytes() == before
    assert capsys.readouterr().out == ""


def test_a_database_that_other_projects_may_share_is_left_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = project / "mlflow.db"
    add_places(database, ["file:///old/mlartifacts"], [])
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    # By a link too.
    (elsewhere / "mlflow.db").symlink_to(database)
    for name in (database, elsewhere / "mlflow.db"):
        mend_places(name)
    assert places(database) == (["file:///old/mlartifacts"], [])


@contextmanager
def lock(database: Path) -> Iterator[None]:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")


def test_trainings_that_start_at_once_mend_it_once_and_wait_for_each_other(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = project / "mlflow.db"
    uris = [f"file:///old/mlartifacts/{i}/artifacts" for i in range(100)]
    add_places(database, ["file:///old/mlartifacts"], uris)
    barrier = Barrier(5)

    def start() -> None:
        barrier.wait()
        mend_places(database)

    with ThreadPoolExecutor(4) as threads:
        with lock(database):
            done = [threads.submit(start) for _ in range(4)]
            barrier.wait()
            time.sleep(0.3)
            assert not any(one.done() for one in done)
        for one in done:
            one.result()
    here = (project / "mlartifacts").as_uri()
    assert places(database)[0] == [here]
    assert set(places(database)[1]) == {f"{here}/{i}/artifacts" for i in range(100)}
    assert capsys.readouterr().out.count("was made in /old;") == 1


def trained_epochs() -> int:
    """Of a training that tells MLflow about each."""
    epochs = 0
    with track_fold(TrackedExperiment(CHOICES, {}, "0" * 64), 1) as log:
        for epoch in (1, 2):
            log.metrics({"train_loss": 1.0}, step=epoch)
            epochs += 1
    return epochs


def test_what_fails_half_way_changes_nothing_and_costs_the_training_nothing(
    project: Path,
) -> None:
    database = project / "mlflow.db"
    uris = [f"file:///old/mlartifacts/{i}/artifacts" for i in range(2)]
    add_places(database, ["file:///old/mlartifacts"], uris)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON runs WHEN old.run_uuid = '1' "
            "BEGIN SELECT RAISE(ABORT, 'no more room'); END"
        )
    with pytest.warns(UserWarning, match="no more room; going on without it"):
        assert trained_epochs() == 2
    assert places(database) == (["file:///old/mlartifacts"], uris)


@pytest.mark.parametrize(
    ("variable", "uri", "file"),
    [
        ("", "sqlite:///{escaped}/mlflow.db", "{root}/mlflow.db"),
        ("sqlite:///runs/a%20b.db", "sqlite:///{escaped}/runs/a%20b.db", "{root}/runs/a b.db"),
        ("sqlite:////x/a%3Fb.db?timeout=9", "sqlite:////x/a%3Fb.db?timeout=9", "/x/a?b.db"),
        ("./mlruns", "file://{encoded}/mlruns", None),
        ("runs/a?b%20c/", "file://{encoded}/runs/a%3Fb%20c", None),
        ("file:./mlruns", "file://{encoded}/mlruns", None),
        ("file:a%3Fb", "file://{encoded}/a%3Fb", None),
        ("file:///x/mlruns", "file:///x/mlruns", None),
        ("/x/mlruns", "/x/mlruns", None),
        ("databricks", "databricks", None),
        ("databricks-uc", "databricks-uc", None),
        ("databricks://profile", "databricks://profile", None),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000", None),
        ("postgresql://user@host/mlflow", "postgresql://user@host/mlflow", None),
    ],
)
def test_the_store_is_what_the_environment_says_or_in_the_project(
    variable: str,
    uri: str,
    file: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = tmp_path / ODD
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    encoded = f"{tmp_path}/a%20b%2541%20%27c%27%20%3Fd%3D1%23%C3%A9_"
    escaped = f"{tmp_path}/a b%2541 'c' %3Fd=1#é_"
    assert tracking_uri() == uri.format(encoded=encoded, escaped=escaped)
    assert database_file(tracking_uri()) == (Path(file.format(root=root)) if file else None)
