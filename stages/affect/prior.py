"""Stage prior of the affect models: what their encoders start from."""

import argparse
import os
from pathlib import Path
from typing import Annotated, Literal

if __name__ == "__main__":
    # Before torch is imported; see stages/finetune.py.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
import torch
from lightning_fabric import seed_everything
from pydantic import Field, NonNegativeInt

from pipeline.acquire.http import DownloadFailed
from pipeline.acquire.weights import FROM_SCRATCH, provide
from pipeline.affect.stored import IMAGES, StoredSet, read_stored
from pipeline.common.encoder_weights import CARD, CHECKPOINT, History
from pipeline.common.files import project_root, sha256_of, write_json
from pipeline.common.frames import Frames
from pipeline.common.hosts import RetryPolicy
from pipeline.common.imports import needed_files
from pipeline.common.params import Preset, Section, StageParams, load_params
from pipeline.feed.batches import BatchPlan, evaluation_batches
from pipeline.feed.order import Rank
from pipeline.models.image_encoder import ImageEncoderSize
from pipeline.pretrain.autoencoder import DecoderSize
from pipeline.pretrain.batches import Form, HeldOutSamples, PretrainBatches
from pipeline.pretrain.build import build_image_autoencoder
from pipeline.pretrain.files import history_after, write_encoder
from pipeline.pretrain.image import ImageSize
from pipeline.pretrain.recipe import Recipe, make_optimizer, make_schedule
from pipeline.pretrain.task import PretrainTask
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import launch
from pipeline.training.identity import training_key
from pipeline.training.loop import train


class EncoderSource(Section):
    """Which weights; docs/checkpoints.md.

    Attributes:
        weights: A name of `python -m commands.weights`, or that of a file in weights/, such as the
            one that pre-training leaves there.
        accept_licence: Whether the user accepts their licence.
        hugging_face: Address of the hub, or of a mirror.
    """

    weights: str
    accept_licence: bool
    hugging_face: str


class PriorSettings(Section):
    """The masked autoencoder of init: rendered.

    Attributes:
        decoder: Of the autoencoder.
        held_out: Share of the people, who show which epoch is best.
        seed: Of the training.
        recipe: As in pretrain/params.yaml.
    """

    decoder: DecoderSize
    held_out: Annotated[float, Field(gt=0, lt=1)]
    seed: NonNegativeInt
    recipe: Recipe


class Params(StageParams):
    """Exactly this stage's `params` in affect/dvc.yaml."""

    init: Literal["rendered", "weights", "random"]
    encoder: EncoderSource
    prior: PriorSettings
    size: Annotated[ImageEncoderSize, Preset("models", chosen_by="model", key="encoder")]


class PeoplesPictures:
    """Some of the stored pictures as what pre-training learns from.

    Args:
        stored: All of them.
        numbers: Of those that are meant.
    """

    def __init__(self, stored: StoredSet, numbers: list[int]) -> None:
        self.stored = stored
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def name(self, number: int) -> str:
        return self.stored.images[self.numbers[number]].id

    def group(self, number: int) -> str:
        return self.stored.images[self.numbers[number]].group

    def path(self, number: int) -> str:
        return self.stored.images[self.numbers[number]].path

    def groups(self) -> dict[str, list[str]]:
        names = {self.group(number) for number in range(len(self))}
        return {self.stored.card.identity: sorted(names)}

    def read(self, number: int, random: np.random.Generator | None) -> Frames:
        return np.array(self.stored.pixels[self.numbers[number]])[None]


