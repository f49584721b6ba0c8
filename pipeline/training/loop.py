"""The training loop on Lightning Fabric: any model, any task."""

import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Annotated, NamedTuple

from lightning_fabric import Fabric
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from tqdm import tqdm

from pipeline.common.params import Section
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import Precision, any_device, gather, peak_memory
from pipeline.training.foresight import warn_of_memory
from pipeline.training.history import Epoch, describe_epoch, epoch_row
from pipeline.training.signals import StopRequest, stop_requests
from pipeline.training.state import TrainingState
from pipeline.training.step import take_step
from pipeline.training.task import B, Batches, P, Place, Task


class EngineSettings(Section):
    """How a training runs.

    Attributes:
        epochs: Most epochs.
        early_stop: Stop when that many epochs brought no better one.
        min_steps: Fewest steps of an epoch, which goes through few samples several times.
        batch_size: Clips per step of the optimiser, on all devices together; with several augmented
            copies of each it has so many times the samples.
        micro_batch_size: Samples that a device takes at once; memory decides.
        class_balanced: Every class equally often: some samples repeated, others left out.
        clip_gradients: Largest norm; 0 leaves gradients alone.
        ema: Decay of a moving average of the weights, which then is validated and kept; 0 is off.
        compile: torch.compile: minutes at the start, faster steps after.
        precision: As Fabric calls it.
        num_workers: Processes that read and decode, per device, and as many for validation.
    """

    epochs: PositiveInt
    early_stop: PositiveInt
    min_steps: PositiveInt
    batch_size: PositiveInt
    micro_batch_size: PositiveInt
    class_balanced: bool
    clip_gradients: NonNegativeFloat
    ema: Annotated[float, Field(ge=0, lt=1)]
    compile: bool
    precision: Precision
    num_workers: NonNegativeInt


class Training(NamedTuple):
    """The history, and the epoch whose weights the model now holds."""

    history: list[Epoch]
    best_epoch: int


def train(
    fabric: Fabric,
    model: nn.Module,
    optimizer: AdamW,
    schedule: LambdaLR | ReduceLROnPlateau,
    task: Task[B, P],
    batches: Batches[B],
    settings: EngineSettings,
    checkpoints: Checkpoints,
    on_epoch: Callable[[Epoch], None],
) -> Training:
    """Train, and leave the model with the weights of its best epoch, as the task ranks them.

    A training that was stopped goes on from its last checkpoint; on a CPU it ends in the same bits.

    Args:
        fabric: Device, precision, and the other processes.
        model: Trained in place.
        optimizer: Over the model's parameters.
        schedule: A LambdaLR is stepped after every batch, a ReduceLROnPlateau after every epoch,
            with the validation's first loss term.
        task: The losses and the validation.
        batches: Of this device.
        settings: Precision, workers and what makes up the batches are the caller's.
        checkpoints: Where the state is saved; the caller removes it when all is done.
        on_epoch: Called with every row of the history, also those from before a stop.

    Raises:
        FloatingPointError: The loss is not finite; the message names the samples of the batch.
        RuntimeError: The processes see different scratch folders.
        SystemExit: SIGTERM or SIGINT came; the state is saved.
    """
    state = TrainingState(fabric, model, optimizer, schedule, task, settings.ema)
    _go_on(fabric, state, checkpoints)
    for row in state.progress.history:
        on_epoch(row)

    def done() -> bool:
        without_better = state.progress.epoch - 1 - state.progress.best_epoch
        return state.progress.epoch > settings.epochs or without_better >= settings.early_stop

    coming = batches.starting_at(state.progress.epoch, state.progress.step)
    if not done() and not settings.compile:
        coming = _foreseen(state, task, coming, settings.micro_batch_size)
    with stop_requests() as stop:
        while not done():
            _finish_steps(state, task, coming, batches.steps_per_epoch, settings, checkpoints, stop)
            row = _finish_epoch(state, task)
            on_epoch(row)
            if fabric.is_global_zero:
                print(describe_epoch(row, settings.epochs, task.loss_terms[0]), flush=True)
            # The last epoch is always saved: nothing else can be while the test runs.
            leave, save = any_device(
                fabric, stop.signal > 0, done() or checkpoints.due(epoch_ended=True)
            )
            where = f"after epoch {state.progress.epoch - 1}"
            _save_or_leave(state, checkpoints, stop, where, leave=leave, save=save)
    state.restore_best()
    return Training(state.progress.history, state.progress.best_epoch)


