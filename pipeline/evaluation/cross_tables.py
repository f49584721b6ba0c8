"""Tables of trained models on another data set: a row per model, their mean, their ensemble.

Shape letters: C classes of a model.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.classes import ClassMapping
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.statistics import (
    NUM_RESAMPLES,
    Interval,
    subject_confusions,
    subject_intervals,
)
from pipeline.evaluation.tables import confusion_table, per_class_table
from pipeline.mtcae.predictions import Evaluation, predictions_table

_SEED = 1


def coverage(
    counts: Counter[str], model_classes: Sequence[str], mapping: ClassMapping, *, restrict: bool
) -> str:
    """Which clips are used and which are not, and which classes can and cannot be right.

    Args:
        counts: The data set's clips of each label.
        model_classes: C names in the order of the models' logits.
        mapping: Of those classes and those labels.
        restrict: Whether the classes that cannot be right are out of the competition.
    """
    used = sum(counts[label] for label in mapping.labels)
    left_out = [f"{label} ({counts[label]})" for label in mapping.left_out]
    renamed = [
        f"{label} as {name} ({counts[label]})"
        for label, name in mapping.labels.items()
        if label != name
    ]
    joined = [
        f"{model_classes[i]} as {name}"
        for name, outputs in zip(mapping.answers, mapping.columns, strict=True)
        for i in outputs
        if model_classes[i] != name
    ]
    lacking = ", ".join(mapping.never_right)
    if lacking:
        lacking += "; not among the answers" if restrict else "; an answer of these is wrong"
    lines = {
        "Clips used": f"{used} of {counts.total()} that the label stage kept",
        "Clips left out, of classes that the models do not know": ", ".join(left_out),
        "Common classes, over which UAR is the mean": ", ".join(mapping.common),
        "Classes of the models that the data set lacks": lacking,
        "Clips counted as another class": ", ".join(renamed),
        "Probabilities counted as another class": ", ".join(joined),
    }
    return "\n".join(f"- {name}: {value or 'none'}" for name, value in lines.items())


def tables(
    tested: Mapping[str, Evaluation], mapping: ClassMapping, groups: str = "subjects"
) -> list[str]:
    """Scores, recalls and confusion in Markdown, for models that were tested on the same clips.

    Args:
        tested: What each model says, by name, in one order of the clips.
        mapping: Whose answers are the columns of the probabilities.
        groups: What the subjects are, in words; see `group_words`.
    """
    answers = mapping.answers
    single = {name: predictions_table(one, 1, answers) for name, one in tested.items()}
    pooled = pd.concat(single.values())
    rows = [score_row(name, predictions, mapping) for name, predictions in single.items()]
    chosen, recalls = pooled, {"recall": pooled}
    if len(single) > 1:
        # As all models have the same clips, pooled answers give the mean of their UARs and WARs.
        rows.append(score_row("mean", pooled, mapping))
        rows.append({"model": "std"} | _deviations(rows[:-1]))
        first, *_ = tested.values()
        probabilities = np.mean([one.probabilities for one in tested.values()], axis=0)
        together = first._replace(probabilities=probabilities, boxes=None, points=None)
        chosen = predictions_table(together, 1, answers)
        rows.append(score_row("ensemble", chosen, mapping))
        recalls = {"recall, mean": pooled, "recall, ensemble": chosen}
    per_class = {name: per_class_table(part, answers) for name, part in recalls.items()}
    clips = per_class_table(chosen, answers)[["class", "clips"]]
    columns = {name: table["recall"].map(_percent) for name, table in per_class.items()}
    recall_table = clips.assign(**columns)[clips["class"].isin(mapping.common)]
    confusions = confusion_table(chosen, answers).loc[mapping.common]
    whose = ", ensemble" if len(single) > 1 else ""
    return [
        "UAR is the mean of the common classes' recalls, WAR the accuracy; in brackets are 95 % "
        f"intervals of a bootstrap over {groups}, for these very models. `outside` counts clips "
        "answered with a class that the data set lacks. Box IoU and landmark error compare with "
        "MTCNN. Of several models, `mean` and `std` are over the models, and `ensemble` answers "
        "each clip by the mean of their probabilities.",
        markdown_table(_format_rows(rows)),
        "## Recall per class",
        markdown_table(recall_table),
        f"## Confusion{whose} (rows: true, columns: predicted)",
        markdown_table(confusions.reset_index()) + "\n",
    ]


def score_row(name: str, predictions: pd.DataFrame, mapping: ClassMapping) -> dict[str, Any]:
    """Scores of one model, or of several that are pooled; `outside` is then their mean."""
    actual, predicted = (
        predictions[column].map(mapping.answers.index).to_numpy()
        for column in ("actual", "predicted")
    )
    confusions = subject_confusions(
        actual, predicted, predictions["subject"].to_numpy(), len(mapping.answers)
    )
    uar, war = subject_intervals(confusions[None], num_resamples=NUM_RESAMPLES, seed=_SEED)
    num_clips = predictions["clip"].nunique()
    num_models = len(predictions) // num_clips
    return {
        "model": name,
        "clips": num_clips,
        "subjects": predictions["subject"].nunique(),
        "uar": uar,
        "war": war,
        "outside": predictions["predicted"].isin(mapping.never_right).sum() / num_models,
        "box_iou": predictions["box_iou"].mean(),
        "landmark_error": predictions["landmark_error"].mean(),
    }


def _deviations(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {
        name: float(np.std([row[name].value for row in rows], ddof=1)) for name in ("uar", "war")
    }


def _format_rows(rows: list[dict[str, Any]]) -> pd.DataFrame:
    formats = {
        "uar": _percent,
        "war": _percent,
        "outside": "{:.6g}".format,
        "box_iou": "{:.3f}".format,
        "landmark_error": "{:.3f}".format,
    }
    cells = [{name: formats.get(name, str)(value) for name, value in row.items()} for row in rows]
    return pd.DataFrame(cells).fillna("").replace("nan", "-")


def _percent(value: float | Interval) -> str:
    if not isinstance(value, Interval):
        return f"{value:.2%}"
    if np.isnan(value.low):
        return f"{value.value:.2%} (-)"
    return f"{value.value:.2%} ({value.low:.2%} to {value.high:.2%})"
