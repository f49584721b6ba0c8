"""The experiment as a page of Markdown: its folds, its classes, and what it has to beat."""

from math import isfinite

import numpy as np
import pandas as pd

from pipeline.evaluation.comparison import beside_linear
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.statistics import why_no_interval
from pipeline.evaluation.summary import (
    Scores,
    classes_without_clips,
    confusion_table,
    fold_table,
    per_class_table,
)


def markdown(
    title: str,
    predictions: pd.DataFrame,
    classes: list[str],
    scores: Scores,
    comparison: pd.DataFrame,
) -> str:
    """The experiment as a page of Markdown tables, in percent.

    Args:
        title: Of the page.
        predictions: Of all folds (see `predictions_table`).
        classes: C names.
        scores: From `score_experiment`.
        comparison: From `compare`, of this experiment.
    """
    folds = fold_table(predictions, classes)
    per_class = per_class_table(predictions, classes)
    confusions = confusion_table(predictions, classes)
    percent = folds.assign(
        uar=folds["uar"].map("{:.2%}".format),
        war=folds["war"].map("{:.2%}".format),
        box_iou=folds["box_iou"].map("{:.3f}".format),
        landmark_error=folds["landmark_error"].map("{:.3f}".format),
    ).astype(str)
    totals = pd.DataFrame(
        [
            {
                "fold": row,
                "uar": _percent(getattr(scores.uar, key)),
                "war": _percent(getattr(scores.war, key)),
            }
            for row, key in (
                ("mean", "mean"),
                ("std", "std"),
                ("pooled", "pooled"),
                ("pooled, 95 % from", "low"),
                ("pooled, 95 % to", "high"),
            )
        ]
    )
    rows = pd.concat([percent, totals]).fillna("").replace("nan", "-")
    recalls_in_percent = per_class.assign(recall=per_class["recall"].map(_percent))
    parts = [
        f"# {title}",
        "UAR is the mean of the classes' recalls, WAR the accuracy. Every subject is tested in "
        "exactly one fold, by a model that never saw them. Box IoU and landmark error (a fraction "
        "of the distance between the eyes) compare with MTCNN, not with marks made by people. The "
        "interval is a bootstrap over subjects (docs/tables.md).",
        markdown_table(rows),
        *notes(predictions, classes, has_interval=isfinite(scores.uar.low)),
        "## Beside what needs no network",
        markdown_table(baseline_rows(comparison)),
        *beside_linear(comparison),
        "The linear model is logistic regression on the pixels of the faces, aligned by their "
        "landmarks, 24 x 24 and grey; chance is that of the classes that occur (docs/tables.md).",
        f"Macro-F1 {_percent(scores.macro_f1)}, expected calibration error "
        f"{_percent(scores.calibration_error)}.",
        "## Recall per class, all folds",
        markdown_table(recalls_in_percent),
        "## Confusion, all folds (rows: true, columns: predicted; clips and share of the row)",
        markdown_table(_with_shares(confusions).reset_index()),
    ]
    return "\n\n".join(parts) + "\n"


def baseline_rows(comparison: pd.DataFrame) -> pd.DataFrame:
    """A structure and the baselines as people read them: pooled scores in per cent.

    Args:
        comparison: From `compare`, of one experiment.
    """
    columns: dict[str, object] = {"system": comparison["structure"]}
    for name in ("uar", "war"):
        columns[f"{name.upper()} pooled [95 %]"] = [
            _with_interval(*row)
            for row in comparison[[f"{name}_{key}" for key in ("pooled", "low", "high")]].to_numpy()
        ]
    return pd.DataFrame(columns)


def _with_interval(value: float, low: float, high: float) -> str:
    ends = "" if np.isnan(low) else f" [{_percent(low)}, {_percent(high)}]"
    return _percent(value) + ends


def notes(predictions: pd.DataFrame, classes: list[str], *, has_interval: bool) -> list[str]:
    """What a reader must know of the scores: classes that do not occur, intervals that are none."""
    found = []
    if missing := classes_without_clips(predictions, classes):
        found.append(
            f"No clip of {', '.join(missing)} was tested: UAR is over the "
            f"{len(classes) - len(missing)} other classes, and chance is that of these."
        )
    if not has_interval:
        reason = why_no_interval(predictions["subject"].nunique())
        found.append(f"{reason[0].upper()}{reason[1:]}.")
    return found


def _with_shares(confusions: pd.DataFrame) -> pd.DataFrame:
    shares = confusions.div(confusions.sum(axis=1).clip(lower=1), axis=0)
    percent = shares.map(" ({:.0%})".format)
    return confusions.astype(str) + percent


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2%}"
