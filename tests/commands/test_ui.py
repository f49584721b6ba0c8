import os
import shutil
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from commands import ui
from pipeline.tracking.database import sqlite_uri


class Replaced(BaseException):
    """In the place of a process that becomes MLflow."""


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the process is replaced by."""
    command: list[str] = []

    def execute(program: str, arguments: list[str]) -> None:
        assert program == arguments[0]
        command.extend(arguments)
        raise Replaced

    monkeypatch.setattr(os, "execv", execute)
    monkeypatch.setattr(sys, "argv", ["ui"])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return command


def test_the_pages_of_a_copied_project_show_the_artifacts_of_the_copy(
    tmp_path: Path,
    executed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, new = tmp_path / "old 1", tmp_path / "new 2"
    old.mkdir()
    client = MlflowClient(sqlite_uri(old / "mlflow.db"))
    number = client.create_experiment("dfer-sample", (old / "mlartifacts").as_uri())
    client.create_run(number)
    shutil.copytree(old, new)
    monkeypatch.chdir(new)
    with pytest.raises(Replaced):
        ui.main()
    assert "mlflow.db was made in" in capsys.readouterr().out
    uri = f"sqlite:///{tmp_path}/new 2/mlflow.db"
    assert executed[:4] == [sys.executable, "-m", "mlflow", "server"]
    options = dict(zip(executed[4::2], executed[5::2], strict=True))
    assert options == {
        "--backend-store-uri": uri,
        "--host": "127.0.0.1",
        "--port": "5000",
        "--workers": "1",
    }
    (run,) = MlflowClient(uri).search_runs([number])
    place = f"{(new / 'mlartifacts').as_uri()}/{run.info.run_id}/artifacts"
    assert run.info.artifact_uri == place


def test_before_the_first_run_mlflow_makes_the_database(
    tmp_path: Path, executed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Replaced):
        ui.main()
    assert f"sqlite:///{tmp_path}/mlflow.db" in executed
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_mlflow_has_not_filled_is_left_to_it(
    tmp_path: Path, executed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(Replaced):
        ui.main()
    assert f"sqlite:///{tmp_path}/mlflow.db" in executed


def test_of_a_server_the_address_is_printed(
    executed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    ui.main()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "MLflow's pages are at http://127.0.0.1:9"
    assert said[1].startswith("it does not answer: ")
    assert executed == []
