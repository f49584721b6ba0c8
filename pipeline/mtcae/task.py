"""What the training engine must know of MTCAE-DFER: its losses, its validation, its best epoch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pipeline.feed.mix import MixSettings, mix_batch
from pipeline.mtcae.loss import LossSettings, Totals, count, multitask_loss
from pipeline.mtcae.optimistic import Optimistic
from pipeline.mtcae.predictions import evaluate
from pipeline.scores.metrics import recalls
from pipeline.store.batch import Batch
from pipeline.training.task import Place, Validation


class MTCAETask:
    """Boxes, landmarks and expression of clips.

    The best epoch has the highest UAR on the validation subjects; of equal ones it is that with the
    lowest expression loss.

    Args:
        loss: Weights of the losses.
        mix: Mixup and cutmix of the clips that a device takes at once.
        num_classes: C.
        seed: Of mixing.
        validation: Clips of the validation subjects; this device's share.
        tested: Clips of the test subjects, which are predicted after every epoch for `optimistic`
            alone; None: they are not.
        views: Makes of a model the one that is asked about test clips; see `ViewMean`.

    Attributes:
        optimistic: The best epoch on the test subjects; None where they are not predicted.
    """

    loss_terms: tuple[str, ...] = ("loss", "box_loss", "point_loss", "expression_loss")

    def __init__(
        self,
        loss: LossSettings,
        mix: MixSettings,
        *,
        num_classes: int,
        seed: int,
        validation: Iterable[Batch],
        tested: Iterable[Batch] | None = None,
        views: Callable[[nn.Module], nn.Module] = lambda module: module,
    ) -> None:
        self.loss = loss
        self.mix = mix
        self.num_classes = num_classes
        self.seed = seed
        self.validation = validation
        self.tested = tested
        self.views = views
        self.optimistic = None if tested is None else Optimistic()

    def parts(self, batch: Batch, place: Place, size: int) -> list[Batch]:
        """At most `size` clips at a time, mixed with one another where the recipe says so."""
        parts = batch.parts(size)
        if not self.mix.changes:
            return parts
        return [
            mix_batch(
                part,
                self.mix,
                num_classes=self.num_classes,
                label_smoothing=self.loss.label_smoothing,
                generator=np.random.default_rng((self.seed, *place, i * size)),
            )
            # An idle device has a single clip, whose label is not known.
            if len(part) > 1
            else part
            for i, part in enumerate(parts)
        ]

    def totals(self, module: nn.Module, part: Batch) -> Tensor:
        """Clips with a known label, frames with a known face."""
        return torch.stack(count(part.targets))

    def losses(self, module: nn.Module, part: Batch, totals: Tensor) -> Sequence[Tensor]:
        """The weighted sum and its terms, which the parts of a batch add up to."""
        return multitask_loss(module(part.inputs), part.targets, self.loss, Totals(*totals))

    def validate(self, fabric: Fabric, module: nn.Module) -> Validation:
        """Losses, UAR and WAR on the validation subjects."""
        if self.tested is not None and self.optimistic:
            said = evaluate(fabric, self.views(module), self.tested, self.loss)
            self.optimistic.see(said, self.num_classes)
        found = evaluate(fabric, module, self.validation, self.loss)
        scores = recalls(found.labels, found.probabilities.argmax(axis=1), self.num_classes)
        expression = found.losses["expression"]
        return Validation(
            {
                "loss": found.losses["total"],
                "expression_loss": expression,
                "uar": float(scores.uar),
                "war": float(scores.war),
            },
            rank=(float(scores.uar), -expression),
        )

    def state_dict(self) -> dict[str, Any]:
        """The best epoch on the test subjects so far."""
        return vars(self.optimistic).copy() if self.optimistic else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` found."""
        if self.optimistic:
            self.optimistic = Optimistic(**state)
