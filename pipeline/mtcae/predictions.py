"""Prediction of clips by a model, with the truth beside it.

Shape letters: N clips, T frames, C classes.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning.fabric import Fabric
from torch import nn

from pipeline.mtcae.loss import LossWeights, multitask_loss
from pipeline.mtcae.model import Predictions
from pipeline.scores.metrics import box_iou, landmark_error
from pipeline.store.shards import Batch
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


def predict(module: nn.Module, batch: Batch) -> Predictions:
    """The model's answer to a batch on its device: to the frames, or to the encoder's tokens."""
    predictions: Predictions
    if batch.tokens is not None:
        predictions = module(batch.tokens, encoded=True)
    else:
        predictions = module(batch.frames / 255)
    return predictions


@torch.no_grad()
def evaluate(
    fabric: Fabric, module: nn.Module, batches: Iterable[Batch], loss_weights: LossWeights
) -> Evaluation:
    """Predict every clip of the batches once, without augmentation or label smoothing.

    Args:
        fabric: Device, precision, and the other processes.
        module: The model, not wrapped for training on several devices: they may differ in how many
            batches they have.
        batches: Of this process, which has no clip in common with others; the clips of all of them
            are in the result, which all of them get.
        loss_weights: See `multitask_loss`.
    """
    module.eval()
    seen: list[Batch] = []
    outputs: list[Predictions] = []
    for batch in batches:
        with fabric.autocast():
            outputs.append(predict(module, fabric.to_device(batch)))
        # The pixels are most of a batch and are not needed again. The rest is copied: what came
        # from a worker is shared memory, which holds a file open for each tensor.
        copies = (column.clone() for column in batch[3:7])
        seen.append(Batch(batch.clips, batch.subjects, torch.empty(0), *copies))
    gathered = gather(fabric, (seen, [_on_cpu(part) for part in outputs]))
    seen = [batch for batches_of_one, _ in gathered for batch in batches_of_one]
    whole = _concatenated([part for _, outputs_of_one in gathered for part in outputs_of_one])
    boxes, points, mask, labels = (
        torch.cat([getattr(batch, name) for batch in seen])
        for name in ("boxes", "points", "mask", "labels")
    )
    losses = multitask_loss(whole, boxes, points, mask, labels, weights=loss_weights)
    return Evaluation(
        clips=[clip for batch in seen for clip in batch.clips],
        subjects=[subject for batch in seen for subject in batch.subjects],
        labels=labels.numpy(),
        probabilities=whole.logits.softmax(dim=1).numpy(),
        boxes=None if whole.boxes is None else whole.boxes.numpy(),
        points=None if whole.points is None else whole.points.numpy(),
        target_boxes=boxes.numpy(),
        target_points=points.numpy(),
        mask=mask.numpy(),
        losses={name: loss.item() for name, loss in losses._asdict().items()},
    )


def _on_cpu(part: Predictions) -> Predictions:
    """In float32 on the CPU."""
    return Predictions(*(None if x is None else x.float().cpu() for x in part))  # type: ignore[arg-type]


def _concatenated(parts: list[Predictions]) -> Predictions:
    """All predictions as one."""
    boxes = [part.boxes for part in parts if part.boxes is not None]
    points = [part.points for part in parts if part.points is not None]
    return Predictions(
        boxes=torch.cat(boxes) if boxes else None,
        points=torch.cat(points) if points else None,
        logits=torch.cat([part.logits for part in parts]),
    )


def predictions_table(tested: Evaluation, fold: int, classes: list[str]) -> pd.DataFrame:
    """A row per test clip: who, truth, prediction, probabilities, box overlap, landmark error.

    `boxes` (T * 4 numbers) and `points` (T * 10) are what was predicted, as fractions of the frame;
    empty lists for a structure without such heads.
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
            "boxes": _rows(tested.boxes, len(tested.clips)),
            "points": _rows(tested.points, len(tested.clips)),
        }
    )
    if tested.boxes is not None and tested.points is not None:
        table["box_iou"] = box_iou(tested.boxes, tested.target_boxes, tested.mask)
        table["landmark_error"] = landmark_error(tested.points, tested.target_points, tested.mask)
    for i, name in enumerate(classes):
        table[f"probability_{name}"] = tested.probabilities[:, i]
    return table.sort_values("clip", ignore_index=True)


def _rows(values: npt.NDArray[np.float32] | None, num_clips: int) -> list[npt.NDArray[np.float32]]:
    """One flat array per clip."""
    if values is None:
        return [np.empty(0, np.float32)] * num_clips
    return list(values.reshape(num_clips, -1))
