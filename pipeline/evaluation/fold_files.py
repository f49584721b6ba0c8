"""What stage finetune has written of every fold."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

# What of a model's description is of its fold, and not of the experiment.
OF_ONE_FOLD = ("fold", "metrics", "clip_seconds")


class TrainedFold(NamedTuple):
    """The files of a fold.

    Attributes:
        parameters: All that its training was given, and what its encoder started from.
    """

    history: pd.DataFrame
    metrics: dict[str, float]
    predictions: pd.DataFrame
    parameters: dict[str, Any]
    model: Path


def read_fold_files(folder: Path) -> TrainedFold:
    """What stage finetune wrote."""
    description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    metadata: dict[str, Any] = description["metadata"]
    return TrainedFold(
        pd.read_csv(folder / "history.csv"),
        json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
        pd.read_parquet(folder / "predictions.parquet"),
        {name: value for name, value in metadata.items() if name not in OF_ONE_FOLD},
        folder / "model.safetensors",
    )


def shared_parameters(trained: Mapping[int, TrainedFold]) -> dict[str, Any]:
    """The parameters of the training that the folds are of.

    Raises:
        ValueError: They are not all of one.
    """
    (first, one), *others = trained.items()
    for fold, other in others:
        names = one.parameters.keys() | other.parameters.keys()
        if unlike := [n for n in sorted(names) if one.parameters.get(n) != other.parameters.get(n)]:
            raise ValueError(
                f"folds {first} and {fold} were trained with other values of {', '.join(unlike)}; "
                f"train one of them again (`dvc repro --single-item finetune@{fold}`)"
            )
    return one.parameters


def rows_of(history: pd.DataFrame) -> list[dict[str, float]]:
    """A history as a dict per epoch."""
    return [
        dict(zip(history.columns, map(float, row), strict=True))
        for row in history.itertuples(index=False, name=None)
    ]
