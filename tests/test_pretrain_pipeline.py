"""Pre-training through DVC, on a small set, and the other pipeline that starts from it."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from clones import Run, client_of, mlflow_runs, new_clone, undescribed

from pipeline.common.encoder_weights import history_in, read_history

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A small pre-training that was run once."""
    folder = tmp_path_factory.mktemp("clone")
    run = new_clone(folder)
    path = folder / "pretrain/params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["sources"]["rendered"] |= {"num_subjects": 3}
    params["recipes"]["quick"]["engine"] |= {"epochs": 2, "early_stop": 2}
    params["recipes"]["quick"]["schedule"]["warmup_epochs"] = 1
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    run("dvc", "repro", "pretrain/dvc.yaml")
    return folder, run


def test_an_encoder_comes_out_with_its_history_and_pictures(clone: tuple[Path, Run]) -> None:
    folder, run = clone
    quality = json.loads((folder / "pretrain/metrics/data_quality.json").read_text("utf-8"))
    assert (quality["files"], quality["samples"], quality["refused"]) == (21, 21, 0)
    history = pd.read_csv(folder / "pretrain/metrics/history.csv")
    assert history["epoch"].tolist() == [1, 2]
    seen = read_history(folder / "data/pretrained/encoder.safetensors")
    assert seen.groups == {"rendered faces": ["Actor_01", "Actor_02", "Actor_03"]}
    page = (folder / "reports/pretrain/index.html").read_text("utf-8")
    assert "epoch0001.png" in page
    assert (folder / "reports/pretrain/epoch0002.png").is_file()
    assert "up to date" in run("dvc", "status", "pretrain/dvc.yaml")
    described = ["pretrain/metrics/*.json", "pretrain/metrics/*.csv"]
    described += ["data/pretrain/*/samples.parquet"]
    assert undescribed(folder, *described) == set()
    client = client_of(folder)
    (logged,) = mlflow_runs(folder, "pretraining-rendered")
    assert logged.info.status == "FINISHED"
    # Faces go nowhere unless report.frames wants it.
    assert client.list_artifacts(logged.info.run_id) == []
    points = client.get_metric_history(logged.info.run_id, "validation/loss")
    assert [point.step for point in points] == [1, 2]


def test_pictures_go_to_mlflow_where_they_are_wanted(clone: tuple[Path, Run]) -> None:
    folder, run = clone
    run("dvc", "exp", "run", "pretrain/dvc.yaml", "-S", "pretrain/params.yaml:report.frames=true")
    client = client_of(folder)
    (logged,) = mlflow_runs(folder, "pretraining-rendered")
    names = {Path(file.path).name for file in client.list_artifacts(logged.info.run_id, "look")}
    assert {"epoch0001.png", "epoch0002.png"} <= names


def test_the_other_pipeline_starts_from_the_encoder(clone: tuple[Path, Run]) -> None:
    folder, run = clone
    shutil.copy(folder / "data/pretrained/encoder.safetensors", folder / "weights/mine.safetensors")
    run("dvc", "exp", "run", "-S", "encoder.weights=mine.safetensors", "weights")
    seen = history_in(folder / "data/weights/mine.safetensors")
    assert seen.groups == {"rendered faces": ["Actor_01", "Actor_02", "Actor_03"]}
