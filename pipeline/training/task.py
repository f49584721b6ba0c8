"""What a system tells the training engine: all that the engine itself does not know.

Shape letters: K totals.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn


class Batch(Protocol):
    """Samples of one device."""

    @property
    def ids(self) -> list[str]: ...

    def to(self, device: torch.device) -> Self: ...


class Part(Protocol):
    """Samples that a device takes at once."""

    @property
    def ids(self) -> list[str]: ...


B_co = TypeVar("B_co", bound=Batch, covariant=True)
B_contra = TypeVar("B_contra", bound=Batch, contravariant=True)
B = TypeVar("B", bound=Batch)
P = TypeVar("P", bound=Part)


class Batches(Protocol[B_co]):
    """Batches of this device, epoch after epoch.

    Attributes:
        steps_per_epoch: Batches of an epoch.
    """

    steps_per_epoch: int

    def starting_at(self, epoch: int, step: int) -> Iterator[B_co]:
        """The batches after `step` ones of an epoch (from 1) were taken, without end."""
        ...


class Place(NamedTuple):
    """Where in the training a step is, and on which device; random draws of a step depend on it."""

    epoch: int
    step: int
    rank: int


class Validation(NamedTuple):
    """What validation says of an epoch.

    Attributes:
        scores: By name; one is called like the first of the task's loss terms.
        rank: The epoch with the largest one is the best.
    """

    scores: Mapping[str, float]
    rank: tuple[float, ...]


class Remembers(Protocol):
    """What of a task goes on with a training that was stopped."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; nothing where the task remembers nothing."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put everything back to what `state_dict` found."""
        ...


class Task(Remembers, Protocol[B_contra, P]):
    """The losses and the validation of a system.

    A step's batch is divided over devices, and on each of them into parts: the losses of all parts
    add up to the loss of the batch.

    Attributes:
        loss_terms: Names; the first one is minimised.
    """

    loss_terms: tuple[str, ...]

    def parts(self, batch: B_contra, place: Place, size: int) -> list[P]:
        """A device's batch in parts of at most `size` samples; an idle device has one part, too."""
        ...

    def totals(self, module: nn.Module, part: P) -> Tensor:
        """What the losses must know of the whole batch, as sums over a part, (K,).

        The first counts its samples. A task whose loss is no sum over samples asks the module here;
        then the random numbers of that pass and of the one in `losses` must be the same.
        """
        ...

    def losses(self, module: nn.Module, part: P, totals: Tensor) -> Sequence[Tensor]:
        """A scalar for each loss term, given the totals (K,) of the whole batch."""
        ...

    def validate(self, fabric: Fabric, module: nn.Module) -> Validation:
        """Scores of a model on all validation samples; every process gets the same."""
        ...
