"""AdamW with layer-wise learning rates, and the schedules of the recipes."""

import math
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from pipeline.common.params import Section


class OptimizerSettings(Section):
    """AdamW.

    Attributes:
        learning_rate: Of the layers next to the output.
        weight_decay: Decoupled.
        layer_decay: Factor of the rate from one layer to the one below, in (0, 1].
    """

    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    layer_decay: Annotated[float, Field(gt=0, le=1)]


class ScheduleSettings(Section):
    """How the rate changes.

    Attributes:
        kind: `cosine`: half a cosine over all epochs; `plateau`: a tenth where the validation loss
            stays.
        warmup_epochs: Of `cosine`, in which the rate rises linearly.
        lowest_rate: From which `cosine` rises, and to which both kinds fall. Like `learning_rate`,
            of the layers next to the output; `layer_decay` lowers it for the others.
        plateau_patience: Of `plateau`, in epochs.
    """

    kind: Literal["cosine", "plateau"]
    warmup_epochs: NonNegativeInt
    lowest_rate: NonNegativeFloat
    plateau_patience: PositiveInt


def adamw(
    model: nn.Module,
    settings: OptimizerSettings,
    layers_from_output: Callable[[str], int] = lambda name: 0,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    not_decayed: Collection[str] = (),
    own_rates: Mapping[str, float] = MappingProxyType({}),
) -> AdamW:
    """AdamW whose rate falls by `layer_decay` from each layer to the one below it.

    Biases and norms are not decayed. Frozen parameters are left out.

    Args:
        model: Whose parameters.
        settings: Rates.
        layers_from_output: From a parameter's name to how many layers lie between it and those that
            have the full rate.
        betas: Decay of the moving averages of gradients and of their squares.
        not_decayed: Names of parameters that are spared as biases are.
        own_rates: Learning rates of parameters whose names begin so; `layer_decay` leaves these be.

    Source: BEiT (arXiv 2106.08254), appendix; VideoMAE fine-tunes the same way.
    """
    groups: dict[tuple[str, int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own = next((start for start in own_rates if name.startswith(start)), "")
            decays = parameter.ndim > 1 and name not in not_decayed
            key = (own, 0 if own else layers_from_output(name), decays)
            groups.setdefault(key, []).append(parameter)
    return AdamW(
        [
            {
                "params": groups[own, distance, decays],
                "lr": own_rates.get(own, settings.learning_rate * settings.layer_decay**distance),
                "weight_decay": settings.weight_decay if decays else 0.0,
            }
            for own, distance, decays in sorted(groups)
        ],
        betas=betas,
        fused=True,
    )


def make_schedule(
    settings: ScheduleSettings, optimizer: AdamW, *, epochs: int, steps_per_epoch: int
) -> LambdaLR | ReduceLROnPlateau:
    """The schedule of a recipe.

    Raises:
        ValueError: The lowest rate is above the optimiser's.
    """
    rate = max(group["lr"] for group in optimizer.param_groups)
    if settings.lowest_rate > rate:
        raise ValueError(
            f"schedule.lowest_rate is {settings.lowest_rate}, above the optimiser's learning rate "
            f"of {rate}"
        )
    lowest = settings.lowest_rate / rate
    if settings.kind == "plateau":
        return plateau_schedule(optimizer, patience=settings.plateau_patience, lowest=lowest)
    return cosine_schedule(
        optimizer,
        warmup_steps=settings.warmup_epochs * steps_per_epoch,
        total_steps=epochs * steps_per_epoch,
        lowest=lowest,
    )


def cosine_schedule(
    optimizer: AdamW, *, warmup_steps: int, total_steps: int, lowest: float
) -> LambdaLR:
    """Linear rise over `warmup_steps`, then half a cosine down; step it after every batch.

    The last step of the rise has the full rate. A step before the first one and a step after the
    last one would have the lowest.

    Args:
        optimizer: With its full rates.
        warmup_steps: Of the rise.
        total_steps: With the rise.
        lowest: Share of the full rate, 0 to 1.
    """

    def height(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        return (1 + math.cos(math.pi * min(progress, 1))) / 2

    return LambdaLR(optimizer, lambda step: lowest + (1 - lowest) * height(step))


def plateau_schedule(optimizer: AdamW, *, patience: int, lowest: float) -> ReduceLROnPlateau:
    """A tenth of the rate in the `patience`-th epoch in a row whose loss is not the lowest yet.

    Step it with the validation loss of every epoch.

    Args:
        optimizer: With its full rates.
        patience: In epochs.
        lowest: Share of the full rate, 0 to 1, below which it does not fall.

    Source: the authors' notebook.
    """
    return ReduceLROnPlateau(
        optimizer,
        factor=0.1,
        patience=patience - 1,
        min_lr=[lowest * group["lr"] for group in optimizer.param_groups],
    )
