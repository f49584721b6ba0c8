"""The trained folds of an experiment, read together: by seed, then by fold."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pipeline.affect.results import FoldFiles, read_fold_files
from pipeline.affect.summary import Pooled, pool

Trainings = Mapping[int, Mapping[int, FoldFiles]]
"""Files by seed and fold."""


class Found(NamedTuple):
    """What was found of all trainings.

    Attributes:
        model: Pooled answers of each seed.
        constant: Pooled answers of the constant predictor.
        classes: Expressions.
    """

    model: list[Pooled]
    constant: Pooled
    classes: list[str]


def read_trainings(runs: Path, seeds: Sequence[int], folds: Sequence[int]) -> Trainings:
    """What stage train wrote of every seed and fold."""
    return {
        seed: {fold: read_fold_files(runs / f"fold{fold}-seed{seed}") for fold in folds}
        for seed in seeds
    }


def first_of(files: Trainings) -> FoldFiles:
    """Any of them, for what they have in common."""
    return next(iter(next(iter(files.values())).values()))


def pool_all(files: Trainings) -> Found:
    """The test pictures of all folds, of each seed."""
    classes: list[str] = first_of(files).description["classes"]
    model = [pool([one.predictions for one in folds.values()], classes) for folds in files.values()]
    folds = next(iter(files.values()))
    return Found(model, pool([one.constant for one in folds.values()], classes), classes)


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Without what is no number, to six places."""
    return {name: round(value, 6) for name, value in values.items() if isfinite(value)}


def rows_of(history: pd.DataFrame) -> list[dict[str, float]]:
    """A dict per epoch."""
    return [{str(name): value for name, value in row.items()} for row in history.to_dict("records")]


def fold_table(files: Trainings) -> pd.DataFrame:
    """A row of scores per training."""
    rows = [
        {"seed": seed, "fold": fold, **one.metrics}
        for seed, folds in files.items()
        for fold, one in folds.items()
    ]
    return pd.DataFrame(rows).drop(columns="num_parameters").round(4)


def history_table(files: Trainings) -> pd.DataFrame:
    """A row per training and epoch, for the plots."""
    return pd.concat(
        [
            one.history.assign(training=f"fold {fold}, seed {seed}")
            for seed, folds in files.items()
            for fold, one in folds.items()
        ],
        ignore_index=True,
    )
