"""What the training engine must know of pre-training: its loss and its validation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor, nn

from pipeline.store.batch import Batch
from pipeline.training.task import Place, Validation


class PretrainTask:
    """The error of hidden pixels; batches carry their masks (`with_masks`).

    The best epoch has the lowest error on the held-out samples.

    Args:
        validation: Held-out samples with masks that stay the same; this device's share.
    """

    loss_terms: tuple[str, ...] = ("loss",)

    def __init__(self, validation: Iterable[Batch]) -> None:
        self.validation = validation

    def parts(self, batch: Batch, place: Place, size: int) -> list[Batch]:
        """At most `size` samples at a time."""
        return batch.parts(size)

    def totals(self, part: Batch) -> Tensor:
        """Samples that count: all but those that an idle device repeats."""
        raise NotImplementedError

    def losses(self, module: nn.Module, part: Batch, totals: Tensor) -> Sequence[Tensor]:
        """The mean error of a sample, to which the parts of a batch add up."""
        raise NotImplementedError

    def validate(self, fabric: Fabric, module: nn.Module) -> Validation:
        """The mean error of the held-out samples."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Nothing: masks are drawn from the seed, the epoch and the name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to go on from."""
