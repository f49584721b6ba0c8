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
from collections.abc import Callable, Iterable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from project import ROOT
from torch import Tensor
from torch.optim import AdamW

from pipeline.feed.batches import (
    Augmentation,
    evaluation_batches,
    num_steps,
    training_batches,
)
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.mtcae.loss import LossWeights
from pipeline.mtcae.model import MTCAE
from pipeline.mtcae.predictions import evaluate
from pipeline.store.shards import Batch
from pipeline.training import resume
from pipeline.training.devices import launch
from pipeline.training.history import Epoch
from pipeline.training.loop import Trained, train
from pipeline.training.optim import adamw, cosine_schedule, make_schedule
from pipeline.training.resume import Checkpoints
from pipeline.training.step import Mixing

NUM_CLASSES, NUM_FRAMES, SIZE = 4, 4, 32
# For this file as a program.
ENVIRONMENT = os.environ | {
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    "CUDA_VISIBLE_DEVICES": "",
}
WEIGHTS = LossWeights()
NO_MIXING = Mixing(0.0, 0.0, 0.0, NUM_CLASSES)


def clips(num_clips: int, seed: int = 0, known: float = 1.0) -> Batch:
    """Noise, with random boxes and points in about `known` of the frames; clip i is of class i."""
    random = np.random.default_rng(seed)

    def fractions(*shape: int) -> Tensor:
        return torch.from_numpy(random.random(shape, np.float32))

    names = [f"clip{i}" for i in range(num_clips)]
    return Batch(
        clips=names,
        subjects=[f"subject of {name}" for name in names],
        frames=(fractions(num_clips, NUM_FRAMES, 3, SIZE, SIZE) * 255).byte(),
        boxes=fractions(num_clips, NUM_FRAMES, 4),
        points=fractions(num_clips, NUM_FRAMES, 5, 2),
        mask=fractions(num_clips, NUM_FRAMES) < known,
        labels=torch.arange(num_clips) % NUM_CLASSES,
    )


def rows(whole: Batch, numbers: list[int]) -> Batch:
    """Some of the clips."""
    columns: list[Any] = [
        column if column is None else [column[i] for i in numbers] for column in whole
    ]
    columns[2:7] = [torch.stack(column) for column in columns[2:7]]
    return Batch(*columns)


def batches(whole: Batch, size: int) -> list[Batch]:
    numbers = list(range(len(whole.clips)))
    return [rows(whole, numbers[i : i + size]) for i in range(0, len(numbers), size)]


def without_clock(line: Epoch) -> Epoch:
    """What must be the same in every run."""
    return line._replace(clips_per_second=0, data_wait=0, peak_memory=0, seconds=0)


class NoiseClips:
    """`clips` as a source; `before` is called before each reading."""

    def __init__(self, whole: Batch, before: Callable[[], None] = lambda: None) -> None:
        self.whole = whole
        self.labels = whole.labels.numpy()
        self.before = before

    def __getitem__(self, numbers: list[int], /) -> Batch:
        self.before()
        return rows(self.whole, numbers)


def tiny_model(arch: str = "cascaded", decoder: str = "vit", dropout: float = 0.0) -> MTCAE:
    torch.manual_seed(1)
    encoder = VideoMAEEncoder(
        dim=32, depth=1, num_heads=2, image_size=SIZE, patch_size=16, num_frames=NUM_FRAMES
    )
    return MTCAE(
        encoder,
        arch=arch,
        decoder=decoder,
        num_classes=NUM_CLASSES,
        decoder_dim=32,
        decoder_heads=2,
        decoder_head_dim=16,
        decoder_layers=1,
        dropout=dropout,
        head_dropout=dropout,
    )


def steady_adamw(model: MTCAE) -> AdamW:
    """Steps in proportion to the gradients: AdamW's own ones make much of rounding errors."""
    optimizer = adamw(model, learning_rate=0.1, weight_decay=0.0, layer_decay=1.0)
    for group in optimizer.param_groups:
        group["eps"] = 1.0
    return optimizer


