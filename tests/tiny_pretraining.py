"""A pre-training of a second on waves, for tests; as a program, one of several processes.

[torchrun] -m tiny_pretraining out scratch [--micro-batch-size N]
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from small_pretrain import batch, clips, image_autoencoder, pictures, video_autoencoder
from tiny_training import ENGINE

from pipeline.feed.order import Rank, epoch_order, num_steps, shares
from pipeline.pretrain.autoencoder import MaskedAutoencoder
from pipeline.pretrain.masks import Masking, with_masks
from pipeline.pretrain.recipe import (
    OptimizerSettings,
    ScheduleSettings,
    make_optimizer,
    make_schedule,
)
from pipeline.pretrain.task import PretrainTask
from pipeline.store.batch import Batch
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import launch
from pipeline.training.history import Epoch
from pipeline.training.loop import Training, train

OPTIMIZER = OptimizerSettings(rate_per_256=0.5, betas=(0.9, 0.95), weight_decay=0.05)
SCHEDULE = ScheduleSettings(warmup_epochs=1, floor_per_256=0.0)


class MaskedBatches:
    """One device's batches, with new masks in every epoch."""

    def __init__(self, whole: Batch, masking: Masking, batch_size: int, rank: Rank) -> None:
        self.whole = whole
        self.masking = masking
        self.batch_size = batch_size
        self.rank = rank
        self.steps_per_epoch = num_steps(len(whole), batch_size)

    def starting_at(self, epoch: int, step: int) -> Iterator[Batch]:
        while True:
            labels = np.zeros(len(self.whole), np.int64)
            order = epoch_order(labels, seed=1, epoch=epoch, class_balanced=False)
            steps = shares(order, epoch=epoch, batch_size=self.batch_size, rank=self.rank)
            for share in steps[step:]:
                masked = with_masks(
                    self.whole.rows(share.numbers), self.masking, seed=1, epoch=epoch
                )
                yield masked.without_targets() if share.idle else masked
            epoch, step = epoch + 1, 0


def held_out(model: MaskedAutoencoder, inputs: Batch, rank: Rank) -> list[Batch]:
    """This device's share, two at a time."""
    own = np.array_split(np.arange(len(inputs)), rank.world_size)[rank.number].tolist()
    masked = with_masks(inputs, model.masking, seed=1, epoch=0)
    return masked.rows(own).parts(2)


def run(
    fabric: Fabric,
    model: MaskedAutoencoder,
    whole: Batch,
    scratch: Path,
    *,
    on_epoch: Callable[[Epoch], None] = lambda row: None,
    steady: bool = False,
    **engine: object,
) -> Training:
    """Train on all but the last two samples, which are held out; goes on from the scratch folder.

    Args:
        fabric: The devices.
        model: Changed in place.
        whole: Samples without masks.
        scratch: Of the checkpoints.
        on_epoch: As in `train`.
        steady: Steps in proportion to the gradients: AdamW's own ones make much of rounding errors.
        engine: Settings other than ENGINE's.
    """
    settings = ENGINE.model_copy(update={"clip_gradients": 0.0, **engine})
    rank = Rank(fabric.global_rank, fabric.world_size)
    count = len(whole) - 2
    batches = MaskedBatches(whole.rows(range(count)), model.masking, settings.batch_size, rank)
    optimizer = make_optimizer(model, OPTIMIZER, batch_size=settings.batch_size)
    for group in optimizer.param_groups if steady else []:
        group["eps"], group["lr"] = 1.0, 0.1
    schedule = make_schedule(
        SCHEDULE,
        optimizer,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        steps_per_epoch=batches.steps_per_epoch,
    )
    return train(
        fabric,
        model,
        optimizer,
        schedule,
        PretrainTask(held_out(model, whole.rows([count, count + 1]), rank)),
        batches,
        settings,
        Checkpoints(scratch, writer=fabric.is_global_zero),
        on_epoch,
    )


def pretrain_both(fabric: Fabric, out: Path, scratch: Path, micro_batch_size: int) -> None:
    """7 clips and 7 pictures in batches of 3: of the last one, a second device has no sample."""
    results = {}
    for name, model, inputs in (
        ("videomae", video_autoencoder(), clips(9)),
        ("mae", image_autoencoder(), pictures(9)),
    ):
        training = run(
            fabric,
            model,
            batch(inputs),
            scratch / name,
            steady=True,
            epochs=2,
            micro_batch_size=micro_batch_size,
        )
        results[name] = {"weights": model.state_dict(), "history": training.history}
    if fabric.is_global_zero:
        torch.save(results, out)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--micro-batch-size", type=int, default=3)
    args = parser.parse_args()
    pretrain_both(launch("32-true"), args.out, args.scratch, args.micro_batch_size)


if __name__ == "__main__":
    main()
