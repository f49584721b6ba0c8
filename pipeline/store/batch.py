"""Samples as a model reads them: what it sees, and what it should say.

Shape letters: B samples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor


class Target(NamedTuple):
    """What is to be predicted for B samples, and where that is known.

    Attributes:
        values: (B, ...); what it holds where it is not known does not matter.
        known: Booleans, whose axes are the first ones of `values`: (B,), or (B, T) for frames.
    """

    values: Tensor
    known: Tensor


@dataclass(frozen=True)
class Batch:
    """B samples.

    Attributes:
        ids: B names.
        groups: B names of what folds keep together: subjects.
        inputs: (B, ...), frames or what an encoder said of them.
        targets: By name of what is to be predicted.
    """

    ids: list[str]
    groups: list[str]
    inputs: Tensor
    targets: Mapping[str, Target]

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, numbers: Sequence[int]) -> Self:
        """Some of the samples, in that order."""
        chosen = torch.tensor(numbers, dtype=torch.long, device=self.inputs.device)
        return replace(
            self._map_tensors(lambda column: column[chosen]),
            ids=[self.ids[i] for i in numbers],
            groups=[self.groups[i] for i in numbers],
        )

    def parts(self, size: int) -> list[Self]:
        """The samples in order, at most `size` at a time; no tensor is copied."""
        return [self._slice(slice(i, i + size)) for i in range(0, len(self), size)]

    def segment(self, number: int, count: int) -> Self:
        """Every `count`-th frame from frame `number` on: one of the samplings that are stored.

        Inputs are frames (B, T, ...); targets that are known for each frame go along.
        """
        some = slice(number, None, count)
        targets = {
            name: Target(target.values[:, some], target.known[:, some])
            if target.known.ndim > 1
            else target
            for name, target in self.targets.items()
        }
        return replace(self, inputs=self.inputs[:, some], targets=targets)

    def to(self, device: torch.device) -> Self:
        """The same on a device; copies to a GPU out of pinned memory run beside other work."""
        beside = device.type == "cuda"
        return self._map_tensors(lambda column: column.to(device, non_blocking=beside))

    def pin_memory(self) -> Self:
        """The same in memory from which a GPU can copy; torch's loader calls this."""
        return self._map_tensors(lambda column: column.pin_memory())

    def share_memory(self) -> Self:
        """The same in memory that another process can take over without a copy."""
        return self._map_tensors(lambda column: column.share_memory_())  # type: ignore[no-untyped-call]

    def without_inputs(self) -> Self:
        """Names and targets alone, copied.

        What came from a loader's worker is shared memory, which holds a file open for each tensor.
        """
        copied = self._map_tensors(lambda column: column.clone(), inputs=False)
        return replace(copied, inputs=torch.empty(len(self), 0))

    def without_targets(self) -> Self:
        """The same samples, of which nothing is known."""
        hidden = {
            name: target._replace(known=torch.zeros_like(target.known))
            for name, target in self.targets.items()
        }
        return replace(self, targets=hidden)

    def with_target(self, name: str, target: Target) -> Self:
        """The same samples with another target of that name."""
        return replace(self, targets={**self.targets, name: target})

    def _slice(self, part: slice) -> Self:
        sliced = self._map_tensors(lambda column: column[part])
        return replace(sliced, ids=self.ids[part], groups=self.groups[part])

    def _map_tensors(self, change: Callable[[Tensor], Tensor], inputs: bool = True) -> Self:
        """The same with every tensor changed."""
        return replace(
            self,
            inputs=change(self.inputs) if inputs else self.inputs,
            targets={
                name: Target(change(target.values), change(target.known))
                for name, target in self.targets.items()
            },
        )


def concatenate(batches: Sequence[Batch]) -> Batch:
    """All samples of some batches as one batch."""

    def join_targets(name: str) -> Target:
        found = [batch.targets[name] for batch in batches]
        return Target(torch.cat([t.values for t in found]), torch.cat([t.known for t in found]))

    return Batch(
        ids=[name for batch in batches for name in batch.ids],
        groups=[name for batch in batches for name in batch.groups],
        inputs=torch.cat([batch.inputs for batch in batches]),
        targets={name: join_targets(name) for name in batches[0].targets},
    )
