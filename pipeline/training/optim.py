"""AdamW with layer-wise learning rates, and the schedules of the recipes."""

import math
from collections.abc import Callable
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
        plateau_patience: Of `plateau`, in epochs.
    """

    kind: Literal["cosine", "plateau"]
    warmup_epochs: NonNegativeInt
    plateau_patience: PositiveInt


def adamw(
    model: nn.Module,
    settings: OptimizerSettings,
    layers_from_output: Callable[[str], int] = lambda name: 0,
) -> AdamW:
    """AdamW whose rate falls by `layer_decay` from each layer to the one below it.

    Biases and norms are not decayed. Frozen parameters are left out.

    Args:
        model: Whose parameters.
        settings: Rates.
        layers_from_output: From a parameter's name to how many layers lie between it and those that
            have the full rate.

    Source: BEiT (arXiv 2106.08254), appendix; VideoMAE fine-tunes the same way.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (layers_from_output(name), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return AdamW(
        [
            {
                "params": groups[distance, decays],
                "lr": settings.learning_rate * settings.layer_decay**distance,
                "weight_decay": settings.weight_decay if decays else 0.0,
            }
            for distance, decays in sorted(groups)
        ],
        fused=True,
    )


def make_schedule(
    settings: ScheduleSettings, optimizer: AdamW, *, epochs: int, steps_per_epoch: int
) -> LambdaLR | ReduceLROnPlateau:
    """The schedule of a recipe."""
    if settings.kind == "plateau":
        return plateau_schedule(optimizer, patience=settings.plateau_patience)
    return cosine_schedule(
        optimizer,
        warmup_steps=settings.warmup_epochs * steps_per_epoch,
        total_steps=epochs * steps_per_epoch,
    )


def cosine_schedule(optimizer: AdamW, *, warmup_steps: int, total_steps: int) -> LambdaLR:
    """Linear rise over `warmup_steps`, then half a cosine to zero; step it after every batch."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        return (1 + math.cos(math.pi * min(progress, 1))) / 2

    return LambdaLR(optimizer, factor)


def plateau_schedule(optimizer: AdamW, *, patience: int) -> ReduceLROnPlateau:
    """A tenth of the rate in the `patience`-th epoch in a row whose loss is not the lowest yet.

    Step it with the validation loss of every epoch.

    Source: the authors' notebook.
    """
    return ReduceLROnPlateau(optimizer, factor=0.1, patience=patience - 1)
