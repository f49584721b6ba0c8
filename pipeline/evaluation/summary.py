"""Scores of one system, out of the predictions of its folds.

A system is trained once, or several times with other seeds; each training has a table of
predictions, a row per tested clip.

Shape letters: K trainings, S subjects, C classes.
"""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.evaluation.statistics import (
    NUM_RESAMPLES,
    Counts,
    Interval,
    subject_confusions,
    subject_intervals,
)
from pipeline.evaluation.tables import OPTIMISTIC, class_indices, fold_table, score
from pipeline.scores.metrics import expected_calibration_error, macro_f1

# Of the flat names.
_COMPARED = (
    *(
        f"{name}_{kind}"
        for name in ("uar", "war")
        for kind in ("pooled", "pooled_low", "pooled_high")
    ),
    "landmark_error",
)


class FoldScore(NamedTuple):
    """UAR or WAR of a system, as fractions; NaN for what does not exist.

    Attributes:
        mean: Unweighted, over the folds of all trainings.
        std: Over the same folds, that of a sample (n - 1); none of one fold.
        pooled: Over all clips; of several trainings the mean.
        pooled_low: Of the 95 % interval of the pooled value over subjects; see `why_no_interval`.
        pooled_high: Likewise.
        seed_std: Of the pooled value over the trainings (n - 1); none of one training.
    """

    mean: float = nan
    std: float = nan
    pooled: float = nan
    pooled_low: float = nan
    pooled_high: float = nan
    seed_std: float = nan


class Scores(NamedTuple):
    """The scores of a system, in summary.json, in MLflow, in Table I and on the page.

    Attributes:
        uar: Unweighted mean of the classes' recalls.
        war: Accuracy.
        uar_optimistic: Of the epochs that are best on the test clips; NaN where nobody looked.
        war_optimistic: Likewise.
        macro_f1: Of all clips, and so are the following; of several trainings the mean.
        calibration_error: Expected calibration error; NaN without probabilities.
        box_iou: Mean over the clips; NaN for a structure without box head.
        landmark_error: Mean over the clips, in sizes of the face's box; NaN likewise.
        landmark_error_median: Median over the clips.
        interocular_error: Mean over the clips, in distances between the eyes.
        folds: That were tested.
        clips: That were tested.
        subjects: That were tested.
        seeds: Number of trainings K.
    """

    uar: FoldScore
    war: FoldScore
    uar_optimistic: FoldScore
    war_optimistic: FoldScore
    macro_f1: float
    calibration_error: float
    box_iou: float
    landmark_error: float
    landmark_error_median: float
    interocular_error: float
    folds: int
    clips: int
    subjects: int
    seeds: int

    def nested(self) -> dict[str, Any]:
        """As in summary.json: `uar` and the like are objects; what exists, with six decimals."""
        return _finite(
            {
                name: value._asdict() if isinstance(value, FoldScore) else value
                for name, value in self._asdict().items()
            }
        )

    def compared(self) -> dict[str, float]:
        """As in scores.json, which `dvc exp show` puts side by side: what exists, as `flat`."""
        return _finite({name: value for name, value in self.flat().items() if name in _COMPARED})

    def flat(self) -> dict[str, float]:
        """As in MLflow and in tables: `uar_mean`, `uar_pooled` and so on."""
        flat: dict[str, float] = {}
        for name, value in self._asdict().items():
            if isinstance(value, FoldScore):
                flat |= {f"{name}_{kind}": number for kind, number in value._asdict().items()}
            else:
                flat[name] = value
        return flat


def score_experiment(trainings: Sequence[pd.DataFrame], classes: list[str]) -> Scores:
    """The scores of a system, out of the predictions of all folds of each of its trainings.

    Raises:
        ValueError: The trainings were not tested on the same clips.
    """
    folds = pd.concat([fold_table(one, classes) for one in trainings])
    confusions = training_confusions(trainings, classes)
    intervals = subject_intervals(confusions, num_resamples=NUM_RESAMPLES, seed=1)
    pooled = [score(one, classes) for one in trainings]
    fold_scores = {
        name: _fold_score(folds[name], interval, [getattr(one, name) for one in pooled])
        for name, interval in zip(("uar", "war"), intervals, strict=True)
    }
    best = (FoldScore(), FoldScore())
    if all(OPTIMISTIC in one for one in trainings):
        pooled = [score(one, classes, OPTIMISTIC) for one in trainings]
        best_uar, best_war = (
            _fold_score(folds[f"{name}_optimistic"], None, [getattr(one, name) for one in pooled])
            for name in ("uar", "war")
        )
        best = (best_uar, best_war)

    def mean_of(column: str) -> float:
        return float(np.mean([one[column].mean() for one in trainings]))

    return Scores(
        fold_scores["uar"],
        fold_scores["war"],
        *best,
        macro_f1=float(np.mean([_macro_f1(one, classes) for one in trainings])),
        calibration_error=float(np.mean([_calibration_error(one, classes) for one in trainings])),
        box_iou=mean_of("box_iou"),
        landmark_error=mean_of("landmark_error"),
        landmark_error_median=float(np.mean([one["landmark_error"].median() for one in trainings])),
        interocular_error=mean_of("interocular_error"),
        folds=trainings[0]["fold"].nunique(),
        clips=len(trainings[0]),
        subjects=trainings[0]["subject"].nunique(),
        seeds=len(trainings),
    )


def training_confusions(trainings: Sequence[pd.DataFrame], classes: list[str]) -> Counts:
    """(K, S, C, C) counts of clips; see `subject_confusions`.

    Raises:
        ValueError: The trainings were not tested on the same clips.
    """
    first = set(trainings[0]["clip"])
    if any(set(one["clip"]) != first for one in trainings):
        raise ValueError(
            "the seeds were not tested on the same clips, because their folds test a part of the "
            "data set: choose a protocol and folds that test every clip, or compare one seed"
        )
    return np.stack(
        [
            subject_confusions(
                class_indices(one["actual"], classes),
                class_indices(one["predicted"], classes),
                one["subject"],
                len(classes),
            )
            for one in trainings
        ]
    )


def _fold_score(folds: pd.Series, interval: Interval | None, pooled: Sequence[float]) -> FoldScore:
    """Out of the scores of all folds, and the pooled ones of every training."""
    return FoldScore(
        mean=float(folds.mean()),
        std=float(folds.std()),
        pooled=float(np.mean(pooled)),
        pooled_low=interval.low if interval else nan,
        pooled_high=interval.high if interval else nan,
        seed_std=float(np.std(pooled, ddof=1)) if len(pooled) > 1 else nan,
    )


def _macro_f1(predictions: pd.DataFrame, classes: list[str]) -> float:
    actual, predicted = (
        class_indices(predictions[column], classes) for column in ("actual", "predicted")
    )
    return macro_f1(actual, predicted, len(classes))


def _calibration_error(predictions: pd.DataFrame, classes: list[str]) -> float:
    names = [f"probability_{name}" for name in classes]
    if not set(names) <= set(predictions):
        return nan
    actual = class_indices(predictions["actual"], classes)
    return expected_calibration_error(actual, predictions[names].to_numpy())


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same, rounded to six decimals, without the numbers that are not finite."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            if inner := _finite(value):
                kept[name] = inner
        elif np.isfinite(value):
            kept[name] = round(value, 6)
    return kept