def main(params: Params, people: Path, source: Path, out: Path) -> None:
    try:
        if (params.init == "weights") == (source.name == FROM_SCRATCH):
            raise ValueError(
                f"init is {params.init} and encoder.weights is {source.name}: they go together "
                f"where init: weights names a file and the others name {FROM_SCRATCH}"
            )
        if params.init == "rendered":
            line = pretrain(params, people, out)
        else:
            line = provide(
                source,
                out,
                project_root(Path()) / "downloads/weights",
                accept_licence=params.encoder.accept_licence,
                policy=RetryPolicy(),
                hugging_face=params.encoder.hugging_face,
            )
    except (DownloadFailed, PermissionError, FileNotFoundError, ValueError) as error:
        raise SystemExit(f"prior: {error}") from error
    print(f"prior: {line}")


def pretrain(params: Params, people: Path, out: Path) -> str:
    """Train a masked autoencoder on pictures of people without their labels; what to say of it."""
    stored, settings = read_stored(people), params.prior
    recipe, engine = settings.recipe, settings.recipe.engine
    fabric = launch(engine.precision)
    seed_everything(settings.seed, verbose=False)
    model = build_image_autoencoder(
        ImageSize(encoder=params.size, decoder=settings.decoder),
        mask_ratio=recipe.mask_ratio,
        checkpointing=recipe.checkpointing,
        start=None,
    )
    form = Form(0, params.size.image_size, model.masking)
    groups = sorted({image.group for image in stored.images})
    held_out = set(groups[: max(1, round(settings.held_out * len(groups)))])
    rows = range(len(stored.images))
    training, watched = (
        PeoplesPictures(stored, [i for i in rows if (stored.images[i].group in held_out) == held])
        for held in (False, True)
    )
    batches = PretrainBatches(
        training,
        form,
        recipe.augment,
        BatchPlan(
            batch_size=engine.batch_size,
            class_balanced=False,
            min_steps=engine.min_steps,
            seed=settings.seed,
            rank=Rank(),
            num_workers=engine.num_workers,
        ),
    )
    optimizer = make_optimizer(model, recipe.optimizer, batch_size=engine.batch_size)
    schedule = make_schedule(
        recipe.schedule,
        optimizer,
        batch_size=engine.batch_size,
        epochs=engine.epochs,
        steps_per_epoch=batches.steps_per_epoch,
    )
    samples = HeldOutSamples(watched, form, most=len(watched), seed=settings.seed)
    task = PretrainTask(
        evaluation_batches(samples, batch_size=engine.micro_batch_size, rank=Rank(), num_workers=0)
    )
    checkpoints = Checkpoints(scratch(params, people))
    torch.manual_seed(settings.seed)
    done = train(
        fabric, model, optimizer, schedule, task, batches, engine, checkpoints, lambda row: None
    )
    seen = {stored.card.identity: groups}
    history = history_after(History.empty(), "MAE", done.best_epoch, seen)
    out.mkdir(parents=True, exist_ok=True)
    write_encoder(out / CHECKPOINT, model.encoder, history)
    digest = sha256_of(out / CHECKPOINT)
    write_json(out / CARD, {"name": "rendered", "sha256": digest, "history": history.model_dump()})
    checkpoints.remove()
    error = done.history[done.best_epoch - 1]["validation_loss"]
    return f"MAE of {len(training)} pictures, error of hidden pixels {error:.3f} on held-out people"


def scratch(params: Params, people: Path) -> Path:
    """Where the state of this training is kept until it is done."""
    root = Path(__file__).parents[2]
    inputs = {IMAGES: sha256_of(people / IMAGES)}
    sources = needed_files(Path(__file__).relative_to(root), root)
    key = training_key(params.model_dump(mode="json"), {}, inputs, sources, root)
    return project_root(Path()) / ".scratch/affect_prior" / key


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("people", type=Path, help="folder of rendered people")
    parser.add_argument("source", type=Path, help="where it comes from")
    parser.add_argument("out", type=Path, help="what is written")
    parser.add_argument(
        "--params",
        type=Path,
        default=Path("affect/params.yaml"),
        help="the parameters (%(default)s)",
    )
    args = parser.parse_args()
    main(load_params(Params, args.params), args.people, args.source, args.out)
