"""Trained models on another data set: the tables of the aggregate stage, with a row per model.

`python -m commands.cross --model runs/fold1/model.safetensors --dataset cremad` predicts
every clip in data/shards/cremad whose class the model knows. A class that the data set lacks stays
an answer, a wrong one, unless `--restrict` renormalises over the common classes: an easier task,
whose scores compare only with one another.

Shape letters: B clips in a batch, C classes of a model, A answers that it can give.
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from pipeline.common.clips import read_manifest
from pipeline.common.files import atomic_path
from pipeline.evaluation.classes import ClassMapping, class_mapping
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.statistics import (
    NUM_RESAMPLES,
    Interval,
    subject_confusions,
    subject_intervals,
)
from pipeline.evaluation.summary import confusion_table, per_class_table
from pipeline.feed.loader import load_batches
from pipeline.models.checkpoints import load_model
from pipeline.mtcae.loss import LossWeights
from pipeline.mtcae.model import Predictions
from pipeline.mtcae.predictions import Evaluation, evaluate, predictions_table
from pipeline.store.shards import CLIPS, Batch, subject_shards

_SEED = 1


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
        """Predictions for `frames` (B, T, 3, H, W), RGB in [0, 1]; their logits are (B, A)."""
        predictions: Predictions = self.model(frames)
        logits = [predictions.logits[:, outputs].logsumexp(dim=1) for outputs in self.columns]
        return predictions._replace(logits=torch.stack(logits, dim=1))


def known_clips(
    batches: Iterable[Batch], labels: Sequence[str], mapping: ClassMapping
) -> Iterator[Batch]:
    """The clips whose label the model knows, labelled by place among the mapping's answers.

    Args:
        batches: Clips labelled by place in `labels`.
        labels: The data set's labels.
        mapping: Of the model's classes and those labels.
    """
    for batch in batches:
        names = [labels[i] for i in batch.labels.tolist()]
        kept = [i for i, name in enumerate(names) if name in mapping.labels]
        if kept:
            yield Batch(
                clips=[batch.clips[i] for i in kept],
                subjects=[batch.subjects[i] for i in kept],
                frames=batch.frames[kept],
                boxes=batch.boxes[kept],
                points=batch.points[kept],
                mask=batch.mask[kept],
                labels=torch.tensor(
                    [mapping.answers.index(mapping.labels[names[i]]) for i in kept]
                ),
            )


def cross_evaluate(
    paths: Sequence[Path],
    dataset: str,
    data: Path,
    *,
    restrict: bool,
    batch_size: int,
    num_workers: int,
) -> str:
    """Predict the labelled clips of a data set with models of another one: a page of Markdown.

    Args:
        paths: Weights that `save_model` wrote; several are the folds of one experiment.
        dataset: Whose clips are predicted.
        data: Holds `shards/<dataset>`.
        restrict: Leave away what the models say about classes that the data set lacks.
        batch_size: B.
        num_workers: Processes that read and decode.

    Raises:
        ValueError: A model was trained on this data set, the models differ in their classes, they
            share fewer than two of them with the data set, or the clips have another number of
            frames than a model takes.
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
    shards = data / "shards" / dataset
    manifest = read_manifest(shards / CLIPS)
    counts = Counter(clip.label for clip in manifest)
    mapping = class_mapping(classes, counts)
    if restrict:
        mapping = mapping.restricted()

    fabric = Fabric(accelerator="auto", devices=1)
    tested = []
    for model, _ in models.values():
        batches = load_batches(
            subject_shards(shards, sorted({clip.subject for clip in manifest})),
            classes=list(counts),
            image_size=model.encoder.image_size,
            batch_size=batch_size,
            num_workers=num_workers,
        )
        module = fabric.setup_module(MappedModel(model, mapping))
        clips = known_clips(batches, list(counts), mapping)
        tested.append(evaluate(fabric, module, clips, LossWeights()))
    trained_on = ", ".join(sorted({metadata["dataset"] for _, metadata in models.values()}))
    kept_apart = ", classes restricted to the common ones" if restrict else ""
    return "\n\n".join(
        [
            f"# Trained on {trained_on}, tested on {dataset}{kept_apart}",
            coverage(counts, classes, mapping, restrict=restrict),
            *tables(dict(zip(map(str, paths), tested, strict=True)), mapping),
        ]
    )


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


def tables(tested: dict[str, Evaluation], mapping: ClassMapping) -> list[str]:
    """Scores, recalls and confusion in Markdown, for models that were tested on the same clips.

    Args:
        tested: What each model says, by name, in one order of the clips.
        mapping: Whose answers are the columns of the probabilities.
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
        "intervals of a bootstrap over subjects, for these very models. `outside` counts clips "
        "answered with a class that the data set lacks. Box IoU and landmark error compare with "
        "MTCNN. Of several models, `mean` and `std` are over the models, and `ensemble` answers "
        "each clip by the mean of their probabilities.",
        markdown_table(_formatted(rows)),
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
    uar, war = subject_intervals(confusions, num_resamples=NUM_RESAMPLES, seed=_SEED)
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


def _formatted(rows: list[dict[str, Any]]) -> pd.DataFrame:
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


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, nargs="+", required=True, metavar="PATH")
    parser.add_argument("--dataset", required=True, help="whose shards are predicted")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    parser.add_argument("--restrict", action="store_true", help="answer common classes only")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--num-workers", type=int, default=0)
    args = parser.parse_args(argv)
    if not (args.data / "shards" / args.dataset / CLIPS).is_file():
        raise SystemExit(
            f"cross: {args.data} has no shards of {args.dataset}; make them with "
            f"`dvc exp run -S dataset={args.dataset} label`"
        )
    try:
        page = cross_evaluate(
            args.model,
            args.dataset,
            args.data,
            restrict=args.restrict,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
        )
    except ValueError as error:
        raise SystemExit(f"cross: {error}") from error
    if args.out:
        with atomic_path(args.out) as temporary:
            temporary.write_text(page, encoding="utf-8")
    print(page, end="")


if __name__ == "__main__":
    main()