def fit(
    fabric: Fabric,
    model: MTCAE,
    training: list[Batch],
    validation: Iterable[Batch],
    *,
    epochs: int,
    early_stop: int = 1000,
    max_clips_per_step: int = 1000,
    mixing: Mixing = NO_MIXING,
    clip_gradients: float = 1.0,
    ema: float = 0.0,
    seed: int = 1,
    on_epoch: Callable[[Epoch], None] = lambda line: None,
    optimizer: AdamW | None = None,
) -> Trained:
    """Train on the same batches in every epoch, without a checkpoint to go on from."""
    optimizer = optimizer or adamw(model, learning_rate=3e-3, weight_decay=0.0, layer_decay=1.0)
    with tempfile.TemporaryDirectory() as folder:
        return train(
            fabric,
            model,
            optimizer,
            cosine_schedule(optimizer, warmup_steps=2, total_steps=epochs * len(training)),
            train_batches=lambda epoch, step: islice(cycle(training), step, None),
            steps_per_epoch=len(training),
            validation_batches=validation,
            epochs=epochs,
            early_stop=early_stop,
            max_clips_per_step=max_clips_per_step,
            loss_weights=WEIGHTS,
            label_smoothing=0.0,
            mixing=mixing,
            clip_gradients=clip_gradients,
            ema=ema,
            seed=seed,
            checkpoints=Checkpoints(Path(folder) / "scratch"),
            on_epoch=on_epoch,
        )


def run(
    fabric: Fabric,
    out: Path,
    scratch: Path,
    *,
    before_reading: Callable[[], None] = lambda: None,
    bad_clip: int | None = None,
    epochs: int = 3,
    batch_size: int = 3,
    max_clips_per_step: int = 2,
    schedule: str = "cosine",
    random: bool = True,
    ema: float = 0.0,
    on_epoch: Callable[[Epoch], None] = lambda line: None,
) -> None:
    """Train on 7 clips, validate on 5, and write what came of it; goes on from the scratch folder.

    Args:
        fabric: Device and the other processes.
        out: File for weights, history and predictions.
        scratch: Of the checkpoints.
        before_reading: Called before each batch is read.
        bad_clip: Number of a clip whose boxes are no numbers.
        epochs: As in `train`.
        batch_size: On all devices together.
        max_clips_per_step: As in `train`.
        schedule: cosine or plateau.
        random: With dropout, augmentation, mixing, and AdamW as it is.
        ema: As in `train`.
        on_epoch: As in `train`.
    """
    model = tiny_model(dropout=0.2 if random else 0.0)
    if random:
        optimizer = adamw(model, learning_rate=1e-3, weight_decay=0.05, layer_decay=0.9)
    else:
        optimizer = steady_adamw(model)
    training = clips(7, known=0.6)
    if bad_clip is not None:
        training.boxes[bad_clip], training.mask[bad_clip] = float("nan"), True
    source = NoiseClips(training, before_reading)
    steps = num_steps(7, batch_size)
    rank, world_size = fabric.global_rank, fabric.world_size
    checked = evaluation_batches(
        NoiseClips(clips(5, seed=1, known=0.6)),
        batch_size=2,
        rank=rank,
        world_size=world_size,
        num_workers=0,
    )
    trained = train(
        fabric,
        model,
        optimizer,
        make_schedule(
            "plateau" if schedule == "plateau" else "cosine",
            optimizer,
            epochs=epochs,
            steps_per_epoch=steps,
            warmup_epochs=1,
            plateau_patience=1,
        ),
        train_batches=lambda epoch, step: training_batches(
            source,
            first_epoch=epoch,
            first_step=step,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            class_balanced=False,
            augmentation=Augmentation(0.5, 1, 5.0, 0.25) if random else Augmentation(),
            seed=1,
            num_workers=0,
        ),
        steps_per_epoch=steps,
        validation_batches=checked,
        epochs=epochs,
        early_stop=1000,
        max_clips_per_step=max_clips_per_step,
        loss_weights=WEIGHTS,
        label_smoothing=0.1,
        mixing=Mixing(0.8, 1.0, 0.5, NUM_CLASSES) if random else NO_MIXING,
        clip_gradients=1.0,
        ema=ema,
        seed=1,
        checkpoints=Checkpoints(scratch, writer=fabric.is_global_zero),
        on_epoch=on_epoch,
    )
    tested = evaluate(fabric, model, checked, WEIGHTS)
    if fabric.is_global_zero:
        torch.save(
            {
                "weights": model.state_dict(),
                "history": [tuple(line) for line in trained.history],
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
        resume._SAVE_SECONDS = 0
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
