"""Stage cnn of the affect models: the frozen CNN whose scores EMMA reads."""

import argparse
import os
from pathlib import Path
from typing import Literal

if __name__ == "__main__":
    # Before torch is imported; see stages/finetune.py.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch
from lightning_fabric import seed_everything
from pydantic import NonNegativeInt, PositiveInt
from timm import create_model
from torch import Tensor, nn

from pipeline.acquire.weights import FROM_SCRATCH
from pipeline.affect.cnn import CNNSettings, Normalisation
from pipeline.affect.cnn_files import CNNCard, read_card, save_cnn
from pipeline.affect.cnn_stored import store_cnn, store_no_cnn
from pipeline.affect.feed import AugmentSettings, PictureBatches, Pictures
from pipeline.affect.stored import IMAGES, read_challenge, read_stored
from pipeline.affect.task import CoTEXTask
from pipeline.common.encoder_weights import History, read_history
from pipeline.common.files import project_root, sha256_of
from pipeline.common.imports import needed_files
from pipeline.common.params import Section, StageParams, load_params
from pipeline.feed.batches import BatchPlan, evaluation_batches
from pipeline.feed.order import Rank
from pipeline.models.vit import IMAGENET_MEAN, IMAGENET_STD
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import launch
from pipeline.training.identity import training_key
from pipeline.training.loop import EngineSettings, train
from pipeline.training.optim import OptimizerSettings, ScheduleSettings, adamw, make_schedule

_FILE = "cnn.safetensors"
_NORMALISATION: Normalisation = "imagenet"


class SmallCNNSettings(Section):
    """The CNN of cnn: rendered.

    Attributes:
        network: A name of timm.
        side: That it reads, in pixels.
        seed: Of the training.
        optimizer: Rates.
        schedule: How they change.
        augment: Changes to pictures.
        engine: How it runs.
    """

    network: str
    side: PositiveInt
    seed: NonNegativeInt
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    augment: AugmentSettings
    engine: EngineSettings


class Params(StageParams):
    """Exactly this stage's `params` in affect/dvc.yaml."""

    cnn: Literal["rendered", "weights", "none"]
    frozen_cnn: CNNSettings
    small_cnn: SmallCNNSettings


class OneView(nn.Module):
    """A network as the task of expressions has it: (B, 3, P, P) from 0 to 255 -> (1, B, K)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.network((pictures / 255 - self.mean) / self.std)
        return logits.float()[None]


def main(params: Params, people: Path, data: Path, source: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    try:
        if (params.cnn == "weights") == (source.name == FROM_SCRATCH):
            raise ValueError(
                f"cnn is {params.cnn} and frozen_cnn.weights is {source.name}: they go together "
                f"where cnn: weights names a file and the others name {FROM_SCRATCH}"
            )
        if params.cnn == "none":
            store_no_cnn(out, params.frozen_cnn)
            print("cnn: none")
            return
        file, settings = source, params.frozen_cnn
        if params.cnn == "rendered":
            file = out / _FILE
            settings = settings.model_copy(update={"family": "auto"})
            fit(params.small_cnn, people, file)
        sets = [read_stored(data), read_challenge(data)]
        cnn = store_cnn(out, settings, file, history_of(params, people, file), sets)
    except ValueError as error:
        raise SystemExit(f"cnn: {error}") from error
    count = sum(len(stored.images) for stored in sets)
    print(f"cnn: {len(cnn.classes)} scores of {count} pictures: {', '.join(cnn.classes)}")


def history_of(params: Params, people: Path, file: Path) -> History:
    """Whom the CNN has seen."""
    if params.cnn == "weights":
        card = read_card(file)
        return card.history if card else read_history(file)
    stored = read_stored(people)
    groups = sorted({image.group for image in stored.images})
    return History.empty().with_groups(stored.card.identity, groups)


def fit(settings: SmallCNNSettings, people: Path, file: Path) -> None:
    """Train the small CNN on rendered people; a tenth of them chooses the epoch."""
    stored, engine = read_stored(people), settings.engine
    groups = sorted({image.group for image in stored.images})
    held_out = set(groups[:: max(2, len(groups) // 10)])
    training, validation = (
        Pictures(
            stored,
            [i for i, image in enumerate(stored.images) if (image.group in held_out) == held],
            side=settings.side,
            crop=settings.augment.crop,
        )
        for held in (False, True)
    )
    fabric = launch(engine.precision)
    seed_everything(settings.seed, verbose=False)
    classes = stored.card.classes
    model = OneView(create_model(settings.network, num_classes=len(classes)))
    batches = PictureBatches(
        training,
        settings.augment,
        BatchPlan(
            batch_size=engine.batch_size,
            class_balanced=engine.class_balanced,
            min_steps=engine.min_steps,
            seed=settings.seed,
            rank=Rank(),
            num_workers=engine.num_workers,
        ),
    )
    optimizer = adamw(model, settings.optimizer)
    schedule = make_schedule(
        settings.schedule,
        optimizer,
        epochs=engine.epochs,
        steps_per_epoch=batches.steps_per_epoch,
    )
    watched = evaluation_batches(
        validation, batch_size=engine.micro_batch_size, rank=Rank(), num_workers=0
    )
    task = CoTEXTask(0.0, num_classes=len(classes), validation=watched)
    checkpoints = Checkpoints(scratch(settings, people))
    torch.manual_seed(settings.seed)
    done = train(
        fabric, model, optimizer, schedule, task, batches, engine, checkpoints, lambda row: None
    )
    card = CNNCard(
        family=f"timm:{settings.network}",
        classes=classes,
        size=settings.side,
        normalisation=_NORMALISATION,
        history=History.empty().with_groups(stored.card.identity, groups),
    )
    save_cnn(file, model.network, card)
    checkpoints.remove()
    f1 = done.history[done.best_epoch - 1]["validation_expression_f1"]
    print(f"cnn: {settings.network}, macro F1 {f1:.3f} on held-out people")


def scratch(settings: SmallCNNSettings, people: Path) -> Path:
    """Where the state of this training is kept until it is done."""
    root = Path(__file__).parents[2]
    inputs = {IMAGES: sha256_of(people / IMAGES)}
    sources = needed_files(Path(__file__).relative_to(root), root)
    key = training_key(settings.model_dump(mode="json"), {}, inputs, sources, root)
    return project_root(Path()) / ".scratch/affect_cnn" / key


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("people", "data", "source", "out"):
        parser.add_argument(name, type=Path, help="in the order of dvc.yaml")
    args = parser.parse_args()
    params = load_params(Params, Path("affect/params.yaml"))
    main(params, args.people, args.data, args.source, args.out)
