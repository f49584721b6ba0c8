"""The three losses of MTCAE-DFER and their weighted sum.

Shape letters: B clips, T frames, C classes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.mtcae.model import Predictions

# In the place of a class index: a clip that adds nothing to the loss.
NO_LABEL = -100


class LossWeights(NamedTuple):
    """Weights of the three terms.

    Source: MTCAE-DFER, section III.E.
    """

    boxes: float = 0.5
    points: float = 0.5
    expression: float = 1.5


class Counts(NamedTuple):
    """What sums of errors are divided by: scalars, counted over a whole batch.

    A batch may be computed in parts, one after the other or on several devices: with the counts of
    the whole, the losses of the parts add up to its loss.
    """

    clips: Tensor
    frames: Tensor


def count(mask: Tensor, labels: Tensor) -> Counts:
    """The clips with a label, and the frames whose boxes and points are known.

    Args:
        mask: (B, T).
        labels: (B,) class indices, or (B, C) probabilities.
    """
    labelled = labels.ne(NO_LABEL) if labels.ndim == 1 else labels.sum(dim=1) > 0
    return Counts(labelled.sum(), mask.sum())


class Losses(NamedTuple):
    """Scalars: the sum to minimise, and its unweighted terms; zero for a task without a head."""

    total: Tensor
    boxes: Tensor
    points: Tensor
    expression: Tensor


def multitask_loss(
    predictions: Predictions,
    boxes: Tensor,
    points: Tensor,
    mask: Tensor,
    labels: Tensor,
    *,
    weights: LossWeights,
    label_smoothing: float = 0.0,
    counts: Counts | None = None,
) -> Losses:
    """Weighted sum of squared box and landmark errors and cross-entropy.

    A structure without box and landmark heads (stl) is trained on the plain, unweighted
    cross-entropy.

    Args:
        predictions: The model's output.
        boxes: (B, T, 4) targets, fractions of the frame.
        points: (B, T, 5, 2) targets, fractions of the frame.
        mask: (B, T) frames whose targets are known; the others add nothing.
        labels: (B,) class indices, NO_LABEL among them, or (B, C) probabilities.
        weights: Weight of each term.
        label_smoothing: Probability spread over all classes.
        counts: Of the batch that these clips are a part of; None where they are all of it.
    """
    if counts is None:
        counts = count(mask, labels)
    # In float32 also under bf16 autocast: a box error of a pixel squared is 2e-5.
    logits = predictions.logits.float()
    expression = (
        F.cross_entropy(
            logits,
            labels,
            label_smoothing=label_smoothing,
            ignore_index=NO_LABEL,
            reduction="sum",
        )
        / counts.clips
    )
    if predictions.boxes is None or predictions.points is None:
        zero = torch.zeros_like(expression)
        return Losses(expression, zero, zero, expression)
    box_error = masked_mse(predictions.boxes.float(), boxes, mask, counts.frames)
    point_error = masked_mse(
        predictions.points.float().flatten(2), points.flatten(2), mask, counts.frames
    )
    total = (
        weights.boxes * box_error + weights.points * point_error + weights.expression * expression
    )
    return Losses(total, box_error, point_error, expression)


def masked_mse(predicted: Tensor, target: Tensor, mask: Tensor, num_frames: Tensor) -> Tensor:
    """Mean squared error over the known frames; zero, with zero gradients, where no frame is known.

    Args:
        predicted: (B, T, K).
        target: (B, T, K); what it holds in unknown frames does not matter.
        mask: (B, T).
        num_frames: Known frames of the whole batch, of which these clips may be a part.
    """
    errors = torch.where(mask[..., None], predicted - target, 0)
    return errors.square().mean(dim=-1).sum() / num_frames.clamp(min=1)
