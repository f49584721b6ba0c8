"""One step of the optimiser, on as many samples as the settings say, wherever and in what parts."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor

from pipeline.training.devices import gather, sum_over_devices
from pipeline.training.task import B, P, Place, Task


class StepResult(NamedTuple):
    """What a step saw on all devices.

    Attributes:
        losses: Of the whole batch, one per loss term.
        num_samples: Of the whole batch.
        gradient_norm: Before it is clipped.
        wishes: Each of the flags, where any process raised it.
    """

    losses: list[float]
    num_samples: int
    gradient_norm: float
    wishes: list[bool]


def take_step(
    fabric: Fabric,
    module: _FabricModule,
    optimizer: _FabricOptimizer,
    task: Task[B, P],
    parts: list[P],
    place: Place,
    *,
    clip_gradients: float,
    wishes: Callable[[], Sequence[bool]] = tuple,
) -> StepResult:
    """Change the weights by the gradients of a whole batch, of which this device has a share.

    Losses are divided by the totals of the whole batch, so that the
    gradients are the same however it is divided.

    Args:
        fabric: Device, precision, and the other processes.
        module: The model, set up by Fabric and in training mode.
        optimizer: Set up by Fabric; without gradients, before and after.
        task: Whose losses.
        parts: Of this device's share of the batch, computed one after the other.
        place: Of the step.
        clip_gradients: Largest gradient norm; 0 leaves gradients alone.
        wishes: Flags of this process that all processes must know of, asked for after the backward
            pass: they travel with the losses, so that a step waits for the device only once.

    Raises:
        FloatingPointError: Loss or gradients are not finite; the message names the samples of the
            batch. The weights are as they were.
    """
    own = torch.stack([task.totals(module, part) for part in parts])
    totals = sum_over_devices(fabric, own.sum(dim=0))
    sums = _add_gradients(fabric, module, task, parts, totals)
    norm = fabric.clip_gradients(
        module, optimizer, max_norm=clip_gradients or math.inf, error_if_nonfinite=False
    )
    assert isinstance(norm, torch.Tensor)
    flags = torch.tensor([float(wish) for wish in wishes()], device=fabric.device)
    # Read at once: a GPU has nothing to do while a number is read.
    numbers = [*sum_over_devices(fabric, torch.cat([sums, flags])), norm, totals[0].float()]
    *values, gradient, num_samples = torch.stack(numbers).tolist()
    means, raised = values[: len(sums)], values[len(sums) :]
    _check_finite(fabric, "loss", means[0], parts, place)
    _check_finite(fabric, "gradient", gradient, parts, place)
    optimizer.step()
    # Not before the backward pass: no gradients need to live during the forward pass.
    optimizer.zero_grad()
    return StepResult(means, int(num_samples), gradient, [flag > 0 for flag in raised])


def _add_gradients(
    fabric: Fabric, module: _FabricModule, task: Task[B, P], parts: list[P], totals: Tensor
) -> Tensor:
    """Forward and backward through the parts of this device; the sum of their losses, by term."""
    sums = torch.zeros(len(task.loss_terms), device=fabric.device)
    for i, part in enumerate(parts):
        with fabric.no_backward_sync(module, enabled=i + 1 < len(parts)):
            losses = task.losses(module, part, totals)
            # The devices' gradients are averaged, and the sum is meant.
            fabric.backward(losses[0] * fabric.world_size)
        sums += torch.stack(list(losses)).detach()
    return sums


def _check_finite(fabric: Fabric, what: str, value: float, parts: list[P], place: Place) -> None:
    """Stop on all devices: each of them knows the same value."""
    if not math.isfinite(value):
        own = [name for part in parts for name in part.ids]
        ids = [name for share in gather(fabric, own) for name in share]
        raise FloatingPointError(
            f"the {what} of epoch {place.epoch} is {value}; the batch held the samples "
            f"{', '.join(ids)}: lower the recipe's learning rate"
        )
