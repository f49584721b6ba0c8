"""The files of a trained fold: the same in every run, so without what a clock says.

model.safetensors   weights; the header tells whom they have seen
model.json          all parameters, fold and metrics
history.csv         a row per epoch
predictions.parquet a row per test picture
constant.parquet    what a predictor says of them that looks at none
metrics.json        scores of the test
tuning.json         thresholds of the action units, and the radius of smoothing
submission.txt      answers to the set's test list, where it has one
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from safetensors.torch import save_file
from torch import nn

from pipeline.affect.labels import AUS
from pipeline.affect.metrics import Answers, Scores, Truth, constant_answers, score
from pipeline.affect.predictions import Evaluation, predictions_table
from pipeline.affect.tuning import Tuning
from pipeline.common.encoder_weights import History
from pipeline.common.files import atomic_path, write_json
from pipeline.training.history import MEASURED, Epoch

MODEL, DESCRIPTION, HISTORY = "model.safetensors", "model.json", "history.csv"
PREDICTIONS, CONSTANT, METRICS = "predictions.parquet", "constant.parquet", "metrics.json"
TUNING, SUBMISSION = "tuning.json", "submission.txt"


class Tested(NamedTuple):
    """What a fold's test says.

    Attributes:
        evaluation: Of the test pictures.
        answers: Of the model.
        constant: Of the constant predictor.
        tuning: How probabilities became answers.
    """

    evaluation: Evaluation
    answers: Answers
    constant: Answers
    tuning: Tuning


def constant_of(training: Truth, tested: Evaluation) -> Answers:
    """What the constant predictor says of the test pictures."""
    return constant_answers(training, len(tested.ids), tested.expression.shape[1])


def metrics_of(scores: Scores) -> dict[str, float]:
    """Scores by name; those that have no labels are left out."""
    named = {
        "p_mtl": scores.p_mtl,
        "valence_ccc": scores.valence,
        "arousal_ccc": scores.arousal,
        "va_ccc": scores.valence_arousal,
        "expression_f1": scores.expression,
        "au_f1": scores.mean_au,
    }
    return {name: value for name, value in named.items() if math.isfinite(value)}


def write_fold(
    out: Path,
    fold: int,
    tested: Tested,
    history: list[Epoch],
    classes: tuple[str, ...],
    more: Mapping[str, float],
) -> dict[str, float]:
    """Write the tables of a fold; its metrics come back.

    Args:
        out: To write.
        fold: Its number.
        tested: Of the model with its best epoch.
        history: A row per epoch.
        classes: Expressions.
        more: Metrics beside the scores.
    """
    out.mkdir(parents=True, exist_ok=True)
    evaluation = tested.evaluation
    for name, answers in ((PREDICTIONS, tested.answers), (CONSTANT, tested.constant)):
        with atomic_path(out / name) as temporary:
            table = predictions_table(evaluation, answers, fold, classes)
            if name == CONSTANT:
                table = table.loc[:, ~table.columns.str.startswith("probability_")]
            table.to_parquet(temporary, index=False)
    with atomic_path(out / HISTORY) as temporary:
        table = pd.DataFrame(history).drop(columns=[*MEASURED])
        table.to_csv(temporary, index=False, float_format="%.6g")
    found = score(tested.answers, evaluation.truth, len(classes))
    metrics = {**metrics_of(found), **more}
    write_json(out / METRICS, metrics)
    write_tuning(out, tested.tuning)
    return metrics


def write_tuning(out: Path, tuning: Tuning) -> None:
    """Write how probabilities became answers."""
    thresholds = dict(zip(map(str, AUS), tuning.thresholds.tolist(), strict=True))
    write_json(out / TUNING, {"thresholds": thresholds, "radius": tuning.radius})


def write_model(
    out: Path, model: nn.Module, description: Mapping[str, Any], history: History
) -> None:
    """Write the weights, and beside them what was trained.

    Args:
        out: Folder.
        model: Not wrapped.
        description: All parameters, fold and metrics.
        history: Whom the weights have seen.
    """
    tensors = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    with atomic_path(out / MODEL) as temporary:
        save_file(tensors, temporary, metadata=history.header())
    write_json(out / DESCRIPTION, dict(description))


class FoldFiles(NamedTuple):
    """What `write_fold` and `write_model` wrote."""

    history: pd.DataFrame
    metrics: dict[str, float]
    predictions: pd.DataFrame
    constant: pd.DataFrame
    description: dict[str, Any]


def read_fold_files(folder: Path) -> FoldFiles:
    """The files of a fold."""
    return FoldFiles(
        pd.read_csv(folder / HISTORY),
        json.loads((folder / METRICS).read_text(encoding="utf-8")),
        pd.read_parquet(folder / PREDICTIONS),
        pd.read_parquet(folder / CONSTANT),
        json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")),
    )


def expression_only(evaluation: Evaluation) -> Evaluation:
    """The evaluation of a model that says nothing of valence, arousal and action units."""
    truth = evaluation.truth
    hidden = truth._replace(
        valence_arousal_known=np.zeros_like(truth.valence_arousal_known),
        aus_known=np.zeros_like(truth.aus_known),
    )
    return evaluation._replace(truth=hidden)
