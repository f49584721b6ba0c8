import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small import baselines

from stages import aggregate
from stages.aggregate import Params, main

CLASSES = ["happy", "sad"]


def parameters(folds: list[int]) -> Params:
    choices = {"dataset": "tiny", "arch": "stl", "decoder": "vit", "model": "small"}
    return Params.model_validate(
        choices
        | {"recipe": "quick", "seed": 1, "folds": folds, "classes": CLASSES}
        | {"tracking": {"log_models": False}}
    )


def write_fold(folder: Path, fold: int, predicted: str) -> None:
    """A trained fold that tested one sad clip, and was trained for as many epochs as its number."""
    folder.mkdir(parents=True)
    table = pd.DataFrame(
        {
            "fold": [fold],
            "clip": f"clip{fold}",
            "subject": f"subject{fold}",
            "actual": "sad",
            "predicted": predicted,
            "box_iou": np.nan,
            "landmark_error": np.nan,
            "probability_happy": 0.5,
            "probability_sad": 0.5,
        }
    )
    table.to_parquet(folder / "predictions.parquet", index=False)
    history = pd.DataFrame({"epoch": range(1, fold + 1), "train_loss": 0.5})
    history.to_csv(folder / "history.csv", index=False)
    (folder / "metrics.json").write_text(json.dumps({"num_parameters": 7}), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three trained folds, of which the third errs, with a file beside them; nothing is logged."""
    for fold, predicted in ((1, "sad"), (2, "sad"), (3, "happy")):
        write_fold(tmp_path / f"runs/fold{fold}", fold, predicted)
    (tmp_path / "runs/fold3.txt").write_text("a note")
    (tmp_path / "clips.parquet").touch()
    monkeypatch.setattr(aggregate, "log_experiment", lambda *_: None)
    return tmp_path


def run(project: Path, folds: list[int]) -> dict[str, Any]:
    """The summary of these folds."""
    pooled, out = project / "predictions.parquet", project / "metrics"
    tested = [pd.read_parquet(project / f"runs/fold{fold}/predictions.parquet") for fold in folds]
    baselines(pd.concat(tested), CLASSES).to_parquet(project / "baselines.parquet", index=False)
    runs, clips = project / "runs", project / "clips.parquet"
    main(parameters(folds), runs, clips, project / "baselines.parquet", pooled, out)
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return summary


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_of_a_fold_that_is_no_longer_declared_is_moved_and_not_counted(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project, [1, 2, 3])["war"]["pooled"] == pytest.approx(2 / 3, abs=1e-6)
    assert names(project / "runs") == ["fold1", "fold2", "fold3", "fold3.txt"]
    before = (project / "runs/fold3/history.csv").read_bytes()
    assert "moved" not in capsys.readouterr().out

    assert run(project, [1, 2])["war"]["pooled"] == 1
    assert names(project / "runs") == ["fold1", "fold2", "fold3.txt", "undeclared"]
    assert names(project / "runs/undeclared") == ["fold3"]
    assert (project / "runs/undeclared/fold3/history.csv").read_bytes() == before
    assert "fold3 is of no fold in params.yaml and was moved to" in capsys.readouterr().out


def test_a_fold_that_is_moved_again_takes_the_place_of_the_older_one(project: Path) -> None:
    run(project, [1, 2])
    (project / "runs/undeclared/fold3/old.txt").touch()
    write_fold(project / "runs/fold3", 3, "sad")
    run(project, [1, 2])
    assert not (project / "runs/fold3").exists()
    predictions = pd.read_parquet(project / "runs/undeclared/fold3/predictions.parquet")
    assert predictions["predicted"].tolist() == ["sad"]
    assert "old.txt" not in names(project / "runs/undeclared/fold3")


def test_only_declared_folds_are_in_the_tables(project: Path) -> None:
    run(project, [1, 3])
    history = pd.read_csv(project / "metrics/history.csv")
    assert history.columns.tolist() == ["fold", "epoch", "train_loss"]
    assert history["fold"].tolist() == [1, 3, 3, 3]
    assert history["epoch"].tolist() == [1, 1, 2, 3]
    predictions = pd.read_parquet(project / "predictions.parquet")
    assert predictions["clip"].tolist() == ["clip1", "clip3"]
    assert pd.read_csv(project / "metrics/folds.csv")["fold"].tolist() == [1, 3]
    assert names(project / "runs/undeclared") == ["fold2"]