def _foreseen(
    state: TrainingState, task: Task[B, P], coming: Iterator[B], micro_batch_size: int
) -> Iterator[B]:
    """The same batches, the first of which has been asked how much memory it takes."""
    first = next(coming)
    warn_of_memory(state.fabric, state.module.train(), task, first, micro_batch_size)
    return chain([first], coming)


def _go_on(fabric: Fabric, state: TrainingState, checkpoints: Checkpoints) -> None:
    """Restore the state that was saved last, if one was, in every process the same."""
    if saved := checkpoints.load():
        state.load_state_dict(saved)
        if fabric.is_global_zero:
            progress = state.progress
            print(f"going on in epoch {progress.epoch} after {progress.step} steps")
    place = (state.progress.epoch, state.progress.step)
    if len(places := set(gather(fabric, place))) > 1:
        raise RuntimeError(
            f"the processes of this training found different states in {checkpoints.folder}, at "
            f"epoch and step {sorted(places)}: it must be one folder for all of them"
        )


def _finish_steps(
    state: TrainingState,
    task: Task[B, P],
    coming: Iterator[B],
    num_steps: int,
    settings: EngineSettings,
    checkpoints: Checkpoints,
    stop: StopRequest,
) -> None:
    """Take the remaining steps of the epoch that is at work; `num_steps` are those of an epoch."""
    fabric, progress = state.fabric, state.progress
    state.module.train()
    with tqdm(
        total=num_steps,
        initial=progress.step,
        desc=f"epoch {progress.epoch}",
        leave=False,
        disable=None if fabric.is_global_zero else True,
    ) as bar:
        while progress.step < num_steps:
            start = time.perf_counter()
            batch = next(coming)
            waited = time.perf_counter() - start
            rate = max(group["lr"] for group in state.optimizer.param_groups)
            place = Place(progress.epoch, progress.step, fabric.global_rank)
            losses, num_samples, norm, (leave, save) = take_step(
                fabric,
                state.module,
                state.wrapped_optimizer,
                task,
                task.parts(batch.to(fabric.device), place, settings.micro_batch_size),
                place,
                clip_gradients=settings.clip_gradients,
                wishes=lambda: (stop.signal > 0, checkpoints.due(epoch_ended=False)),
            )
            if isinstance(state.schedule, LambdaLR):
                state.schedule.step()
            if state.average:
                state.average.update(state.model)
            progress.add(
                losses,
                num_samples,
                gradient_norm=norm,
                learning_rate=rate,
                seconds=time.perf_counter() - start,
                waiting=waited,
            )
            bar.set_postfix_str(f"loss {losses[0]:.4f}, norm {norm:.2g}", refresh=False)
            bar.update()
            where = f"after step {progress.step} of epoch {progress.epoch}"
            _save_or_leave(state, checkpoints, stop, where, leave=leave, save=save)


def _finish_epoch(state: TrainingState, task: Task[B, P]) -> Epoch:
    """Validate, keep the weights if they are the best, and close the epoch with its row."""
    start = time.perf_counter()
    validation = task.validate(state.fabric, state.eval_model)
    if isinstance(state.schedule, ReduceLROnPlateau):
        state.schedule.step(validation.scores[task.loss_terms[0]])
    row = epoch_row(
        state.progress,
        task.loss_terms,
        validation.scores,
        memory=peak_memory(state.fabric.device),
        validation_seconds=time.perf_counter() - start,
    )
    state.keep_if_best(validation.rank)
    state.progress.finish_epoch(row)
    return row


def _save_or_leave(
    state: TrainingState,
    checkpoints: Checkpoints,
    stop: StopRequest,
    where: str,
    *,
    leave: bool,
    save: bool,
) -> None:
    """Save the state, and end the process here where a signal came to any of the processes."""
    fabric = state.fabric
    if leave or save:
        values = state.state_dict()
        if fabric.is_global_zero:
            checkpoints.save(values)
    if leave:
        fabric.barrier()  # torchrun ends the others as soon as one is gone
        stop.leave(where, quiet=not fabric.is_global_zero)
