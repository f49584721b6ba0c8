"""Stage finetune: train one fold, and predict its test subjects once with the best epoch."""

import argparse
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

# Before torch is imported: threads of GNU OpenMP that wait for one another go to sleep soon instead
# of spinning, which costs nothing on an idle machine and saves much on a busy one.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from lightning.fabric import Fabric, seed_everything
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.common.clips import read_manifest
from pipeline.common.files import project_root, sha256_of
from pipeline.common.memory import memory_advice
from pipeline.common.params import Preset, Section, StageParams, load_params
from pipeline.feed.batches import (
    Augmentation,
    evaluation_batches,
    num_steps,
    training_batches,
)
from pipeline.folds.folds import Fold, read_fold, refuse_leaks
from pipeline.models.checkpoints import save_model
from pipeline.mtcae.build import build_model
from pipeline.mtcae.loss import LossWeights
from pipeline.mtcae.predictions import evaluate
from pipeline.mtcae.results import fold_result, write_tables
from pipeline.store.shards import CLIPS, Clips, subject_shards
from pipeline.store.tokens import TOKENS, EncodedClips, origin_of, why_tokens_vary
from pipeline.tracking.observer import track_fold
from pipeline.training.devices import Precision, failing_together, launch
from pipeline.training.history import Epoch
from pipeline.training.loop import train
from pipeline.training.optim import Schedule, adamw, make_schedule
from pipeline.training.resume import Checkpoints, training_key
from pipeline.training.step import Mixing

Fraction = Annotated[float, Field(ge=0, le=1)]

# Without workers decoding delays the training; of a small data set it is then done once.
KEEP_BYTES = 256 * 2**20
# Where a device's memory is full.
ADVICE = (
    "lower max_clips_per_step of the recipe (the result stays the same, but for mixup and cutmix), "
    "set its checkpointing to true if the encoder is trained, or choose a smaller model; the "
    "training then starts afresh"
)


class EncoderParams(Section):
    """The checkpoint that the encoder starts from; docs/checkpoints.md."""

    weights: Path


class ModelParams(Section):
    """Sizes of encoder and decoders; widths are numbers per token."""

    image_size: PositiveInt
    patch_size: PositiveInt
    tubelet_size: PositiveInt
    encoder_dim: PositiveInt
    encoder_depth: PositiveInt
    encoder_heads: PositiveInt
    decoder_dim: PositiveInt
    decoder_heads: PositiveInt
    decoder_head_dim: PositiveInt
    decoder_layers: PositiveInt
    dropout: Fraction
    head_dropout: Fraction


class LossWeightParams(Section):
    """Weights of the three losses."""

    boxes: NonNegativeFloat
    points: NonNegativeFloat
    expression: NonNegativeFloat


class RecipeParams(Section):
    """How a fold is trained; params.yaml says what each number is."""

    encoder: Literal["full", "frozen"]
    epochs: PositiveInt
    batch_size: PositiveInt
    max_clips_per_step: PositiveInt
    class_balanced: bool
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    drop_path: Fraction
    schedule: Schedule
    warmup_epochs: NonNegativeInt
    plateau_patience: PositiveInt
    early_stop: PositiveInt
    label_smoothing: Fraction
    flip_probability: Fraction
    rand_augment_ops: NonNegativeInt
    rand_augment_magnitude: Annotated[float, Field(ge=0, le=10)]
    erase_probability: Fraction
    mixup_alpha: NonNegativeFloat
    cutmix_alpha: NonNegativeFloat
    mix_probability: Fraction
    clip_gradients: NonNegativeFloat
    ema: Annotated[float, Field(ge=0, lt=1)]
    checkpointing: bool
    compile: bool
    precision: Precision
    num_workers: NonNegativeInt
    loss_weights: LossWeightParams


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    dataset: str
    arch: Literal["stl", "non_fully_shared", "fully_shared", "cascaded"]
    decoder: Literal["vit", "mlp"]
    model: str
    recipe: str
    seed: NonNegativeInt
    encoder: EncoderParams
    # Saved with the model too, so that a video can be read as the training clips were.
    frames: dict[str, int | str]
    classes: Annotated[list[str], Preset("datasets", chosen_by="dataset", key="classes")]
    models: Annotated[ModelParams, Preset("models", chosen_by="model")]
    recipes: Annotated[RecipeParams, Preset("recipes", chosen_by="recipe")]


def main(
    params: Params, fold_number: int, shards: Path, tokens: Path, folds: Path, out: Path
) -> None:
    fold = read_fold(folds, fold_number)
    refuse_leaks(fold, read_manifest(shards / CLIPS))
    fabric = launch(params.recipes.precision)
    root = Path(__file__).parents[1]
    inputs = [shards / CLIPS, *sorted(shards.glob("*.tar")), params.encoder.weights]
    inputs.append(tokens / TOKENS)
    key = training_key(params.model_dump(mode="json"), fold._asdict(), inputs, root)
    folder = project_root(Path()) / ".scratch/finetune" / key
    checkpoints = Checkpoints(folder, writer=fabric.is_global_zero)
    choices = params.model_dump(include={"dataset", "arch", "decoder", "model", "recipe", "seed"})
    with failing_together(fabric), memory_advice(ADVICE), ExitStack() as stack:
        log = None
        if fabric.is_global_zero:
            digest = sha256_of(shards / CLIPS)
            log = stack.enter_context(
                track_fold(choices, fold.fold, params.model_dump(), data_digest=digest)
            )

        def on_epoch(line: Epoch) -> None:
            if log:
                log.metrics(line._asdict(), line.epoch)

        metrics = fit_and_test(params, fabric, fold, shards, tokens, out, checkpoints, on_epoch)
        if log:
            log.metrics(metrics)
    if fabric.is_global_zero:
        checkpoints.remove()


