"""A training of a second on noise, for tests; as a program, one that can be killed.

[torchrun] -m tiny_training out scratch [--save-always] [--kill-at READING]
    [--wait-at READING] [--then-fail] [--settings JSON]
"""

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from project import ROOT
from small import LOSS, NO_AUGMENTATION, NO_MIXING, task_model, video_encoder
from torch import Tensor, nn
from torch.optim import AdamW

from pipeline.feed.augment import AugmentSettings
from pipeline.feed.batches import BatchPlan, TrainingBatches, evaluation_batches
from pipeline.feed.mix import MixSettings
from pipeline.feed.order import Numbers, Rank
from pipeline.mtcae.model import MTCAE
from pipeline.mtcae.predictions import evaluate
from pipeline.mtcae.task import MTCAETask
from pipeline.store.batch import Batch
from pipeline.store.stored_frames import face_targets
from pipeline.training import checkpoints
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import launch
from pipeline.training.history import MEASURED, Epoch
from pipeline.training.loop import EngineSettings, Training, train
from pipeline.training.optim import (
    OptimizerSettings,
    ScheduleSettings,
    adamw,
    cosine_schedule,
    make_schedule,
)
from pipeline.training.task import P, Task

NUM_CLASSES, NUM_FRAMES, SIZE = 4, 4, 32
# For this file as a program.
ENVIRONMENT = os.environ | {
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    "CUDA_VISIBLE_DEVICES": "",
}
ENGINE = EngineSettings(
    epochs=3,
    min_steps=1,
    early_stop=1000,
    batch_size=3,
    micro_batch_size=2,
    class_balanced=False,
    clip_gradients=1.0,
    ema=0.0,
    compile=False,
    precision="32-true",
    num_workers=0,
)
ADAMW = OptimizerSettings(learning_rate=1e-3, weight_decay=0.05, layer_decay=0.9)
SOME_AUGMENTATION = AugmentSettings(
    flip_probability=0.5,
    shift=0.1,
    scale=0.1,
    rotation=10.0,
    crop_area=0.5,
    crop_aspect=1.3333,
    colour=0.2,
    rand_augment_ops=1,
    rand_augment_probability=0.5,
    rand_augment_magnitude=5.0,
    rand_augment_deviation=0.5,
    erase_probability=0.25,
    copies=2,
)
SOME_MIXING = MixSettings(mixup_alpha=0.8, cutmix_alpha=1.0, probability=0.5)


def clips(num_clips: int, seed: int = 0, known: float = 1.0) -> Batch:
    """Noise, with random boxes and points in about `known` of the frames; clip i is of class i."""
    random = np.random.default_rng(seed)

    def fractions(*shape: int) -> Tensor:
        return torch.from_numpy(random.random(shape, np.float32))

    names = [f"clip{i}" for i in range(num_clips)]
    frames = (fractions(num_clips, NUM_FRAMES, 3, SIZE, SIZE) * 255).byte()
    boxes, points = fractions(num_clips, NUM_FRAMES, 4), fractions(num_clips, NUM_FRAMES, 5, 2)
    mask = fractions(num_clips, NUM_FRAMES) < known
    labels = torch.arange(num_clips) % NUM_CLASSES
    return Batch(
        ids=names,
        groups=[f"subject of {name}" for name in names],
        inputs=frames,
        targets=face_targets(boxes, points, mask, labels),
    )


def without_clock(row: Epoch) -> Epoch:
    """What must be the same in every run."""
    return {name: value for name, value in row.items() if name not in MEASURED}


class NoiseClips:
    """`clips` as a source; `before` is called before each reading."""

    segments = 1

    def __init__(self, whole: Batch, before: Callable[[], None] = lambda: None) -> None:
        self.whole = whole
        self.labels: Numbers = whole.targets["expression"].values.numpy()
        self.before = before

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, numbers: list[int], /) -> Batch:
        self.before()
        return self.whole.rows(numbers)


class SameBatches:
    """The same batches in every epoch."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches
        self.steps_per_epoch = len(batches)

    def starting_at(self, epoch: int, step: int) -> Iterator[Batch]:
        return islice(cycle(self.batches), step, None)


def tiny_model(arch: str = "cascaded", decoder: str = "vit", dropout: float = 0.0) -> MTCAE:
    torch.manual_seed(1)
    encoder = video_encoder(
        dim=32, depth=1, num_heads=2, image_size=SIZE, patch_size=16, num_frames=NUM_FRAMES
    )
    return task_model(
        encoder,
        arch=arch,
        decoder=decoder,
        num_classes=NUM_CLASSES,
        dim=32,
        num_heads=2,
        head_dim=16,
        num_layers=1,
        dropout=dropout,
        head_dropout=dropout,
    )


def steady_adamw(model: nn.Module) -> AdamW:
    """Steps in proportion to the gradients: AdamW's own ones make much of rounding errors."""
    settings = OptimizerSettings(learning_rate=0.1, weight_decay=0.0, layer_decay=1.0)
    optimizer = adamw(model, settings)
    for group in optimizer.param_groups:
        group["eps"] = 1.0
    return optimizer


def tiny_task(
    validation: Iterable[Batch], mix: MixSettings = NO_MIXING, seed: int = 1
) -> MTCAETask:
    return MTCAETask(LOSS, mix, num_classes=NUM_CLASSES, seed=seed, validation=validation)


