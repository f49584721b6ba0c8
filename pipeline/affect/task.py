"""What the training engine must know of EMMA and of Masked CoTEX.

Shape letters: B pictures, V views, C classes, U action units, K classes of the frozen CNN.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pipeline.affect.cnn import ScoreSource
from pipeline.affect.emma import Predictions
from pipeline.affect.losses import (
    LossSettings,
    Totals,
    count,
    cross_entropy,
    js_divergence,
    multitask_loss,
)
from pipeline.affect.metrics import class_f1, score
from pipeline.affect.predictions import Evaluation, ask, evaluation_of
from pipeline.store.batch import Batch
from pipeline.training.task import Place, Validation


class Part:
    """Pictures that a device takes at once, and the two forward passes over them.

    The moments that the CCC needs are those of a whole batch, so that every part is predicted
    before the first one's gradients can be computed. Both passes draw the same random numbers, for
    drop path. A part that is all that its device takes is predicted once.

    Args:
        batch: The pictures.
        cnn_scores: Of the pictures, (B, K).
        seed: Of the random numbers.
        alone: Whether the device takes no other part of the batch.
    """

    def __init__(self, batch: Batch, cnn_scores: Tensor, *, seed: int, alone: bool) -> None:
        self.batch = batch
        self.cnn_scores = cnn_scores
        self.seed = seed
        self.alone = alone
        self._kept: Predictions | None = None

    @property
    def ids(self) -> list[str]:
        return self.batch.ids

    def predict_first(self, module: nn.Module) -> Predictions:
        """With its graph, although it is used only where the part is alone.

        Without it, torch may take other kernels and, compiled, draw other random numbers.
        """
        predictions = self._predict(module)
        if self.alone:
            self._kept = predictions
        return predictions

    def predict_again(self, module: nn.Module) -> Predictions:
        return self._kept or self._predict(module)

    def _predict(self, module: nn.Module) -> Predictions:
        torch.manual_seed(self.seed)
        predictions: Predictions = module(self.batch.inputs, self.cnn_scores)
        return predictions


class EMMATask:
    """Expression, action units, valence and arousal of pictures.

    The best epoch has the highest P_MTL on the validation groups, over those of its terms that have
    labels there; of equal ones it is that with the lowest loss.

    Args:
        loss: Weights of the losses.
        pos_weight: (U,) of the units' positives.
        cnn: Says the frozen CNN's scores.
        num_classes: C.
        seed: Of drop path.
        validation: Pictures of the validation groups; this device's share.
    """

    loss_terms: tuple[str, ...] = (
        "loss",
        "valence_loss",
        "arousal_loss",
        "expression_loss",
        "au_loss",
    )

    def __init__(
        self,
        loss: LossSettings,
        pos_weight: Tensor,
        cnn: ScoreSource,
        *,
        num_classes: int,
        seed: int,
        validation: Iterable[Batch],
    ) -> None:
        self.loss = loss
        self.pos_weight = pos_weight
        self.cnn = cnn
        self.num_classes = num_classes
        self.seed = seed
        self.validation = validation

    def parts(self, batch: Batch, place: Place, size: int) -> list[Part]:
        """At most `size` pictures at a time."""
        batches = batch.parts(size)
        return [
            Part(one, self.cnn(one), seed=self._seed(place, i), alone=len(batches) == 1)
            for i, one in enumerate(batches)
        ]

    def totals(self, module: nn.Module, part: Part) -> Tensor:
        """Labels that are known, and moments of what is predicted of valence and arousal."""
        predictions = part.predict_first(module)
        return count(part.batch.targets, predictions.valence_arousal.float()).flat()

    def losses(self, module: nn.Module, part: Part, totals: Tensor) -> Sequence[Tensor]:
        """The weighted sum and its terms, which the parts of a batch add up to."""
        predictions = part.predict_again(module)
        return self._losses(predictions, part.batch, Totals.from_flat(totals))

    def validate(self, fabric: Fabric, module: nn.Module) -> Validation:
        """Losses, CCC, F1 and P_MTL on the validation groups."""
        module.eval()
        asked = ask(fabric, self.answer(module), self.validation)
        predictions = Predictions(*asked.said)
        totals = count(asked.truth.targets, predictions.valence_arousal)
        loss = self._losses(predictions, asked.truth, totals)[0].item()
        scores, rank = self._score(evaluation_of(asked))
        return Validation({"loss": loss, **scores}, rank=(rank, -loss))

    def answer(self, module: nn.Module) -> Callable[[Batch], Predictions]:
        """How the model is asked about a batch."""

        def answer(batch: Batch) -> Predictions:
            predictions: Predictions = module(batch.inputs, self.cnn(batch))
            return predictions

        return answer

    def state_dict(self) -> dict[str, Any]:
        """Nothing: random numbers are drawn by their place."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to go on from."""

    def _losses(self, predictions: Predictions, batch: Batch, totals: Totals) -> Sequence[Tensor]:
        pos_weight = self.pos_weight.to(predictions.aus.device)
        return multitask_loss(predictions, batch.targets, self.loss, pos_weight, totals)

    def _score(self, evaluation: Evaluation) -> tuple[dict[str, float], float]:
        """Scores by name, and the sum of those terms of P_MTL that have labels."""
        found = score(evaluation.answers(), evaluation.truth, self.num_classes)
        terms = {
            "va_ccc": found.valence_arousal,
            "expression_f1": found.expression,
            "au_f1": found.mean_au,
        }
        return {"p_mtl": found.p_mtl, **terms}, float(np.nansum(list(terms.values())))

    def _seed(self, place: Place, part: int) -> int:
        return int(np.random.SeedSequence((self.seed, *place, part)).generate_state(1)[0])


