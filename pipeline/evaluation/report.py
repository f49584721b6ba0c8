"""The error analysis of one experiment: a page that a browser shows without a network.

The page is one file: no scripts, fonts or pictures from elsewhere, and a content policy that allows
none. Names of clips, subjects and classes come from strangers' tables; all text is escaped.

Shape letters: N clips, C classes.
"""

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.evaluation.comparison import beside_linear, compare_with_baselines
from pipeline.evaluation.figures import (
    confusion_svg,
    learning_curve_svg,
    recall_svg,
    reliability_bins,
    reliability_svg,
)
from pipeline.evaluation.page import baseline_rows, interval_notes, optimistic_notes
from pipeline.evaluation.setting import Setting
from pipeline.evaluation.statistics import why_no_interval
from pipeline.evaluation.summary import score_experiment
from pipeline.evaluation.tables import class_indices, fold_table, subject_table
from pipeline.evaluation.thumbnails import FOUND_COLOUR, PREDICTED_COLOUR
from pipeline.scores.advice import advice
from pipeline.scores.metrics import NUM_BINS, Labels, confusion

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
# Columns of a fold's history that are drawn.
_CURVES = {
    "train_expression_loss": "expression loss, training",
    "validation_expression_loss": "expression loss, validation",
    "validation_uar": "UAR, validation",
}


class ClassRow(NamedTuple):
    """Scores of a class over all folds; NaN where a share has no clips to be a share of."""

    name: str
    clips: int
    recall: float
    precision: float
    f1: float


class WrongClip(NamedTuple):
    """A clip whose class was missed, with the probabilities of both classes."""

    clip: str
    subject: str
    fold: int
    actual: str
    predicted: str
    probability: float
    actual_probability: float


def render(
    structure: str,
    setting: Setting,
    predictions: pd.DataFrame,
    baselines: pd.DataFrame,
    histories: Mapping[int, pd.DataFrame],
    wrong: Sequence[WrongClip],
    pictures: Mapping[str, Sequence[bytes]] | None,
) -> str:
    """The page as HTML; equal input gives equal text.

    Args:
        structure: Its name.
        setting: What its numbers rest on.
        predictions: Of all folds (see `predictions_table`).
        baselines: Predictions of `stages.baseline`.
        histories: Learning curve of each fold.
        wrong: The clips to list.
        pictures: Of each of these clips by name, JPEG files; None for a page without faces.
    """
    classes = setting.classes
    labels, predicted, probabilities = _arrays(predictions, classes)
    counts = confusion(labels, predicted, len(classes))
    class_table = class_rows(counts, classes)
    figures = {
        "confusion": confusion_svg(counts, classes),
        "recall": recall_svg([row.recall for row in class_table], classes),
        "reliability": reliability_svg(reliability_bins(labels, probabilities, NUM_BINS)),
    }
    curves = [learning_curve_svg(histories, *curve) for curve in _CURVES.items()]
    scores = score_experiment([predictions], classes)
    comparison = compare_with_baselines(structure, predictions, baselines, classes)
    notes = [*beside_linear(comparison), *interval_notes(scores, setting.coverage.groups)]
    for fold, history in histories.items():
        uars = history["validation_uar"].tolist()
        if found := advice(uars, len(setting.occurring)):
            notes.append(f"Fold {fold}: {found}")
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "decimal": _decimal,
        "data_uri": _data_uri,
        "sha256": _sha256,
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
    }
    return environment.get_template(_TEMPLATE.name).render(
        structure=structure,
        setting=setting,
        summary=scores.nested(),
        baselines=baseline_rows(comparison),
        setting_sentences=[*map(_plain, setting.sentences())],
        sentences=[*map(_plain, notes)],
        optimistic=[*map(_plain, optimistic_notes(scores.uar, scores.uar_optimistic))],
        trace=_plain(setting.trace()),
        groups=setting.coverage.groups,
        group=setting.coverage.groups.split(" ")[0].removesuffix("s"),
        no_interval=why_no_interval(predictions["subject"].nunique(), setting.coverage.groups),
        num_bins=NUM_BINS,
        folds=list(fold_table(predictions, classes).itertuples()),
        classes=class_table,
        subjects=list(subject_table(predictions, classes).itertuples()),
        wrong=wrong,
        pictures=pictures,
        colours={"found": FOUND_COLOUR, "predicted": PREDICTED_COLOUR},
        figures=figures,
        curves=curves,
    )


def class_rows(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> list[ClassRow]:
    """Scores of each class.

    Args:
        counts: (C, C) clips: row is the true class, column the predicted one.
        classes: C names.
    """
    hits, clips, guesses = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    return [
        ClassRow(
            name,
            int(clips[i]),
            recall=hits[i] / clips[i] if clips[i] else np.nan,
            precision=hits[i] / guesses[i] if guesses[i] else np.nan,
            f1=2 * hits[i] / (clips[i] + guesses[i]) if clips[i] else np.nan,
        )
        for i, name in enumerate(classes)
    ]


def confidently_wrong(
    predictions: pd.DataFrame, classes: list[str], num_clips: int
) -> list[WrongClip]:
    """The misses with the highest probabilities of the predicted class, highest first."""
    labels, predicted, probabilities = _arrays(predictions, classes)
    rows = [
        WrongClip(
            str(clip), str(subject), int(fold), classes[actual], classes[guess], p[guess], p[actual]
        )
        for clip, subject, fold, actual, guess, p in zip(
            predictions["clip"],
            predictions["subject"],
            predictions["fold"],
            labels,
            predicted,
            probabilities,
            strict=True,
        )
        if actual != guess
    ]
    return sorted(rows, key=lambda row: (-row.probability, row.clip))[:num_clips]


def _arrays(
    predictions: pd.DataFrame, classes: list[str]
) -> tuple[Labels, Labels, npt.NDArray[np.floating]]:
    """(N,) true and predicted class indices, and (N, C) probabilities."""
    labels, predicted = (
        class_indices(predictions[column], classes) for column in ("actual", "predicted")
    )
    return labels, predicted, predictions[[f"probability_{name}" for name in classes]].to_numpy()


def _plain(markdown: str) -> str:
    """A sentence without its marks."""
    return markdown.replace("*", "").replace("`", "")


def _percent(value: float, digits: int = 2) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}%}"


def _decimal(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"


def _sha256(text: str) -> str:
    """As a content policy spells it."""
    return b64encode(hashlib.sha256(text.encode()).digest()).decode()
