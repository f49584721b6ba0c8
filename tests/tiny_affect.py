"""A training of EMMA of a second on noise, for tests; as a program, one of two processes.

torchrun -m tiny_affect out micro_batch_size
"""

import argparse
import tempfile
from pathlib import Path

import torch
from lightning_fabric import Fabric
from small import image_encoder
from tiny_training import ENGINE, SameBatches, steady_adamw
from torch import Tensor, nn

from pipeline.affect.choices import VAInput
from pipeline.affect.cnn import NoCNN, ScoreSource
from pipeline.affect.emma import EMMA, HeadSize
from pipeline.affect.labels import AUS, EXPRESSIONS
from pipeline.affect.losses import LossSettings
from pipeline.affect.task import EMMATask
from pipeline.store.batch import Batch, Target
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import launch
from pipeline.training.loop import train
from pipeline.training.optim import cosine_schedule
from pipeline.training.task import Place

C, U = len(EXPRESSIONS), len(AUS)
LOSS = LossSettings(
    valence_arousal=1, expression=1, aus=1, au_divisor="labelled", pos_weight="balanced"
)
POS_WEIGHT = torch.linspace(0.5, 4, U)
SIDE, BATCH_SIZE = 32, 24


def noise_pictures(num_images: int, seed: int = 0, known: float = 0.7) -> Batch:
    """Noise with random labels, each known with that probability."""
    random = torch.Generator().manual_seed(seed)

    def mask(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random) < known

    pixels = torch.randint(0, 256, (num_images, 3, SIDE, SIDE), generator=random, dtype=torch.uint8)
    numbers = 2 * torch.rand(num_images, 2, generator=random) - 1
    classes = torch.randint(0, C, (num_images,), generator=random)
    units = torch.rand(num_images, U, generator=random).round()
    return Batch(
        ids=[f"image{seed}_{i}" for i in range(num_images)],
        groups=[f"video{i % 5}" for i in range(num_images)],
        inputs=pixels,
        targets={
            "valence_arousal": Target(numbers, mask(num_images, 2)),
            "expression": Target(classes, mask(num_images)),
            "aus": Target(units, mask(num_images, U)),
        },
    )


def partly_labelled(num_images: int = BATCH_SIZE) -> Batch:
    """In the first eight nothing is known, in the next ones no valence and no expression."""
    batch = noise_pictures(num_images)
    for name, start in (("aus", 8), ("expression", 10), ("valence_arousal", 10)):
        batch.targets[name].known[:start] = False
    batch.targets["valence_arousal"].known[:14, 0] = False
    return batch


def tiny_emma(
    va_input: VAInput = "vit_scores", num_cnn_classes: int = 0, drop_path: float = 0.0
) -> EMMA:
    torch.manual_seed(1)
    return EMMA(
        image_encoder(drop_path=drop_path),
        HeadSize(score_dim=16, va_dim=8),
        num_classes=C,
        num_aus=U,
        num_cnn_classes=num_cnn_classes,
        va_input=va_input,
    )


def emma_task(cnn: ScoreSource | None = None, seed: int = 1) -> EMMATask:
    return EMMATask(
        LOSS,
        POS_WEIGHT,
        cnn or NoCNN(),
        num_classes=C,
        seed=seed,
        validation=[noise_pictures(6, seed=1)],
    )


def share(batch: Batch, rank: int, world_size: int) -> Batch:
    """A device's pictures; a device without any repeats one without its labels."""
    own = list(range(len(batch)))[rank::world_size]
    return batch.rows(own) if own else batch.rows([0]).without_targets()


def run(fabric: Fabric, model: nn.Module, micro_batch_size: int) -> list[dict[str, float]]:
    """Two epochs of a batch of 24 and one of a single picture, which one of two devices lacks."""
    place = fabric.global_rank, fabric.world_size
    batches = [share(partly_labelled(), *place), share(noise_pictures(1, seed=2, known=1), *place)]
    optimizer = steady_adamw(model)
    with tempfile.TemporaryDirectory() as folder:
        return train(
            fabric,
            model,
            optimizer,
            cosine_schedule(optimizer, warmup_steps=1, total_steps=4, lowest=0.5),
            emma_task(),
            SameBatches(batches),
            ENGINE.model_copy(update={"epochs": 2, "micro_batch_size": micro_batch_size}),
            Checkpoints(Path(folder) / "scratch", writer=fabric.is_global_zero),
            lambda row: None,
        ).history


def one_step(model: EMMA, task: EMMATask, batch: Batch, size: int) -> tuple[Tensor, list[Tensor]]:
    """Losses by term and gradients by parameter, without the engine."""
    model.train()
    parts = task.parts(batch, Place(1, 0, 0), size)
    totals = torch.stack([task.totals(model, part) for part in parts]).sum(dim=0)
    losses = torch.zeros(len(task.loss_terms))
    model.zero_grad()
    for part in parts:
        found = task.losses(model, part, totals)
        found[0].backward()  # type: ignore[no-untyped-call]
        losses += torch.stack(list(found)).detach()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return losses, gradients


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("micro_batch_size", type=int)
    args = parser.parse_args()
    fabric, model = launch("32-true"), tiny_emma()
    history = run(fabric, model, args.micro_batch_size)
    if fabric.is_global_zero:
        torch.save({"weights": model.state_dict(), "history": history}, args.out)


if __name__ == "__main__":
    main()
