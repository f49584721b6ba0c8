"""The three losses of MTCAE-DFER and their weighted sum.

Shape letters: B clips, T frames, C classes.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from pipeline.common.params import Section
from pipeline.mtcae.model import Predictions
from pipeline.store.batch import Batch, Target

# In the place of a class index, for F.cross_entropy: a clip that adds nothing to the loss.
_NO_LABEL = -100


class LossSettings(Section):
    """Weights of the three terms, and of the uniform distribution in the labels.

    Attributes:
        boxes: Weight of the boxes' squared errors.
        points: Weight of the landmarks' squared errors.
        expression: Weight of the cross-entropy.
        scale: What an error is measured in: `frame`, fractions of the frame, or `variance`, which
            divides a squared error by the variance of its target, so that the best constant guess
            costs 1 for boxes and points alike.
        label_smoothing: Probability spread over all classes.

    Source: MTCAE-DFER, section III.E, which has `frame`.
    """

    boxes: NonNegativeFloat
    points: NonNegativeFloat
    expression: NonNegativeFloat
    scale: Literal["frame", "variance"]
    label_smoothing: Annotated[float, Field(ge=0, le=1)]


# Of a target that hardly changes, in squared fractions of the frame: a thousandth of its side.
_SMALLEST_VARIANCE = 1e-6


def in_fractions(settings: LossSettings, batches: Iterable[Batch]) -> LossSettings:
    """The same loss as weights of errors in fractions of the frame.

    Args:
        settings: With either scale.
        batches: From which variances are taken: over the frames with a known face, and as a mean
            over the coordinates.

    Raises:
        ValueError: No frame of the batches has a known face.
    """
    if settings.scale == "frame":
        return settings
    found: dict[str, list[Tensor]] = {"boxes": [], "points": []}
    for batch in batches:
        for name, values in found.items():
            target = batch.targets[name]
            values.append(target.values[target.known].flatten(1).double())
    variances = {name: torch.cat(values).var(dim=0, correction=0) for name, values in found.items()}
    boxes, points = (max(float(variances[name].mean()), _SMALLEST_VARIANCE) for name in found)
    return settings.model_copy(
        update={
            "boxes": settings.boxes / boxes,
            "points": settings.points / points,
            "scale": "frame",
        }
    )


class Totals(NamedTuple):
    """What sums of errors are divided by: scalars, counted over a whole batch.

    A batch may be computed in parts, one after the other or on several devices: with the totals of
    the whole, the losses of the parts add up to its loss.

    Attributes:
        clips: With a known label.
        frames: With a known face.
    """

    clips: Tensor
    frames: Tensor


def count(targets: Mapping[str, Target]) -> Totals:
    """The clips and frames of which something is known."""
    return Totals(targets["expression"].known.sum(), targets["boxes"].known.sum())


class Losses(NamedTuple):
    """Scalars: the sum to minimise, and its unweighted terms; zero for a task without a head."""

    total: Tensor
    boxes: Tensor
    points: Tensor
    expression: Tensor


def multitask_loss(
    predictions: Predictions, targets: Mapping[str, Target], settings: LossSettings, totals: Totals
) -> Losses:
    """Weighted sum of squared box and landmark errors and cross-entropy.

    A structure without box and landmark heads (stl) is trained on the plain, unweighted
    cross-entropy.

    Args:
        predictions: The model's output.
        targets: `boxes` (B, T, 4) and `points` (B, T, 5, 2), fractions of the frame, and
            `expression`, class indices (B,), or probabilities (B, C), which are taken as they are.
        settings: Weights, and the smoothing of class indices.
        totals: Of the batch that these clips are, or are a part of.
    """
    expression = _cross_entropy(predictions.logits, targets["expression"], settings) / totals.clips
    if predictions.boxes is None or predictions.points is None:
        zero = torch.zeros_like(expression)
        return Losses(expression, zero, zero, expression)
    boxes, points = targets["boxes"], targets["points"]
    # In float32 also under bf16 autocast: a box error of a pixel squared is 2e-5.
    box_error = masked_mse(predictions.boxes.float(), boxes.values, boxes.known, totals.frames)
    point_error = masked_mse(
        predictions.points.float().flatten(2),
        points.values.flatten(2),
        points.known,
        totals.frames,
    )
    total = (
        settings.boxes * box_error
        + settings.points * point_error
        + settings.expression * expression
    )
    return Losses(total, box_error, point_error, expression)


def _cross_entropy(logits: Tensor, target: Target, settings: LossSettings) -> Tensor:
    """Sum over the clips whose label is known, in float32."""
    labels, known = target
    if labels.ndim > 1:
        return F.cross_entropy(logits.float(), labels * known[:, None], reduction="sum")
    return F.cross_entropy(
        logits.float(),
        labels.masked_fill(~known, _NO_LABEL),
        label_smoothing=settings.label_smoothing,
        ignore_index=_NO_LABEL,
        reduction="sum",
    )


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
