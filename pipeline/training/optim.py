"""AdamW with layer-wise learning rates, and the schedules of the recipes."""

import math
from typing import Literal

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from pipeline.mtcae.model import MTCAE

Schedule = Literal["cosine", "plateau"]


def adamw(model: MTCAE, *, learning_rate: float, weight_decay: float, layer_decay: float) -> AdamW:
    """AdamW whose rate falls by `layer_decay` from each encoder block to the one below it.

    Biases and norms are not decayed. Frozen parameters are left out.

    Args:
        model: The model; its encoder has `depth` blocks.
        learning_rate: Rate of decoders, heads and the encoder's final norm.
        weight_decay: Decoupled decay.
        layer_decay: In (0, 1]; 1 gives all layers the same rate.

    Source: BEiT (arXiv 2106.08254), appendix; VideoMAE fine-tunes the same way.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (_layers_from_output(name, model.encoder.depth), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return AdamW(
        [
            {
                "params": groups[distance, decays],
                "lr": learning_rate * layer_decay**distance,
                "weight_decay": weight_decay if decays else 0.0,
            }
            for distance, decays in sorted(groups)
        ],
        fused=True,
    )


def _layers_from_output(name: str, depth: int) -> int:
    """0 above the encoder's blocks, 1 in its last block, depth + 1 in its embedding."""
    if name.startswith("encoder.blocks."):
        return depth - int(name.split(".")[2])
    return depth + 1 if name.startswith("encoder.patch_embed.") else 0


def make_schedule(
    kind: Schedule,
    optimizer: AdamW,
    *,
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: int,
    plateau_patience: int,
) -> LambdaLR | ReduceLROnPlateau:
    """The schedule of a recipe: a cosine over all epochs, or steps down where the loss stays."""
    if kind == "plateau":
        return plateau_schedule(optimizer, patience=plateau_patience)
    return cosine_schedule(
        optimizer,
        warmup_steps=warmup_epochs * steps_per_epoch,
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
