"""The losses of EMMA and Masked CoTEX, over the images in which each label is known.

A batch may be computed in parts, one after the other or on several devices: with the totals of the
whole, the losses of its parts add up to its loss, and their gradients to its gradient. For the CCC,
which is no sum over images, the totals hold the moments of all predictions; see `ccc_loss`.

Shape letters: B images, C classes, U action units, V views, K totals.

Source: arXiv 2207.11679, section 3; docs/affect.md says where this departs from it.
"""

from collections.abc import Mapping
from math import log
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from pipeline.affect.emma import Predictions
from pipeline.common.params import Section
from pipeline.store.batch import Target

# In the place of a class index, for F.cross_entropy: an image that adds nothing to the loss.
_NO_LABEL = -100
# Of a number that is predicted and of its label: count, sums, sums of squares, sum of products.
_NUM_MOMENTS = 6


class LossSettings(Section):
    """Weights of the three terms; 1 each in the paper.

    Attributes:
        valence_arousal: Weight of 1 - CCC, summed over valence and arousal.
        expression: Weight of the cross-entropy.
        aus: Weight of the binary cross-entropy, summed over the units.
        au_divisor: What the sum over a unit's images is divided by: the `labelled` ones of them, or
            the whole `batch`, as in the authors' code.
        pos_weight: Of a unit's positives against its negatives: `balanced`, which is negatives /
            positives of the training images, `one`, or U numbers.
    """

    valence_arousal: NonNegativeFloat
    expression: NonNegativeFloat
    aus: NonNegativeFloat
    au_divisor: Literal["labelled", "batch"]
    pos_weight: Literal["balanced", "one"] | tuple[PositiveFloat, ...]


class Totals(NamedTuple):
    """What is summed over a whole batch, in double precision.

    Attributes:
        images: () with any known label.
        expression: () with a known expression.
        aus: (U,) with that unit known.
        moments: (2, 6) of valence and arousal; see `ccc_loss`.
    """

    images: Tensor
    expression: Tensor
    aus: Tensor
    moments: Tensor

    def flat(self) -> Tensor:
        """(K,) numbers that can be added up; the first is the number of images."""
        return torch.cat([part.flatten() for part in self])

    @classmethod
    def from_flat(cls, totals: Tensor) -> "Totals":
        """What `flat` flattened."""
        end = len(totals) - 2 * _NUM_MOMENTS
        return cls(totals[0], totals[1], totals[2:end], totals[end:].view(2, _NUM_MOMENTS))


def count(targets: Mapping[str, Target], valence_arousal: Tensor) -> Totals:
    """The totals of some images.

    Args:
        targets: `valence_arousal` (B, 2), `expression` (B,) and `aus` (B, U).
        valence_arousal: (B, 2) that are predicted.
    """
    exact = _exact(valence_arousal)
    numbers, expression, aus = (targets[name] for name in ("valence_arousal", "expression", "aus"))
    some = numbers.known.any(dim=1) | expression.known | aus.known.any(dim=1)
    return Totals(
        some.sum().to(exact),
        expression.known.sum().to(exact),
        aus.known.sum(dim=0).to(exact),
        moments(valence_arousal, numbers),
    )


def moments(predicted: Tensor, target: Target) -> Tensor:
    """(2, 6) sums over the known of (B, 2) numbers: 1, x, y, x^2, y^2, x y; no gradient."""
    exact = _exact(predicted)
    x, y = predicted.detach().to(exact), target.values.to(exact)
    columns = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y])
    return torch.where(target.known, columns, 0).sum(dim=1).mT


def ccc_loss(predicted: Tensor, target: Target, whole: Tensor) -> Tensor:
    """(2,) share of some images in 1 - CCC of the whole batch, for each of two numbers.

    The value is divided among the parts of a batch by their known labels. The gradient is that of
    sum_i g_i x_i, where g_i is the derivative of the batch's loss by the prediction x_i, a constant
    here. Both are 0 where fewer than two labels are known, or where predictions and labels are one
    constant.

    Args:
        predicted: (B, 2) numbers x.
        target: Their labels y.
        whole: (2, 6) moments of the batch, of which these images are a part, for the same
            predictions.
    """
    known, exact = target.known, whole.dtype
    x, y = predicted.detach().to(exact), torch.where(known, target.values, 0).to(exact)
    n, *sums = whole.unbind(dim=1)
    n = n.clamp(min=1)
    x_mean, y_mean, x_square, y_square, product = (total / n for total in sums)
    # The sum of both variances and of the squared distance of the means.
    spread = x_square + y_square - 2 * x_mean * y_mean
    rounding = 100 * torch.finfo(exact).eps * (x_square + y_square)
    defined = (whole[:, 0] >= 2) & (spread > rounding)
    spread = torch.where(defined, spread, 1)
    ccc = 2 * (product - x_mean * y_mean) / spread
    slopes = -2 / (n * spread) * ((y - y_mean) - ccc * (x - y_mean))
    slopes = torch.where(known & defined, slopes, 0).to(predicted.dtype)
    value = torch.where(defined, (1 - ccc) * known.sum(dim=0) / n, 0)
    surrogate = (slopes * predicted).sum(dim=0)
    return value.to(predicted.dtype) + surrogate - surrogate.detach()


