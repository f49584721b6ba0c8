"""Training of one fold on Lightning Fabric."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from lightning.fabric import Fabric
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from tqdm import tqdm

from pipeline.mtcae.loss import LossWeights
from pipeline.mtcae.model import MTCAE
from pipeline.mtcae.predictions import evaluate
from pipeline.store.shards import Batch
from pipeline.training.devices import gather, peak_memory, total
from pipeline.training.history import Epoch, Progress, described, epoch_line
from pipeline.training.resume import Checkpoints, random_state, set_random_state, stop_requests
from pipeline.training.step import Mixing, Place, take_step


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
    train_batches: Callable[[int, int], Iterator[Batch]],
    steps_per_epoch: int,
    validation_batches: Iterable[Batch],
    epochs: int,
    early_stop: int,
    max_clips_per_step: int,
    loss_weights: LossWeights,
    label_smoothing: float,
    mixing: Mixing,
    clip_gradients: float,
    ema: float,
    seed: int,
    checkpoints: Checkpoints,
    on_epoch: Callable[[Epoch], None],
) -> Trained:
    """Train, and leave the model with the weights of its best epoch.

    Best is the highest UAR on the validation subjects; of equal ones, that with the lowest
    expression loss. A training that was stopped goes on from its last checkpoint.

    Args:
        fabric: Device, precision, and the other processes.
        model: Trained in place.
        optimizer: Over the model's parameters.
        schedule: A LambdaLR is stepped after every batch, a ReduceLROnPlateau after every epoch.
        train_batches: Batches of this device without end, given the epoch from 1 and the number of
            its steps that were taken before.
        steps_per_epoch: Batches of an epoch.
        validation_batches: Clips of the validation subjects; this device's share.
        epochs: Most epochs.
        early_stop: Stop when that many epochs brought no better one.
        max_clips_per_step: Most clips that a device takes at once.
        loss_weights: See `multitask_loss`.
        label_smoothing: See `multitask_loss`.
        mixing: See `Mixing`.
        clip_gradients: Largest gradient norm; 0 leaves gradients alone.
        ema: Decay of the moving average of the weights, which then are those that are evaluated and
            kept; 0 is off.
        seed: Of dropout and mixing.
        checkpoints: Where the state is saved; the caller removes it when all is done.
        on_epoch: Called with every line of the learning curve, also those from before a stop.

    Raises:
        FloatingPointError: The loss is not finite; the message names the clips of the batch.
        RuntimeError: The processes see different scratch folders.
        SystemExit: SIGTERM or SIGINT came; the state is saved.
    """
    module, wrapped_optimizer = fabric.setup(model, optimizer)
    average = ModelEmaV3(model, decay=ema) if ema else None
    evaluated: nn.Module = average.module if average else model
    torch.manual_seed(seed + fabric.global_rank)
    progress = Progress()
    best_weights: dict[str, Tensor] = {}
    if state := checkpoints.load():
        model.load_state_dict(state["model"], strict=False)
        if average:
            average.module.load_state_dict(state["average"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        best_weights = state["best_weights"]
        progress = Progress(**state["progress"])
        # On another number of devices, dropout draws anew; everything else goes on as it was.
        if len(state["random"]) == fabric.world_size:
            set_random_state(state["random"][fabric.global_rank])
        if fabric.is_global_zero:
            print(f"going on in epoch {progress.epoch} after {progress.step} steps")
    del state  # as large as model and optimiser
    if len(places := set(gather(fabric, (progress.epoch, progress.step)))) > 1:
        raise RuntimeError(
            f"the processes of this training found different states in {checkpoints.folder}, at "
            f"epoch and step {sorted(places)}: it must be one folder for all of them"
        )
    for values in progress.history:
        on_epoch(Epoch(*values))  # type: ignore[arg-type]

    def save() -> None:
        states = gather(fabric, random_state())
        if fabric.is_global_zero:
            checkpoints.save(
                {
                    "model": trained_weights(model),
                    "average": trained_weights(evaluated) if average else {},
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "best_weights": best_weights,
                    "progress": vars(progress),
                    "random": states,
                }
            )

    def done() -> bool:
        without_better = progress.epoch - 1 - progress.best_epoch
        return progress.epoch > epochs or without_better >= early_stop

    batches = train_batches(progress.epoch, progress.step)
    with stop_requests() as stop:
        while not done():
            module.train()
            bar = tqdm(
                total=steps_per_epoch,
                initial=progress.step,
                desc=f"epoch {progress.epoch}",
                leave=False,
                disable=None if fabric.is_global_zero else True,
            )
            while progress.step < steps_per_epoch:
                start = time.perf_counter()
                batch = next(batches)
                waited = time.perf_counter() - start
                taken = take_step(
                    fabric,
                    module,
                    wrapped_optimizer,
                    batch,
                    Place(seed, progress.epoch, progress.step),
                    max_clips=max_clips_per_step,
                    loss_weights=loss_weights,
                    label_smoothing=label_smoothing,
                    mixing=mixing,
                    clip_gradients=clip_gradients,
                )
                if isinstance(schedule, LambdaLR):
                    schedule.step()
                if average:
                    average.update(model)
                progress.add(taken, time.perf_counter() - start, waited)
                bar.update()
                leave, due = agreed(fabric, stop.signal > 0, checkpoints.due(epoch_ended=False))
                if leave or due:
                    save()
                if leave:
                    fabric.barrier()  # torchrun ends the others as soon as one is gone
                    where = f"after step {progress.step} of epoch {progress.epoch}"
                    stop.leave(where, quiet=not fabric.is_global_zero)
            bar.close()
            start = time.perf_counter()
            checked = evaluate(fabric, evaluated, validation_batches, loss_weights)
            if isinstance(schedule, ReduceLROnPlateau):
                schedule.step(checked.losses["total"])
            rate = max(group["lr"] for group in optimizer.param_groups)
            memory = peak_memory(fabric.device)
            line = epoch_line(progress, checked, rate, memory, time.perf_counter() - start)
            score = (line.validation_uar, -line.validation_expression_loss)
            if score > progress.best_score or not best_weights:
                progress.best_score, progress.best_epoch = score, progress.epoch
                best_weights = trained_weights(evaluated)
            progress.finish_epoch(line)
            on_epoch(line)
            if fabric.is_global_zero:
                print(described(line, epochs), flush=True)
            # The last epoch is always saved: nothing else can be while the test runs.
            due_now = done() or checkpoints.due(epoch_ended=True)
            leave, due = agreed(fabric, stop.signal > 0, due_now)
            if leave or due:
                save()
            if leave:
                fabric.barrier()
                stop.leave(f"after epoch {line.epoch}", quiet=not fabric.is_global_zero)
    model.load_state_dict(best_weights, strict=False)
    history = [Epoch(*values) for values in progress.history]  # type: ignore[arg-type]
    return Trained(history, progress.best_epoch)


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy, on the CPU, of the weights that training changes: nothing else of the model does."""
    return {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def agreed(fabric: Fabric, *flags: bool) -> list[bool]:
    """For each flag, whether it is set in any process."""
    if fabric.world_size == 1:  # A GPU would wait while they are read from it.
        return list(flags)
    return [bool(number) for number in total(fabric, torch.tensor(flags).int().to(fabric.device))]
