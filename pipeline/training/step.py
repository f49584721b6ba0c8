"""One step of the optimiser, on as many clips as the recipe says, wherever and in whatever parts.

Shape letters: B clips, T frames, C classes.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.wrappers import _FabricModule, _FabricOptimizer

from pipeline.feed.augment import mix_batch
from pipeline.mtcae.loss import Counts, LossWeights, count, multitask_loss
from pipeline.mtcae.predictions import predict
from pipeline.store.shards import Batch
from pipeline.training.devices import gather, total


class Mixing(NamedTuple):
    """Mixup and cutmix of the clips that a device takes at once; see `mix_batch`."""

    mixup_alpha: float
    cutmix_alpha: float
    probability: float
    num_classes: int


class Place(NamedTuple):
    """Where in the training a step is; the draws of mixup and cutmix depend on it."""

    seed: int
    epoch: int
    step: int


class Taken(NamedTuple):
    """What a step saw on all devices.

    Attributes:
        losses: Of the whole batch: total, boxes, points, expression.
        num_clips: Of the whole batch.
    """

    losses: list[float]
    num_clips: int


def take_step(
    fabric: Fabric,
    module: _FabricModule,
    optimizer: _FabricOptimizer,
    batch: Batch,
    place: Place,
    *,
    max_clips: int,
    loss_weights: LossWeights,
    label_smoothing: float,
    mixing: Mixing,
    clip_gradients: float,
) -> Taken:
    """Change the weights by the gradients of a whole batch, of which this device has a share.

    The share is computed in parts of at most `max_clips`. Losses are divided by the clips and known
    frames of the whole batch, so that the gradients are the same however it is divided.

    Args:
        fabric: Device, precision, and the other processes.
        module: The model, set up by Fabric and in training mode.
        optimizer: Set up by Fabric; without gradients, before and after.
        batch: This device's share; see `batches.shares`.
        place: See `Place`.
        max_clips: Most clips that the device takes at once.
        loss_weights: See `multitask_loss`.
        label_smoothing: See `multitask_loss`.
        mixing: Of the clips of one part.
        clip_gradients: Largest gradient norm; 0 leaves gradients alone.

    Raises:
        FloatingPointError: Loss or gradients are not finite; the message names the clips of the
            batch. The weights are as they were.
    """
    batch = fabric.to_device(batch)
    parts = []
    for i in range(0, len(batch.clips), max_clips):
        columns = (column if column is None else column[i : i + max_clips] for column in batch)
        part = Batch(*columns)  # type: ignore[arg-type]
        parts.append(mixed(part, mixing, label_smoothing, (*place, fabric.global_rank, i)))
    own = torch.stack([torch.stack(count(part.mask, part.labels)) for part, _ in parts])
    counts = Counts(*total(fabric, own.sum(dim=0)))

    sums = torch.zeros(4, device=fabric.device)
    for i, (part, smoothing) in enumerate(parts):
        with fabric.no_backward_sync(module, enabled=i + 1 < len(parts)):
            losses = multitask_loss(
                predict(module, part),
                part.boxes,
                part.points,
                part.mask,
                part.labels,
                weights=loss_weights,
                label_smoothing=smoothing,
                counts=counts,
            )
            # The devices' gradients are averaged, and the sum is meant.
            fabric.backward(losses.total * fabric.world_size)
        sums += torch.stack(losses).detach()
    norm = fabric.clip_gradients(
        module, optimizer, max_norm=clip_gradients or math.inf, error_if_nonfinite=False
    )
    assert norm is not None
    # Read at once: a GPU has nothing to do while a number is read.
    read = torch.stack([*total(fabric, sums), norm, counts.clips.float()]).tolist()
    *means, gradient, num_clips = read
    _check_finite(fabric, "loss", means[0], batch, place)
    _check_finite(fabric, "gradient", gradient, batch, place)
    optimizer.step()
    # Not before the backward pass: no gradients need to live during the forward pass.
    optimizer.zero_grad()
    return Taken(means, int(num_clips))


def mixed(
    batch: Batch, mixing: Mixing, label_smoothing: float, draws: tuple[int, ...]
) -> tuple[Batch, float]:
    """The clips mixed with one another, and the label smoothing that is still to be done.

    Args:
        batch: On its device.
        mixing: See `Mixing`.
        label_smoothing: To be done.
        draws: Seed of the draws.

    Raises:
        ValueError: The batch carries tokens, which cannot be mixed.
    """
    # A device without clips of its own has a single one, which has no label to mix.
    if not (mixing.mixup_alpha or mixing.cutmix_alpha) or len(batch.clips) == 1:
        return batch, label_smoothing
    if batch.tokens is not None:
        raise ValueError(f"{mixing} needs frames, and the batch carries an encoder's tokens")
    frames, labels, mask = mix_batch(
        batch.frames,
        batch.labels,
        batch.mask,
        mixup_alpha=mixing.mixup_alpha,
        cutmix_alpha=mixing.cutmix_alpha,
        probability=mixing.probability,
        label_smoothing=label_smoothing,
        num_classes=mixing.num_classes,
        generator=np.random.default_rng(draws),
    )
    return batch._replace(frames=frames, labels=labels, mask=mask), 0.0


def _check_finite(fabric: Fabric, what: str, value: float, batch: Batch, place: Place) -> None:
    """Stop on all devices: each of them knows the same value."""
    if not np.isfinite(value):
        clips = [clip for share in gather(fabric, batch.clips) for clip in share]
        raise FloatingPointError(
            f"the {what} of epoch {place.epoch} is {value}; the batch held the clips "
            f"{', '.join(clips)}: lower the recipe's learning_rate"
        )
