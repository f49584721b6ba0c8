"""Trained models on another data set: the tables of the aggregate stage, with a row per model.

    python -m commands.cross --model runs/fold1/model.safetensors --dataset cremad

predicts every clip in data/shards/cremad, or where `--shards` says, whose class the model knows. A
class that the data set lacks stays an answer, a wrong one, unless `--restrict` renormalises over
the common classes: an easier task, whose scores compare only with one another.

Shape letters: B clips in a batch, A answers that a model can give.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from commands.pages import shards_of, show_page
from pipeline.common.clips import group_words
from pipeline.evaluation.classes import ClassMapping, class_mapping
from pipeline.evaluation.cross_tables import coverage, tables
from pipeline.feed.loader import load_in_order
from pipeline.mtcae.loss import LossSettings
from pipeline.mtcae.model import Predictions
from pipeline.mtcae.predictions import evaluate
from pipeline.mtcae.saved import load_model
from pipeline.mtcae.view_mean import ViewMean
from pipeline.store.contents import FRAMES
from pipeline.store.folders import Shards, read_clips
from pipeline.store.stored_frames import StoredFrames

# Losses are not reported.
_LOSS = LossSettings(boxes=1, points=1, expression=1, scale="frame", label_smoothing=0)


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


def cross_evaluate(
    paths: Sequence[Path],
    dataset: str,
    shards: Shards,
    *,
    restrict: bool,
    batch_size: int,
    num_workers: int,
) -> str:
    """Predict the labelled clips of a data set with models of another one: a page of Markdown.

    Args:
        paths: Weights that `save_model` wrote; several are the folds of one experiment.
        dataset: Whose clips are predicted.
        shards: Its clips.
        restrict: Leave away what the models say about classes that the data set lacks.
        batch_size: B.
        num_workers: Processes that read and decode.

    Raises:
        ValueError: A model was trained on this data set, the models differ in their classes, they
            share fewer than two of them with the data set, or the clips' frames were cut out of
            the videos in another way than those that a model was trained on.
    """
    models = {path: load_model(path) for path in paths}
    classes: list[str] = models[paths[0]][1]["classes"]
    for path, (_, metadata) in models.items():
        if metadata["dataset"] == dataset:
            raise ValueError(
                f"{path} was trained on {dataset} itself and has seen most of its subjects; name "
                "another data set, and see metrics/table.md for the subjects each fold never saw"
            )
        if metadata["classes"] != classes:
            raise ValueError(
                f"{path} has the classes {', '.join(metadata['classes'])}, but {paths[0]} has "
                f"{', '.join(classes)}; compare models of one experiment at a time"
            )
    with shards.open(FRAMES) as file:
        stored = json.load(file)
    for path, (_, metadata) in models.items():
        _check_frames(path, metadata, shards, stored)
    clips = read_clips(shards)
    counts = Counter(clip.label for clip in clips)
    mapping = class_mapping(classes, counts)
    if restrict:
        mapping = mapping.restrict()

    # Clips of labels that no model knows are left out; the others get the answer that is right.
    known = [
        replace(clip, label=mapping.labels[clip.label])
        for clip in clips
        if clip.label in mapping.labels
    ]

    fabric = Fabric(accelerator="auto", devices=1)
    tested = []
    for model, metadata in models.values():
        frames = StoredFrames(
            shards, known, classes=mapping.answers, image_size=model.encoder.size.image_size
        )
        batches = load_in_order(frames, batch_size=batch_size, num_workers=num_workers)
        views = ViewMean(
            MappedModel(model, mapping),
            num_frames=model.encoder.num_frames,
            num_crops=metadata["recipes"]["evaluation"]["crops"],
        )
        module = fabric.setup_module(views)
        tested.append(evaluate(fabric, module, batches, _LOSS))
    trained_on = ", ".join(sorted({metadata["dataset"] for _, metadata in models.values()}))
    kept_apart = ", classes restricted to the common ones" if restrict else ""
    return "\n\n".join(
        [
            f"# Trained on {trained_on}, tested on {dataset}{kept_apart}",
            coverage(counts, classes, mapping, restrict=restrict),
            *tables(dict(zip(map(str, paths), tested, strict=True)), mapping, group_words(clips)),
        ]
    )


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


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, nargs="+", required=True, metavar="PATH")
    parser.add_argument("--dataset", required=True, help="whose shards are predicted")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--shards", help="in place of <data>/shards/<dataset>; may be an address")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    parser.add_argument("--restrict", action="store_true", help="answer common classes only")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--num-workers", type=int, default=0)
    args = parser.parse_args(argv)
    shards = shards_of("cross", args.dataset, args.data, args.shards)
    try:
        page = cross_evaluate(
            args.model,
            args.dataset,
            shards,
            restrict=args.restrict,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
        )
    except (ConnectionError, ValueError) as error:
        raise SystemExit(f"cross: {error}") from error
    show_page(page, args.out)


if __name__ == "__main__":
    main()
