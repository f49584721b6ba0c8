"""The README of an exported model: what it is, its scores, what it must not be used for."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.evaluation.fold_files import OF_ONE_FOLD
from pipeline.evaluation.statistics import (
    NUM_RESAMPLES,
    Interval,
    subject_confusions,
    subject_intervals,
    why_no_interval,
)
from pipeline.evaluation.tables import class_indices, groups_tested

_ROOT = Path(__file__).parents[2]
_SEED = 1
_SAMPLE = (
    "Rendered faces: synthetic clips, warped from one public-domain photograph. Scores on them say "
    "that the software works, and nothing about people."
)
_MISUSE = """\
## What it must not be used for

The model says what a face looks like to somebody who labelled the training clips. It does not say
what a person feels, thinks or intends. Do not use it to judge people: at work, at school, at
borders, in court, in insurance. Emotion recognition at work and in education is forbidden in the
European Union, but for medical and safety reasons (AI Act, article 5). The model was tested on
people and recordings like those of its data set alone; for other ages, skin tones, cameras and
cultures nothing is known. A probability is no measure of trust."""


class CardScores(NamedTuple):
    """What the tests of a model came to.

    Attributes:
        uar: Over the test clips of the model's own fold.
        clips: Of that fold's test.
        subjects: Likewise.
        folds: Of the same experiment, that are there beside this one, with it.
        pooled_uar: Over the test clips of all of them.
        all_clips: Likewise.
        all_subjects: Likewise.
        groups: What the subjects are, in words.
    """

    uar: Interval
    clips: int
    subjects: int
    folds: list[int]
    pooled_uar: Interval
    all_clips: int
    all_subjects: int
    groups: str


def read_scores(folder: Path) -> CardScores | None:
    """The tests of the model in a folder of runs/ and of its sisters; None where there is none."""
    own = folder / "predictions.parquet"
    if not own.is_file():
        return None
    described = _metadata(folder)
    classes: list[str] = described["classes"]
    predictions = pd.read_parquet(own)
    parts = [predictions]
    for sister in sorted(folder.resolve().parent.glob("fold*")):
        if sister == folder.resolve() or not (sister / "predictions.parquet").is_file():
            continue
        if _experiment(_metadata(sister)) == _experiment(described):
            parts.append(pd.read_parquet(sister / "predictions.parquet"))
    pooled = pd.concat(parts)
    return CardScores(
        _uar(predictions, classes),
        len(predictions),
        predictions["subject"].nunique(),
        sorted(map(int, pooled["fold"].unique())),
        _uar(pooled, classes),
        len(pooled),
        pooled["subject"].nunique(),
        groups_tested(pooled),
    )


def model_card(
    metadata: dict[str, Any],
    structure: str,
    tested: CardScores | None,
    usage: str,
    checks: list[str],
) -> str:
    """The card in Markdown, with the header of Hugging Face's cards.

    Args:
        metadata: Of the model; see `Description`.
        structure: Its name.
        tested: What its tests came to, where that is known.
        usage: How the files beside the card are used, in Markdown.
        checks: What was measured of these files, a sentence each.
    """
    frames, encoder = metadata["frames"], metadata.get("encoder", {})
    dataset = metadata.get("dataset", "unknown")
    lines = [
        "---",
        "pipeline_tag: video-classification",
        "tags: [facial-expression-recognition, video]",
        "license: other",
        "---",
        f"# MTCAE-DFER ({structure}), trained on {dataset}",
        f"Says of a face in {frames['num_frames'] * frames['segments']} frames of a video which of "
        f"{len(metadata['classes'])} expressions it shows: {', '.join(metadata['classes'])}.",
        "## How it is used",
        usage,
        *([f"Measured of these files: {' '.join(checks)}"] if checks else []),
        "## What it was trained and tested on",
        f"- Data set: {dataset}; {_fold_in_words(metadata)}",
        *(f"- {line}" for line in _scores_in_words(tested)),
        f"- Frames: {_frames_in_words(frames)}",
        f"- Encoder: started from {encoder.get('name', 'unknown weights')}",
        "## Licences",
        f"- Data: {data_licence(dataset)}",
        f"- Encoder: {_encoder_licence(encoder)}",
        "- Code: MIT.",
        "",
        "Weights that were trained on data of a licence may be bound by it; ask before you publish "
        "or sell them.",
        _MISUSE,
    ]
    return "\n".join(_spaced(lines)) + "\n"


def data_licence(dataset: str) -> str:
    """In words, as far as the project knows."""
    terms = _ROOT / "datasets" / dataset / "TERMS.md"
    if terms.is_file():
        return " ".join(terms.read_text(encoding="utf-8").split())
    if dataset == "sample":
        return _SAMPLE
    return "not known to this project; write here what the people in the clips agreed to."


def _encoder_licence(encoder: dict[str, Any]) -> str:
    if encoder.get("name") == "from_scratch":
        return "trained from random numbers, nothing to observe."
    licence = encoder.get("licence", "not known to this project")
    return f"{licence} ({encoder['page']})" if "page" in encoder else f"{licence}."


def _fold_in_words(metadata: dict[str, Any]) -> str:
    if "untested" in metadata:
        return f"{metadata['untested']}."
    if "fold" not in metadata:
        return "the fold is not known."
    return (
        f"fold {metadata['fold']} of its cross-validation, in which no subject is both trained on "
        "and tested."
    )


def _scores_in_words(tested: CardScores | None) -> list[str]:
    if tested is None:
        return ["Not tested, or its test predictions are not beside it."]
    lines = [
        f"UAR of this model: {_in_words(tested.uar, tested.subjects, tested.groups)} on "
        f"{tested.clips} clips of {tested.subjects} {tested.groups} that it has never seen."
    ]
    if len(tested.folds) > 1:
        lines.append(
            f"UAR of the experiment, over its folds {', '.join(map(str, tested.folds))}: "
            f"{_in_words(tested.pooled_uar, tested.all_subjects, tested.groups)} on "
            f"{tested.all_clips} clips of {tested.all_subjects} {tested.groups}."
        )
    return [*lines, "UAR is the unweighted mean of the classes' recalls."]


def _in_words(interval: Interval, num_subjects: int, groups: str) -> str:
    if np.isnan(interval.low):
        return f"{interval.value:.1%} ({why_no_interval(num_subjects, groups)})"
    return (
        f"{interval.value:.1%} (95 % interval over {groups} {interval.low:.1%} to "
        f"{interval.high:.1%})"
    )


def _frames_in_words(frames: dict[str, Any]) -> str:
    crop = {
        "face": f"a square around the face, {frames['margin']} times as long as the box of MTCNN",
        "square": "the centre square of the picture",
        "none": "the whole picture",
    }[frames["crop"]]
    return (
        f"{crop}, stored with {frames['size']} pixels as JPEG of quality {frames['jpeg_quality']}; "
        f"sampling `{frames['sampling']}`; RGB."
    )


def _spaced(lines: list[str]) -> list[str]:
    """With blank lines around all but the header and the items of lists."""
    header, text = lines[:5], lines[5:]
    spaced = header
    for line in text:
        if not (line.startswith("- ") and spaced[-1].startswith("- ")) and spaced[-1]:
            spaced.append("")
        if line:
            spaced.append(line)
    return spaced


def _uar(predictions: pd.DataFrame, classes: list[str]) -> Interval:
    actual, predicted = (
        class_indices(predictions[name], classes) for name in ("actual", "predicted")
    )
    confusions = subject_confusions(
        actual, predicted, predictions["subject"].to_numpy(), len(classes)
    )
    return subject_intervals(confusions[None], num_resamples=NUM_RESAMPLES, seed=_SEED)[0]


def _metadata(folder: Path) -> dict[str, Any]:
    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    metadata: dict[str, Any] = described["metadata"]
    return metadata


def _experiment(metadata: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name not in OF_ONE_FOLD}
