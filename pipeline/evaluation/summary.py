"""Scores of one experiment, out of the predictions of its folds.

Shape letters: C classes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.evaluation.statistics import NUM_RESAMPLES, subject_confusions, subject_intervals
from pipeline.scores.metrics import (
    Labels,
    Recalls,
    confusion,
    expected_calibration_error,
    macro_f1,
    recalls,
)


class FoldScore(NamedTuple):
    """UAR or WAR of an experiment, as fractions; NaN for what does not exist.

    Attributes:
        mean: Unweighted, over the folds.
        std: Over the folds, that of a sample (n - 1); none of one fold.
        pooled: Over all clips.
        low: Of the 95 % interval of the pooled value over subjects; see `why_no_interval`.
        high: Likewise.
    """

    mean: float
    std: float
    pooled: float
    low: float
    high: float


class Scores(NamedTuple):
    """The scores of an experiment, in summary.json, in MLflow, in Table I and on the page.

    Attributes:
        uar: Unweighted mean of the classes' recalls.
        war: Accuracy.
        macro_f1: Of all clips.
        calibration_error: Expected calibration error of all clips.
        box_iou: Mean over the clips; NaN for a structure without box head.
        landmark_error: Mean over the clips, in distances between the eyes; NaN likewise.
        folds: That were tested.
        clips: That were tested.
    """

    uar: FoldScore
    war: FoldScore
    macro_f1: float
    calibration_error: float
    box_iou: float
    landmark_error: float
    folds: int
    clips: int

    def nested(self) -> dict[str, Any]:
        """As in summary.json: `uar` and `war` are objects; only what exists, with six decimals."""
        values = self._asdict() | {"uar": self.uar._asdict(), "war": self.war._asdict()}
        return _finite(values)

    def flat(self) -> dict[str, float]:
        """As in MLflow and in tables: `uar_mean`, `uar_pooled` and so on."""
        flat: dict[str, float] = {}
        for name, value in self._asdict().items():
            if isinstance(value, FoldScore):
                flat |= {f"{name}_{kind}": number for kind, number in value._asdict().items()}
            else:
                flat[name] = value
        return flat


def classes_without_clips(predictions: pd.DataFrame, classes: list[str]) -> list[str]:
    """The classes of params.yaml that no tested clip shows."""
    return [name for name in classes if name not in set(predictions["actual"])]


def score(predictions: pd.DataFrame, classes: list[str]) -> Recalls:
    """UAR, WAR and recalls of the columns `actual` and `predicted`."""
    actual, predicted = (
        class_indices(predictions[column], classes) for column in ("actual", "predicted")
    )
    return recalls(actual, predicted, len(classes))


def fold_table(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """One row per fold: clips, subjects, UAR, WAR, box overlap, landmark error."""
    rows = []
    for fold, part in predictions.groupby("fold"):
        scores = score(part, classes)
        rows.append(
            {
                "fold": fold,
                "clips": len(part),
                "subjects": part["subject"].nunique(),
                "uar": scores.uar,
                "war": scores.war,
                "box_iou": part["box_iou"].mean(),
                "landmark_error": part["landmark_error"].mean(),
            }
        )
    return pd.DataFrame(rows)


def per_class_table(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """One row per class: its clips and its recall over all folds."""
    counts = predictions["actual"].value_counts()
    return pd.DataFrame(
        {
            "class": classes,
            "clips": [int(counts.get(name, 0)) for name in classes],
            "recall": score(predictions, classes).per_class,
        }
    )


def subject_table(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """One row per subject, the worst first: fold, clips, UAR, WAR."""
    rows = []
    for (subject, fold), part in predictions.groupby(["subject", "fold"]):
        scores = score(part, classes)
        rows.append(
            {
                "subject": subject,
                "fold": fold,
                "clips": len(part),
                "uar": scores.uar,
                "war": scores.war,
            }
        )
    return pd.DataFrame(rows).sort_values(["uar", "subject"], ignore_index=True)


def confusion_table(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """(C, C) counts over all folds, true classes as rows, predicted ones as columns."""
    actual, predicted = (
        class_indices(predictions[column], classes) for column in ("actual", "predicted")
    )
    return pd.DataFrame(
        confusion(actual, predicted, len(classes)),
        index=pd.Index(classes, name="actual"),
        columns=classes,
    )


def score_experiment(predictions: pd.DataFrame, classes: list[str]) -> Scores:
    """The scores of the predictions of all folds."""
    folds = fold_table(predictions, classes)
    actual, predicted = (
        class_indices(predictions[column], classes) for column in ("actual", "predicted")
    )
    counts = subject_confusions(actual, predicted, predictions["subject"], len(classes))
    uar, war = (
        FoldScore(folds[name].mean(), folds[name].std(), *interval)
        for name, interval in zip(
            ("uar", "war"),
            subject_intervals(counts, num_resamples=NUM_RESAMPLES, seed=1),
            strict=True,
        )
    )
    probabilities = predictions[[f"probability_{name}" for name in classes]].to_numpy()
    return Scores(
        uar,
        war,
        macro_f1=macro_f1(actual, predicted, len(classes)),
        calibration_error=expected_calibration_error(actual, probabilities),
        box_iou=predictions["box_iou"].mean(),
        landmark_error=predictions["landmark_error"].mean(),
        folds=len(folds),
        clips=len(predictions),
    )


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same, rounded to six decimals, without the numbers that are not finite."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            kept[name] = _finite(value)
        elif np.isfinite(value):
            kept[name] = round(value, 6)
    return kept


def class_indices(names: pd.Series, classes: list[str]) -> Labels:
    """The place of each name in the list of classes."""
    return np.array([classes.index(name) for name in names], dtype=np.int64)
