"""Tables of one training: its folds, its classes, its subjects, its confusion.

Each is made of the test predictions of all folds, a row per clip.

Shape letters: C classes.
"""

import numpy as np
import pandas as pd

from pipeline.scores.metrics import Labels, Recalls, confusion, recalls

# The class that a clip gets from the epoch that is best on the test clips.
OPTIMISTIC = "predicted_optimistic"


def score(predictions: pd.DataFrame, classes: list[str], column: str = "predicted") -> Recalls:
    """UAR, WAR and recalls of the column `actual` and another one."""
    actual, predicted = (class_indices(predictions[name], classes) for name in ("actual", column))
    return recalls(actual, predicted, len(classes))


def fold_table(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """One row per fold: clips, subjects, UAR, WAR, box overlap, landmark errors.

    With the best epochs on the test clips there are `uar_optimistic` and `war_optimistic`.
    """
    rows = []
    for fold, part in predictions.groupby("fold"):
        scores = score(part, classes)
        row = {
            "fold": fold,
            "clips": len(part),
            "subjects": part["subject"].nunique(),
            "uar": scores.uar,
            "war": scores.war,
        }
        if OPTIMISTIC in part:
            best = score(part, classes, OPTIMISTIC)
            row |= {"uar_optimistic": best.uar, "war_optimistic": best.war}
        row |= {
            "box_iou": part["box_iou"].mean(),
            "landmark_error": part["landmark_error"].mean(),
            "landmark_error_median": part["landmark_error"].median(),
            "interocular_error": part["interocular_error"].mean(),
        }
        rows.append(row)
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


def groups_tested(predictions: pd.DataFrame) -> str:
    """What the column `subject` names, in words: `clips` where each clip stands for itself."""
    return "clips" if predictions["subject"].equals(predictions["clip"]) else "subjects"


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


def class_indices(names: pd.Series, classes: list[str]) -> Labels:
    """The place of each name in the list of classes."""
    return np.array([classes.index(name) for name in names], dtype=np.int64)
