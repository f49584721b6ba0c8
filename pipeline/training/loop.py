"""Training of one fold on Lightning Fabric."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from tqdm import tqdm

from pipeline.data.shards import Batch
from pipeline.data.transforms import horizontal_flip
from pipeline.evaluation.metrics import recalls
from pipeline.models.mtcae import MTCAE
from pipeline.training.loss import LossWeights, multitask_loss
from pipeline.training.predict import evaluate


class Epoch(NamedTuple):
    """One line of the learning curve; training losses are means over batches, by clips."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_box_loss: float
    train_point_loss: float
    train_expression_loss: float
    validation_loss: float
    validation_expression_loss: float
    validation_uar: float
    validation_war: float
    clips_per_second: float
    seconds: float


class Trained(NamedTuple):
    """The learning curve, and the epoch whose weights the model now holds."""

    history: list[Epoch]
    best_epoch: int


def train(
    fabric: Fabric,
    model: MTCAE,
    optimizer: AdamW,
    schedule: LambdaLR | ReduceLROnPlateau,
    *,
    train_batches: Callable[[int], Iterable[Batch]],
    validation_batches: Iterable[Batch],
    epochs: int,
    early_stop: int,
    loss_weights: LossWeights,
    label_smoothing: float,
    flip_probability: float,
    clip_gradients: float,
    seed: int,
    on_epoch: Callable[[Epoch], None],
) -> Trained:
    """Train, and leave the model with the weights of its best epoch.

    Best is the highest UAR on the validation subjects; of equal ones, that with the lowest
    expression loss.

    Args:
        fabric: Device and precision.
        model: Trained in place.
        optimizer: Over the model's parameters.
        schedule: A LambdaLR is stepped after every batch, a ReduceLROnPlateau after every epoch.
        train_batches: Batches of an epoch, given its number from 1.
        validation_batches: Clips of the validation subjects.
        epochs: Most epochs.
        early_stop: Stop when that many epochs brought no better one.
        loss_weights: See `multitask_loss`.
        label_smoothing: See `multitask_loss`.
        flip_probability: Chance that a clip is mirrored.
        clip_gradients: Largest gradient norm; 0 leaves gradients alone.
        seed: Of the augmentation.
        on_epoch: Called with every line of the learning curve.

    Raises:
        FloatingPointError: The loss is not finite; the message names the clips of the batch.
    """
    module, optimizer = fabric.setup(model, optimizer)
    generator = torch.Generator().manual_seed(seed)
    history: list[Epoch] = []
    best = (-1.0, 0.0)
    best_epoch = 0
    best_weights: dict[str, Tensor] = {}
    progress = tqdm(range(1, epochs + 1), desc="training", unit="epoch")
    for epoch in progress:
        start = time.perf_counter()
        module.train()
        sums = np.zeros(4)
        num_clips = 0
        for batch in train_batches(epoch):
            flips = torch.rand(len(batch.clips), generator=generator) < flip_probability
            flipped = horizontal_flip(batch.frames, batch.boxes, batch.points, flips)
            batch = batch._replace(frames=flipped[0], boxes=flipped[1], points=flipped[2])
            batch = fabric.to_device(batch)
            losses = multitask_loss(
                module(batch.frames / 255),
                batch.boxes,
                batch.points,
                batch.mask,
                batch.labels,
                weights=loss_weights,
                label_smoothing=label_smoothing,
            )
            if not torch.isfinite(losses.total):
                raise FloatingPointError(
                    f"the loss of epoch {epoch} is {losses.total.item()}; the batch held the clips "
                    f"{', '.join(batch.clips)}: lower the recipe's learning_rate"
                )
            fabric.backward(losses.total)
            if clip_gradients:
                fabric.clip_gradients(module, optimizer, max_norm=clip_gradients)
            optimizer.step()
            # Not before the backward pass: no gradients need to live during the forward pass.
            optimizer.zero_grad()
            if isinstance(schedule, LambdaLR):
                schedule.step()
            sums += len(batch.clips) * np.array([loss.item() for loss in losses])
            num_clips += len(batch.clips)
        train_seconds = time.perf_counter() - start
        means = sums / num_clips
        checked = evaluate(fabric, module, validation_batches, loss_weights)
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(checked.losses["total"])
        scores = recalls(
            checked.labels, checked.probabilities.argmax(axis=1), checked.probabilities.shape[1]
        )
        line = Epoch(
            epoch,
            max(group["lr"] for group in optimizer.param_groups),
            train_loss=float(means[0]),
            train_box_loss=float(means[1]),
            train_point_loss=float(means[2]),
            train_expression_loss=float(means[3]),
            validation_loss=checked.losses["total"],
            validation_expression_loss=checked.losses["expression"],
            validation_uar=scores.uar,
            validation_war=scores.war,
            clips_per_second=num_clips / train_seconds,
            seconds=time.perf_counter() - start,
        )
        history.append(line)
        on_epoch(line)
        progress.set_postfix(loss=f"{line.train_loss:.3f}", uar=f"{line.validation_uar:.3f}")
        if (scores.uar, -line.validation_expression_loss) > best or not best_weights:
            best, best_epoch = (scores.uar, -line.validation_expression_loss), epoch
            best_weights = {
                name: value.detach().clone() for name, value in model.state_dict().items()
            }
        if epoch - best_epoch >= early_stop:
            break
    model.load_state_dict(best_weights)
    return Trained(history, best_epoch)