def fit(
    fabric: Fabric,
    model: nn.Module,
    training: list[Batch],
    task: Task[Batch, P],
    *,
    seed: int = 1,
    on_epoch: Callable[[Epoch], None] = lambda row: None,
    optimizer: AdamW | None = None,
    **engine: object,
) -> Training:
    """Train on the same batches in every epoch, without a checkpoint to go on from.

    Args:
        fabric: As in `train`.
        model: As in `train`.
        training: Batches of an epoch.
        task: As in `train`.
        seed: Of dropout.
        on_epoch: As in `train`.
        optimizer: AdamW without decay where none is given.
        engine: Settings other than ENGINE's; parts are as large as the batches.
    """
    plain = OptimizerSettings(learning_rate=3e-3, weight_decay=0.0, layer_decay=1.0)
    optimizer = optimizer or adamw(model, plain)
    settings = ENGINE.model_copy(update={"micro_batch_size": 1000, **engine})
    total_steps = settings.epochs * len(training)
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        return train(
            fabric,
            model,
            optimizer,
            cosine_schedule(optimizer, warmup_steps=2, total_steps=total_steps, lowest=0),
            task,
            SameBatches(training),
            settings,
            Checkpoints(Path(folder) / "scratch"),
            on_epoch,
        )


def run(
    fabric: Fabric,
    out: Path,
    scratch: Path,
    *,
    before_reading: Callable[[], None] = lambda: None,
    bad_clip: int | None = None,
    schedule: str = "cosine",
    random: bool = True,
    on_epoch: Callable[[Epoch], None] = lambda row: None,
    **engine: object,
) -> None:
    """Train on 7 clips, validate on 5, and write what came of it; goes on from the scratch folder.

    Args:
        fabric: Device and the other processes.
        out: File for weights, history and predictions.
        scratch: Of the checkpoints.
        before_reading: Called before each batch is read.
        bad_clip: Number of a clip whose boxes are no numbers.
        schedule: cosine or plateau.
        random: With dropout, augmentation, mixing, and AdamW as it is.
        on_epoch: As in `train`.
        engine: Settings other than ENGINE's.
    """
    settings = EngineSettings.model_validate(ENGINE.model_dump() | engine)
    model = tiny_model(dropout=0.2 if random else 0.0)
    optimizer = adamw(model, ADAMW, model.layers_from_output) if random else steady_adamw(model)
    training = clips(7, known=0.6)
    if bad_clip is not None:
        boxes = training.targets["boxes"]
        boxes.values[bad_clip], boxes.known[bad_clip] = float("nan"), True
    rank = Rank(fabric.global_rank, fabric.world_size)
    batches = TrainingBatches(
        NoiseClips(training, before_reading),
        SOME_AUGMENTATION if random else NO_AUGMENTATION,
        BatchPlan(
            batch_size=settings.batch_size,
            class_balanced=False,
            min_steps=1,
            seed=1,
            rank=rank,
            num_workers=0,
        ),
    )
    validation = evaluation_batches(
        NoiseClips(clips(5, seed=1, known=0.6)), batch_size=2, rank=rank, num_workers=0
    )
    loss = LOSS.model_copy(update={"label_smoothing": 0.1})
    task = MTCAETask(
        loss,
        SOME_MIXING if random else NO_MIXING,
        num_classes=NUM_CLASSES,
        seed=1,
        validation=validation,
    )
    kind = ScheduleSettings.model_validate(
        {"kind": schedule, "warmup_epochs": 1, "lowest_rate": 1e-5, "plateau_patience": 1}
    )
    steps = batches.steps_per_epoch
    torch.manual_seed(1 + fabric.global_rank)
    trained = train(
        fabric,
        model,
        optimizer,
        make_schedule(kind, optimizer, epochs=settings.epochs, steps_per_epoch=steps),
        task,
        batches,
        settings,
        Checkpoints(scratch, writer=fabric.is_global_zero),
        on_epoch,
    )
    tested = evaluate(fabric, model, validation, loss)
    if fabric.is_global_zero:
        torch.save(
            {
                "weights": model.state_dict(),
                "history": trained.history,
                "clips": tested.clips,
                "probabilities": torch.from_numpy(tested.probabilities),
                "losses": tested.losses,
            },
            out,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--save-always", action="store_true")
    parser.add_argument("--kill-at", type=int, default=-1)
    parser.add_argument("--wait-at", type=int, default=-1)
    parser.add_argument("--then-fail", action="store_true")
    parser.add_argument("--settings", type=json.loads, default={})
    args = parser.parse_args()
    if args.save_always:
        checkpoints._SAVE_SECONDS = 0
    readings = iter(range(10**6))

    def before_reading() -> None:
        reading = next(readings)
        if reading == args.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if reading == args.wait_at:
            # In one write: of two processes without buffers, the words and the ends of their
            # lines may come in any order.
            print("waiting\n", end="", flush=True)
            # A test that failed leaves nobody waiting.
            deadline = time.monotonic() + 200
            while not args.out.with_suffix(".go").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)

    fabric = launch("32-true")
    run(fabric, args.out, args.scratch, before_reading=before_reading, **args.settings)
    if args.then_fail:
        try:
            run(fabric, args.out, args.scratch / "bad", bad_clip=0, **args.settings)
        except FloatingPointError as error:
            note = args.out.with_suffix(f".{fabric.global_rank}.txt")
            note.write_text(str(error), encoding="utf-8")


if __name__ == "__main__":
    main()
