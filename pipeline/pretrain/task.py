"""What the training engine must know of pre-training: its loss and its validation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pipeline.pretrain.masks import MASK
from pipeline.store.batch import Batch
from pipeline.training.devices import sum_over_devices
from pipeline.training.task import Place, Validation


class PretrainTask:
    """The error of hidden pixels; batches carry their masks (`with_masks`).

    The best epoch has the lowest error on the held-out samples.

    Args:
        validation: Held-out samples, whose masks stay the same; this device's share.
    """

    loss_terms: tuple[str, ...] = ("loss",)

    def __init__(self, validation: Iterable[Batch]) -> None:
        self.validation = validation

    def parts(self, batch: Batch, place: Place, size: int) -> list[Batch]:
        """At most `size` samples at a time."""
        return batch.parts(size)

    def totals(self, module: nn.Module, part: Batch) -> Tensor:
        """Samples that count: all but those that an idle device repeats."""
        return part.targets[MASK].known.sum(dim=0, keepdim=True)

    def losses(self, module: nn.Module, part: Batch, totals: Tensor) -> Sequence[Tensor]:
        """The mean error of a sample, to which the parts of a batch add up.

        All samples have as many masked tokens, so that it is the mean over tokens as well.
        """
        return (_sum_of_errors(module, part) / totals[0],)

    @torch.no_grad()
    def validate(self, fabric: Fabric, module: nn.Module) -> Validation:
        """The mean error of the held-out samples.

        Raises:
            ValueError: There are none.
        """
        module.eval()
        sums = [torch.zeros(2, device=fabric.device)]
        for batch in self.validation:
            own = batch.to(fabric.device)
            with fabric.autocast():
                errors = _sum_of_errors(module, own)
            sums.append(torch.stack([errors, self.totals(module, own)[0].float()]))
        error, count = sum_over_devices(fabric, torch.stack(sums).sum(0)).tolist()
        if not count:
            raise ValueError("no sample is held out, so that no epoch can be validated")
        return Validation({"loss": error / count}, rank=(-error / count,))

    def state_dict(self) -> dict[str, Any]:
        """Nothing: masks are drawn from the seed, the epoch and the name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to go on from."""


def _sum_of_errors(module: nn.Module, part: Batch) -> Tensor:
    masks, known = part.targets[MASK]
    errors: Tensor = module(part.inputs, masks)
    return (errors * known).sum()
