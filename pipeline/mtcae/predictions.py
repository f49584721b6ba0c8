"""Prediction of clips by a model, with the truth beside it.

Shape letters: N clips, T frames, C classes.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import nn

from pipeline.mtcae.loss import LossSettings, count, multitask_loss
from pipeline.mtcae.model import Predictions
from pipeline.scores.metrics import box_iou, interocular_error, landmark_error
from pipeline.store.batch import Batch, concatenate
from pipeline.training.devices import gather


class Evaluation(NamedTuple):
    """What a model says about clips, with the truth beside it, in the order of the batches.

    Attributes:
        clips: N names.
        subjects: N names.
        labels: (N,) class indices.
        probabilities: (N, C).
        boxes: (N, T, 4) x, y, w, h as fractions of the frame; None for a structure without box
            head.
        points: (N, T, 5, 2) x, y as fractions of the frame; None likewise.
        target_boxes: (N, T, 4).
        target_points: (N, T, 5, 2).
        mask: (N, T) frames whose targets are known.
        losses: Over all the clips at once: total, boxes, points, expression.
    """

    clips: list[str]
    subjects: list[str]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32] | None
    points: npt.NDArray[np.float32] | None
    target_boxes: npt.NDArray[np.float32]
    target_points: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    losses: dict[str, float]


@torch.no_grad()
def evaluate(
    fabric: Fabric, module: nn.Module, batches: Iterable[Batch], loss: LossSettings
) -> Evaluation:
    """Predict every clip of the batches once, without augmentation or label smoothing.

    Args:
        fabric: Device, precision, and the other processes.
        module: From the batches' inputs to `Predictions`; not wrapped for training on several
            devices, which may differ in how many batches they have.
        batches: Of this process, which has no clip in common with others; the clips of all of them
            are in the result, which all of them get.
        loss: Weights of the losses.
    """
    module.eval()
    seen: list[Batch] = []
    outputs: list[Predictions] = []
    for batch in batches:
        with fabric.autocast():
            outputs.append(_on_cpu(module(batch.inputs.to(fabric.device, non_blocking=True))))
        seen.append(batch.without_inputs())  # The pixels are most of it.
    gathered = gather(fabric, (seen, outputs))
    truth = concatenate([batch for one, _ in gathered for batch in one])
    whole = _concatenate_predictions([part for _, one in gathered for part in one])
    losses = multitask_loss(
        whole,
        truth.targets,
        loss.model_copy(update={"label_smoothing": 0.0}),
        count(truth.targets),
    )
    boxes, points = truth.targets["boxes"], truth.targets["points"]
    return Evaluation(
        clips=truth.ids,
        subjects=truth.groups,
        labels=truth.targets["expression"].values.numpy(),
        probabilities=whole.logits.softmax(dim=1).numpy(),
        boxes=None if whole.boxes is None else whole.boxes.numpy(),
        points=None if whole.points is None else whole.points.numpy(),
        target_boxes=boxes.values.numpy(),
        target_points=points.values.numpy(),
        mask=boxes.known.numpy(),
        losses={name: loss.item() for name, loss in losses._asdict().items()},
    )


def _on_cpu(part: Predictions) -> Predictions:
    """In float32 on the CPU."""
    return Predictions(*(None if x is None else x.float().cpu() for x in part))  # type: ignore[arg-type]


def _concatenate_predictions(parts: list[Predictions]) -> Predictions:
    """All predictions as one."""
    boxes = [part.boxes for part in parts if part.boxes is not None]
    points = [part.points for part in parts if part.points is not None]
    return Predictions(
        boxes=torch.cat(boxes) if boxes else None,
        points=torch.cat(points) if points else None,
        logits=torch.cat([part.logits for part in parts]),
    )


def predictions_table(tested: Evaluation, fold: int, classes: Sequence[str]) -> pd.DataFrame:
    """A row per test clip: who, truth, prediction, probabilities, box overlap, landmark error.

    `boxes` (T * 4 numbers) and `points` (T * 10) are what was predicted, as fractions of the frame;
    empty lists for a structure without such heads. What the errors are measured in:
    `pipeline.scores.metrics`.
    """
    table = pd.DataFrame(
        {
            "fold": fold,
            "clip": tested.clips,
            "subject": tested.subjects,
            "actual": [classes[i] for i in tested.labels],
            "predicted": [classes[i] for i in tested.probabilities.argmax(axis=1)],
            "box_iou": np.nan,
            "landmark_error": np.nan,
            "interocular_error": np.nan,
            "boxes": _rows(tested.boxes, len(tested.clips)),
            "points": _rows(tested.points, len(tested.clips)),
        }
    )
    if tested.boxes is not None and tested.points is not None:
        table["box_iou"] = box_iou(tested.boxes, tested.target_boxes, tested.mask)
        truth = (tested.target_points, tested.target_boxes, tested.mask)
        table["landmark_error"] = landmark_error(tested.points, *truth)
        table["interocular_error"] = interocular_error(tested.points, *truth)
    for i, name in enumerate(classes):
        table[f"probability_{name}"] = tested.probabilities[:, i]
    return table.sort_values("clip", ignore_index=True)


def _rows(values: npt.NDArray[np.float32] | None, num_clips: int) -> list[npt.NDArray[np.float32]]:
    """One flat array per clip."""
    if values is None:
        return [np.empty(0, np.float32)] * num_clips
    return list(values.reshape(num_clips, -1))
