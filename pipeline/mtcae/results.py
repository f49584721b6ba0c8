"""The files of a fold beside its model: the same in every run, so without what a clock says."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pipeline.common.clips import Times
from pipeline.common.files import atomic_path, write_json
from pipeline.mtcae.optimistic import Optimistic
from pipeline.mtcae.predictions import Evaluation, predictions_table
from pipeline.scores.advice import advice
from pipeline.scores.metrics import recalls
from pipeline.training.history import MEASURED, Epoch


class FoldResult(NamedTuple):
    """What a test says: a row per clip, and the numbers that are finite."""

    predictions: pd.DataFrame
    metrics: dict[str, float]


def fold_result(
    tested: Evaluation,
    fold: int,
    classes: Sequence[str],
    times: Mapping[str, Times],
    optimistic: Optimistic | None,
) -> FoldResult:
    """Predictions and metrics of the test clips of a fold.

    Predictions say in `times` when the frames of their boxes and points are shown. With the best
    epoch on the test clips they have a column `predicted_optimistic`, and metrics `uar_optimistic`,
    `war_optimistic`, `epoch_optimistic`.
    """
    predictions = predictions_table(tested, fold, classes)
    place = list(predictions).index("points") + 1
    predictions.insert(place, "times", predictions["clip"].map(times))
    scores = recalls(tested.labels, tested.probabilities.argmax(axis=1), len(classes))
    metrics = {
        "uar": scores.uar,
        "war": scores.war,
        "box_iou": float(predictions["box_iou"].mean()),
        "landmark_error": float(predictions["landmark_error"].mean()),
        "interocular_error": float(predictions["interocular_error"].mean()),
        "num_test_clips": len(predictions),
    }
    if optimistic:
        indices = predictions["clip"].map(optimistic.predicted)
        predictions["predicted_optimistic"] = [classes[i] for i in indices]
        metrics |= {
            "uar_optimistic": optimistic.uar,
            "war_optimistic": optimistic.war,
            "epoch_optimistic": optimistic.epoch,
        }
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return FoldResult(predictions, finite)


def in_words(result: FoldResult, history: list[Epoch], num_classes: int) -> list[str]:
    """What a fold came to, for the terminal.

    Args:
        result: With `best_epoch` among its metrics.
        history: Of the training.
        num_classes: That occur in the data set.
    """
    predictions, metrics = result
    lines = [
        f"test UAR {metrics['uar']:.1%}, WAR {metrics['war']:.1%} on {len(predictions)} clips of "
        f"{predictions['subject'].nunique()} subjects; epoch {metrics['best_epoch']} of "
        f"{len(history)}"
    ]
    if "uar_optimistic" in metrics:
        lines.append(
            f"the best epoch on the test clips themselves, {metrics['epoch_optimistic']}, has a "
            f"UAR of {metrics['uar_optimistic']:.1%}"
        )
    if line := advice([row["validation_uar"] for row in history], num_classes):
        lines.append(line)
    return lines


def write_tables(
    out: Path, history: list[Epoch], predictions: pd.DataFrame, metrics: dict[str, float]
) -> None:
    """Write history.csv, predictions.parquet and metrics.json."""
    with atomic_path(out / "history.csv") as temporary:
        pd.DataFrame(history).drop(columns=[*MEASURED]).to_csv(temporary, index=False)
    with atomic_path(out / "predictions.parquet") as temporary:
        predictions.to_parquet(temporary, index=False)
    write_json(out / "metrics.json", metrics)
