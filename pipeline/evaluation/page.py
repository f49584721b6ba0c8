"""The experiment as a page of Markdown: its folds, its classes, and what it has to beat."""

from math import isfinite, isnan

import pandas as pd

from pipeline.evaluation.comparison import beside_linear
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.setting import CLIPS, Setting
from pipeline.evaluation.statistics import why_no_interval
from pipeline.evaluation.summary import FoldScore, Scores
from pipeline.evaluation.tables import confusion_table, fold_table, per_class_table


def markdown(
    title: str,
    setting: Setting,
    predictions: pd.DataFrame,
    scores: Scores,
    comparison: pd.DataFrame,
) -> str:
    """The experiment as a page of Markdown tables, in percent.

    Args:
        title: Of the page.
        setting: What its numbers rest on.
        predictions: Of all folds (see `predictions_table`).
        scores: From `score_experiment`.
        comparison: From `compare`, of this experiment.
    """
    classes, groups = setting.classes, setting.coverage.groups
    per_class = per_class_table(predictions, classes)
    recalls_in_percent = per_class.assign(recall=per_class["recall"].map(_percent))
    confusions = confusion_table(predictions, classes)
    parts = [
        f"# {title}",
        f"{setting.in_a_line()}.",
        *setting.sentences(),
        "UAR is the mean of the classes' recalls, WAR the accuracy. Box IoU and landmark error (in "
        "sizes of the face's box) compare with MTCNN, not with marks made by people. The interval "
        f"is a bootstrap over {groups} (docs/tables.md).",
        markdown_table(_fold_rows(fold_table(predictions, classes), scores, groups)),
        *interval_notes(scores, groups),
        *optimistic_notes(scores.uar, scores.uar_optimistic),
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
        setting.trace(),
    ]
    return "\n\n".join(parts) + "\n"


def _fold_rows(folds: pd.DataFrame, scores: Scores, groups: str) -> pd.DataFrame:
    """A row per fold, and below them those over all folds."""
    best = "uar_optimistic" in folds
    kept = ["fold", "clips", "subjects", "uar", "war", *(["uar_optimistic"] if best else [])]
    table = folds[[*kept, "box_iou", "landmark_error"]].copy()
    for name in kept[3:]:
        table[name] = table[name].map(_percent)
    for name in ("box_iou", "landmark_error"):
        table[name] = table[name].map(_decimal)
    totals = pd.DataFrame(
        [
            {
                "fold": row,
                **{name: _percent(getattr(getattr(scores, name), key)) for name in kept[3:]},
            }
            for row, key in (
                ("mean", "mean"),
                ("std", "std"),
                ("pooled", "pooled"),
                ("pooled, 95 % from", "pooled_low"),
                ("pooled, 95 % to", "pooled_high"),
            )
        ]
        + [
            {
                "fold": "all clips, mean",
                "box_iou": _decimal(scores.box_iou),
                "landmark_error": _decimal(scores.landmark_error),
            },
            {"fold": "all clips, median", "landmark_error": _decimal(scores.landmark_error_median)},
        ]
    )
    rows = pd.concat([table.astype(str), totals]).fillna("")
    if groups == CLIPS:
        rows = rows.drop(columns="subjects")  # They are the clips.
    return rows.rename(columns={"subjects": groups, "uar_optimistic": "uar, best epoch on test"})


def interval_notes(scores: Scores, groups: str) -> list[str]:
    """Why there is no interval, where there is none."""
    if isfinite(scores.uar.pooled_low):
        return []
    reason = why_no_interval(scores.subjects, groups)
    return [f"{reason[0].upper()}{reason[1:]}."]


def optimistic_notes(chosen: FoldScore, best: FoldScore) -> list[str]:
    """What the other number is, where there is one."""
    if isnan(best.pooled):
        return []
    gap = 100 * (best.pooled - chosen.pooled)
    return [
        "*Best epoch on test* is optimistic: in each fold the epoch is chosen by the UAR on the "
        "test clips themselves, as in most published numbers. It chooses nothing here. Pooled it "
        f"is {_percent(best.pooled)}, {gap:+.1f} points beside the {_percent(chosen.pooled)} of "
        "the epochs that validation chose, which is the result."
    ]


def baseline_rows(comparison: pd.DataFrame) -> pd.DataFrame:
    """A structure and the baselines as people read them: pooled scores in per cent.

    Args:
        comparison: From `compare`, of one experiment.
    """
    columns: dict[str, object] = {"system": comparison["structure"]}
    for name in ("uar", "war"):
        columns[f"{name.upper()} pooled [95 %]"] = [
            _with_interval(*row)
            for row in comparison[
                [f"{name}_{key}" for key in ("pooled", "pooled_low", "pooled_high")]
            ].to_numpy()
        ]
    return pd.DataFrame(columns)


def _with_interval(value: float, low: float, high: float) -> str:
    ends = "" if isnan(low) else f" [{_percent(low)}, {_percent(high)}]"
    return _percent(value) + ends


def _with_shares(confusions: pd.DataFrame) -> pd.DataFrame:
    shares = confusions.div(confusions.sum(axis=1).clip(lower=1), axis=0)
    percent = shares.map(" ({:.0%})".format)
    return confusions.astype(str) + percent


def _percent(value: float) -> str:
    return "-" if isnan(value) else f"{value:.2%}"


def _decimal(value: float) -> str:
    return "-" if isnan(value) else f"{value:.3f}"
