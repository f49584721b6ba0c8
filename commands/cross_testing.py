"""What trained models say about the clips of another data set.

Shape letters: B clips in a batch, A answers that a model can give.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pipeline.common.encoder_weights import History, read_history
from pipeline.evaluation.classes import ClassMapping, class_mapping
from pipeline.feed.loader import load_in_order
from pipeline.mtcae.loss import LossSettings
from pipeline.mtcae.model import MTCAE, Predictions
from pipeline.mtcae.predictions import Evaluation, evaluate
from pipeline.mtcae.saved import load_model
from pipeline.mtcae.view_mean import ViewMean
from pipeline.store.contents import FRAMES
from pipeline.store.folders import Shards, read_clips
from pipeline.store.stored_frames import StoredFrames

# Losses are not reported.
_LOSS = LossSettings(boxes=1, points=1, expression=1, scale="frame", label_smoothing=0)


class TrainedModel(NamedTuple):
    """A model, the metadata that it was saved with, and whom it and its encoder have seen."""

    model: MTCAE
    metadata: dict[str, Any]
    history: History


class Reading(NamedTuple):
    """How clips are read.

    Attributes:
        restrict: Leave away what the models say about classes that the data set lacks.
        batch_size: B.
        num_workers: Processes that read and decode.
    """

    restrict: bool
    batch_size: int
    num_workers: int


class Answers(NamedTuple):
    """What models say about a data set.

    Attributes:
        counts: The data set's clips of each label.
        mapping: Of the models' classes and these labels.
        answers: Of each model, in one order of the clips.
    """

    counts: Counter[str]
    mapping: ClassMapping
    answers: dict[Path, Evaluation]


class MappedModel(nn.Module):
    """A model whose logits are those of the answers of a mapping.

    Outputs of one answer are joined so that softmax gives the sum of their probabilities. Outputs
    of no answer are left away, which is to renormalise the probabilities of the others.
    """

    def __init__(self, model: nn.Module, mapping: ClassMapping) -> None:
        super().__init__()
        self.model = model
        self.columns = mapping.columns

    def forward(self, frames: Tensor) -> Predictions:
        """Predictions for RGB frames (B, T, 3, H, W); their logits are (B, A)."""
        predictions: Predictions = self.model(frames)
        logits = [predictions.logits[:, outputs].logsumexp(dim=1) for outputs in self.columns]
        return predictions._replace(logits=torch.stack(logits, dim=1))


def read_models(paths: Sequence[Path]) -> dict[Path, TrainedModel]:
    """Models that `save_model` wrote: model.safetensors, or its folder."""
    files = [path / "model.safetensors" if path.is_dir() else path for path in paths]
    return {path: TrainedModel(*load_model(path), read_history(path)) for path in files}


def same_classes(models: Mapping[Path, TrainedModel]) -> list[str]:
    """The classes of all of them.

    Raises:
        ValueError: They differ.
    """
    (first, one), *others = models.items()
    classes: list[str] = one.metadata["classes"]
    for path, other in others:
        if other.metadata["classes"] != classes:
            raise ValueError(
                f"{path} has the classes {', '.join(other.metadata['classes'])}, but {first} has "
                f"{', '.join(classes)}; compare models of one experiment at a time"
            )
    return classes


def answer_elsewhere(
    models: Mapping[Path, TrainedModel], shards: Shards, reading: Reading
) -> Answers:
    """Predict the labelled clips of a data set that the models were not trained on.

    Raises:
        ValueError: The models differ in their classes, they share fewer than two of them with the
            data set, or the clips' frames were cut out of the videos in another way than those
            that a model was trained on.
    """
    classes = same_classes(models)
    with shards.open(FRAMES) as file:
        stored = json.load(file)
    for path, one in models.items():
        _check_frames(path, one.metadata, shards, stored)
    clips = read_clips(shards)
    counts = Counter(clip.label for clip in clips)
    mapping = class_mapping(classes, counts)
    if reading.restrict:
        mapping = mapping.restrict()

    # Clips of labels that no model knows are left out; the others get the answer that is right.
    known = [
        replace(clip, label=mapping.labels[clip.label])
        for clip in clips
        if clip.label in mapping.labels
    ]

    fabric = Fabric(accelerator="auto", devices=1)
    answers = {}
    for path, (model, metadata, _) in models.items():
        frames = StoredFrames(
            shards, known, classes=mapping.answers, image_size=model.encoder.size.image_size
        )
        batches = load_in_order(
            frames, batch_size=reading.batch_size, num_workers=reading.num_workers
        )
        views = ViewMean(
            MappedModel(model, mapping),
            num_frames=model.encoder.num_frames,
            num_crops=metadata["recipes"]["evaluation"]["crops"],
        )
        answers[path] = evaluate(fabric, fabric.setup_module(views), batches, _LOSS)
    return Answers(counts, mapping, answers)


def encoders_in_words(
    models: Mapping[Path, TrainedModel], dataset: str, subjects: Sequence[str]
) -> list[str]:
    """For each encoder that the models started from, what it is and has seen; in one line each.

    Args:
        models: Of one data set.
        dataset: On which they are tested.
        subjects: Who is in its clips.
    """
    lines: dict[str, None] = {}
    for one in models.values():
        card = one.metadata["encoder"]
        known = History.model_validate(card["history"])
        words = "random numbers" if known == History.empty() else known.in_words()
        met = len(known.seen_of(dataset, subjects))
        warning = f"; **it has met {met} of the people who are tested here**" if met else ""
        lines[f"Encoder {card['name']}: {words}{warning}"] = None
    return list(lines)


def _check_frames(
    path: Path, metadata: dict[str, Any], shards: Shards, stored: dict[str, dict[str, Any]]
) -> None:
    """Make sure that a model sees what it was trained on."""
    differences = [
        f"{section}.{key} {metadata[section][key]} (model) and {value} ({shards})"
        for section, values in stored.items()
        for key, value in values.items()
        if metadata[section][key] != value
    ]
    if differences:
        raise ValueError(
            f"{path} was trained on other frames: {', '.join(differences)}; sample and label the "
            "data set with the model's settings (`dvc exp run -S ... label`)"
        )