def fit_and_test(
    params: Params,
    fabric: Fabric,
    fold: Fold,
    shards: Path,
    tokens: Path,
    out: Path,
    checkpoints: Checkpoints,
    on_epoch: Callable[[Epoch], None],
) -> dict[str, float]:
    """Train the fold; model, history, predictions and the returned metrics go into `out`."""
    recipe = params.recipes
    seed_everything(params.seed, verbose=False)
    model = build_model(
        arch=params.arch,
        decoder=params.decoder,
        num_classes=len(params.classes),
        weights=params.encoder.weights,
        frozen=recipe.encoder == "frozen",
        drop_path=recipe.drop_path,
        checkpointing=recipe.checkpointing,
        num_frames=int(params.frames["num_frames"]),
        **params.models.model_dump(),
    )
    if recipe.compile:
        # Every size of a batch, of which there are few, gets kernels of its own.
        model.compile(dynamic=False)
    optimizer = adamw(
        model,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
    )

    encoder = model.encoder
    origin = origin_of(
        encoder.config, encoder.mean, encoder.std, params.encoder.weights, recipe.precision
    )
    stored = not why_tokens_vary(
        recipe.encoder,
        flip_probability=recipe.flip_probability,
        rand_augment_ops=recipe.rand_augment_ops,
        erase_probability=recipe.erase_probability,
        mixup_alpha=recipe.mixup_alpha,
        cutmix_alpha=recipe.cutmix_alpha,
    )

    def clips_of(subjects: list[str]) -> Clips | EncodedClips:
        if stored:
            return EncodedClips(tokens, shards, subjects, classes=params.classes, origin=origin)
        paths = subject_shards(shards, subjects)
        return Clips(
            paths,
            classes=params.classes,
            image_size=params.models.image_size,
            keep_bytes=0 if recipe.num_workers else KEEP_BYTES,
        )

    placed = {
        "rank": fabric.global_rank,
        "world_size": fabric.world_size,
        "num_workers": recipe.num_workers,
    }
    per_device = min(recipe.max_clips_per_step, recipe.batch_size)
    train_clips = clips_of(fold.train)
    steps_per_epoch = num_steps(len(train_clips), recipe.batch_size)
    loss_weights = LossWeights(**recipe.loss_weights.model_dump())
    trained = train(
        fabric,
        model,
        optimizer,
        make_schedule(
            recipe.schedule,
            optimizer,
            epochs=recipe.epochs,
            steps_per_epoch=steps_per_epoch,
            warmup_epochs=recipe.warmup_epochs,
            plateau_patience=recipe.plateau_patience,
        ),
        train_batches=lambda epoch, step: training_batches(
            train_clips,
            first_epoch=epoch,
            first_step=step,
            batch_size=recipe.batch_size,
            class_balanced=recipe.class_balanced,
            augmentation=Augmentation(
                recipe.flip_probability,
                recipe.rand_augment_ops,
                recipe.rand_augment_magnitude,
                recipe.erase_probability,
            ),
            seed=params.seed,
            **placed,
        ),
        steps_per_epoch=steps_per_epoch,
        validation_batches=evaluation_batches(
            clips_of(fold.validation), batch_size=per_device, **placed
        ),
        epochs=recipe.epochs,
        early_stop=recipe.early_stop,
        max_clips_per_step=recipe.max_clips_per_step,
        loss_weights=loss_weights,
        label_smoothing=recipe.label_smoothing,
        mixing=Mixing(
            recipe.mixup_alpha, recipe.cutmix_alpha, recipe.mix_probability, len(params.classes)
        ),
        clip_gradients=recipe.clip_gradients,
        ema=recipe.ema,
        seed=params.seed,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
    )
    test_batches = evaluation_batches(clips_of(fold.test), batch_size=per_device, **placed)
    tested = evaluate(fabric, model, test_batches, loss_weights)
    result = fold_result(tested, fold.fold, params.classes)
    metrics = result.metrics | {
        "best_epoch": trained.best_epoch,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    if fabric.is_global_zero:
        choices = {"dataset", "model", "recipe", "seed", "classes", "frames"}
        description = {**params.model_dump(include=choices), "fold": fold.fold, "metrics": metrics}
        out.mkdir(parents=True, exist_ok=True)
        save_model(out / "model.safetensors", model, metadata=description)
        write_tables(out, trained.history, result.predictions, metrics)
        print(
            f"finetune fold {fold.fold}: test UAR {metrics['uar']:.1%}, WAR {metrics['war']:.1%} "
            f"on {len(result.predictions)} clips of {len(fold.test)} subjects; epoch "
            f"{trained.best_epoch} of {len(trained.history)}"
        )
    return metrics


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fold", type=int)
    parser.add_argument("shards", type=Path)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("folds", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    main(load_params(Params), args.fold, args.shards, args.tokens, args.folds, args.out)