class Losses(NamedTuple):
    """Scalars: the sum to minimise, and its unweighted terms."""

    total: Tensor
    valence: Tensor
    arousal: Tensor
    expression: Tensor
    aus: Tensor


def multitask_loss(
    predictions: Predictions,
    targets: Mapping[str, Target],
    settings: LossSettings,
    pos_weight: Tensor,
    totals: Totals,
) -> Losses:
    """Weighted sum of 1 - CCC, cross-entropy and binary cross-entropy.

    Args:
        predictions: The model's output.
        targets: As in `count`.
        settings: Weights.
        pos_weight: (U,) weights of the units' positives.
        totals: Of the batch that these images are, or are a part of, for the same predictions.
    """
    numbers = predictions.valence_arousal.float()
    valence, arousal = ccc_loss(numbers, targets["valence_arousal"], totals.moments)
    expression = cross_entropy(predictions.expression, targets["expression"])
    expression = expression / totals.expression.clamp(min=1).float()
    divisors = totals.aus if settings.au_divisor == "labelled" else totals.images
    errors = au_errors(predictions.aus, targets["aus"], pos_weight)
    aus = (errors / divisors.clamp(min=1).float()).sum()
    total = (
        settings.valence_arousal * (valence + arousal)
        + settings.expression * expression
        + settings.aus * aus
    )
    return Losses(total, valence, arousal, expression, aus)


def cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """Sum over the images whose class is known, in float32: logits (B, C), classes (B,)."""
    classes = target.values.masked_fill(~target.known, _NO_LABEL)
    return F.cross_entropy(logits.float(), classes, ignore_index=_NO_LABEL, reduction="sum")


def au_errors(logits: Tensor, target: Target, pos_weight: Tensor) -> Tensor:
    """(U,) binary cross-entropy of each unit, summed over the images in which it is known.

    Args:
        logits: (B, U).
        target: (B, U), 1 where a unit is active.
        pos_weight: (U,) weights of the positives.
    """
    active = torch.where(target.known, target.values, 0).float()
    errors = F.binary_cross_entropy_with_logits(
        logits.float(), active, pos_weight=pos_weight, reduction="none"
    )
    return torch.where(target.known, errors, 0).sum(dim=0)


def js_divergence(logits: Tensor) -> Tensor:
    """(B,) how much V views differ in what they say of an image, from 0 to ln V nats.

    The mean over views of the Kullback-Leibler divergence from the view's distribution to the mean
    of all; with two views, that of Jensen and Shannon. Gradients go to every view.

    Args:
        logits: (V, B, C).
    """
    views = logits.float().log_softmax(dim=-1)
    mean = views.logsumexp(dim=0) - log(len(views))
    return (views.exp() * (views - mean)).sum(dim=-1).mean(dim=0)


def positive_weights(settings: LossSettings, target: Target) -> Tensor:
    """(U,) weights of the units' positives, given the training images' units (N, U).

    A unit of which all known labels are alike has the weight 1 where weights are balanced.

    Raises:
        ValueError: The settings have weights for another number of units.
    """
    num_aus = target.known.shape[1]
    if settings.pos_weight == "one":
        return torch.ones(num_aus)
    if settings.pos_weight != "balanced":
        if len(settings.pos_weight) != num_aus:
            raise ValueError(
                f"loss.pos_weight has {len(settings.pos_weight)} numbers for {num_aus} action units"
            )
        return torch.tensor(settings.pos_weight)
    positives = (target.known & (target.values > 0)).sum(dim=0).float()
    negatives = target.known.sum(dim=0) - positives
    both = (positives > 0) & (negatives > 0)
    return torch.where(both, negatives / positives.clamp(min=1), 1)


def _exact(tensor: Tensor) -> torch.dtype:
    """Double precision, where the device has it."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64
