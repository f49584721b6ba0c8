import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.evaluation.fold_files import TrainedFold, read_fold_files, shared_parameters


def written(folder: Path, **metadata: Any) -> TrainedFold:
    """A fold as finetune leaves it, read again."""
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({"metadata": metadata}))
    (folder / "metrics.json").write_text(json.dumps({"uar": 0.5}))
    pd.DataFrame({"epoch": [1]}).to_csv(folder / "history.csv", index=False)
    pd.DataFrame({"clip": ["a"]}).to_parquet(folder / "predictions.parquet")
    return read_fold_files(folder)


def test_folds_of_one_experiment_differ_in_what_is_of_the_fold_alone(tmp_path: Path) -> None:
    folds = {
        number: written(
            tmp_path / f"fold{number}",
            seed=1,
            fold=number,
            metrics={"uar": number / 10},
            clip_seconds=3.0 + number,
        )
        for number in (1, 2)
    }
    assert shared_parameters(folds) == {"seed": 1}


def test_folds_of_two_experiments_are_told_apart(tmp_path: Path) -> None:
    folds = {seed: written(tmp_path / f"fold{seed}", seed=seed, fold=seed) for seed in (1, 2)}
    with pytest.raises(ValueError, match="folds 1 and 2 were trained with other values of seed"):
        shared_parameters(folds)