class CoTEXTask:
    """Expressions of pictures in several views.

    The best epoch has the highest macro F1 on the validation groups; of equal ones it is that with
    the lowest loss.

    Args:
        js_weight: Of the divergence of the views; see `CoTEXSettings`.
        num_classes: C.
        validation: Pictures of the validation groups; this device's share.
    """

    loss_terms: tuple[str, ...] = ("loss", "expression_loss", "js_divergence")

    def __init__(self, js_weight: float, *, num_classes: int, validation: Iterable[Batch]) -> None:
        self.js_weight = js_weight
        self.num_classes = num_classes
        self.validation = validation

    def parts(self, batch: Batch, place: Place, size: int) -> list[Batch]:
        """At most `size` pictures at a time."""
        return batch.parts(size)

    def totals(self, module: nn.Module, part: Batch) -> Tensor:
        """Pictures with a known expression."""
        return part.targets["expression"].known.sum(dim=0, keepdim=True)

    def losses(self, module: nn.Module, part: Batch, totals: Tensor) -> Sequence[Tensor]:
        """The weighted sum and its terms, which the parts of a batch add up to."""
        return self._losses(module(part.inputs), part, totals)

    def validate(self, fabric: Fabric, module: nn.Module) -> Validation:
        """Losses and macro F1 on the validation groups, whose pictures are seen whole.

        Raises:
            ValueError: None of them has a known expression.
        """
        module.eval()
        asked = ask(fabric, self.answer(module), self.validation)
        views = asked.said[0].transpose(0, 1)
        totals = self.totals(module, asked.truth)
        loss, _, divergence = (x.item() for x in self._losses(views, asked.truth, totals))
        labels, known = asked.truth.targets["expression"]
        if not known.any():
            raise ValueError("no validation picture has a known expression to choose an epoch by")
        predicted = views.sum(dim=0).argmax(dim=1)
        f1 = class_f1(labels[known].numpy(), predicted[known].numpy(), self.num_classes)
        macro = float(np.mean(f1))
        scores = {"loss": loss, "expression_f1": macro, "js_divergence": divergence}
        return Validation(scores, rank=(macro, -loss))

    def answer(self, module: nn.Module) -> Callable[[Batch], tuple[Tensor, ...]]:
        """How the model is asked about a batch: logits (B, V, C)."""
        return lambda batch: (module(batch.inputs).transpose(0, 1),)

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to go on from."""

    def _losses(self, views: Tensor, batch: Batch, totals: Tensor) -> Sequence[Tensor]:
        target = batch.targets["expression"]
        number = totals[0].clamp(min=1)
        errors = torch.stack([cross_entropy(logits, target) for logits in views])
        expression = errors.mean() / number
        divergence = torch.where(target.known, js_divergence(views), 0).sum() / number
        return expression + self.js_weight * divergence, expression, divergence
