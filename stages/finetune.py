"""Stage finetune: train one fold, and predict its test subjects once with the best epoch."""

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from lightning.fabric import Fabric, seed_everything
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from pipeline.data.clips import read_manifest
from pipeline.data.folds import Fold, read_fold
from pipeline.data.shards import load_batches, subject_shards
from pipeline.evaluation.metrics import recalls
from pipeline.files import atomic_path, write_json
from pipeline.models.checkpoints import load_encoder, save_model
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.models.mtcae import MTCAE
from pipeline.params import Preset, Section, StageParams, load_params
from pipeline.tracking import track_fold
from pipeline.training.loop import Epoch, train
from pipeline.training.loss import LossWeights
from pipeline.training.optim import adamw, cosine_schedule, plateau_schedule
from pipeline.training.predict import evaluate, predictions_table

Fraction = Annotated[float, Field(ge=0, le=1)]


# In the place of a checkpoint: DVC can depend on a file, but not on "no file".
FROM_SCRATCH = "from_scratch"


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
    """How a fold is trained."""

    encoder: Literal["full", "frozen"]
    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    drop_path: Fraction
    schedule: Literal["cosine", "plateau"]
    warmup_epochs: NonNegativeInt
    plateau_patience: PositiveInt
    early_stop: PositiveInt
    label_smoothing: Fraction
    flip_probability: Fraction
    clip_gradients: NonNegativeFloat
    checkpointing: bool
    precision: Literal["32-true", "bf16-mixed"]
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
    classes: Annotated[list[str], Preset("datasets", chosen_by="dataset", key="classes")]
    models: Annotated[ModelParams, Preset("models", chosen_by="model")]
    recipes: Annotated[RecipeParams, Preset("recipes", chosen_by="recipe")]


def main(params: Params, fold_number: int, shards: Path, folds: Path, out: Path) -> None:
    fold = read_fold(folds, fold_number)
    choices = params.model_dump(include={"dataset", "arch", "decoder", "model", "recipe", "seed"})
    start = time.perf_counter()
    with track_fold(choices, fold.fold, params.model_dump()) as log:
        metrics = fit_and_test(
            params, fold, shards, out, on_epoch=lambda line: log.metrics(line._asdict(), line.epoch)
        )
        log.metrics({**metrics, "seconds": time.perf_counter() - start})


def fit_and_test(
    params: Params, fold: Fold, shards: Path, out: Path, on_epoch: Callable[[Epoch], None]
) -> dict[str, float]:
    """Train the fold; model, history, predictions and the returned metrics go into `out`."""
    recipe = params.recipes
    seed_everything(params.seed, verbose=False)
    fabric = Fabric(accelerator="auto", devices=1, precision=recipe.precision)
    model = build_model(params)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    optimizer = adamw(
        model,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
    )
    num_clips = Counter(clip.subject for clip in read_manifest(shards / "clips.parquet"))
    steps_per_epoch = math.ceil(
        sum(num_clips[subject] for subject in fold.train) / recipe.batch_size
    )
    schedule: LambdaLR | ReduceLROnPlateau
    if recipe.schedule == "cosine":
        schedule = cosine_schedule(
            optimizer,
            warmup_steps=recipe.warmup_epochs * steps_per_epoch,
            total_steps=recipe.epochs * steps_per_epoch,
        )
    else:
        schedule = plateau_schedule(optimizer, patience=recipe.plateau_patience)
    batches = partial(
        load_batches,
        classes=params.classes,
        image_size=params.models.image_size,
        batch_size=recipe.batch_size,
        num_workers=recipe.num_workers,
    )
    train_shards = subject_shards(shards, fold.train)
    loss_weights = LossWeights(**recipe.loss_weights.model_dump())
    trained = train(
        fabric,
        model,
        optimizer,
        schedule,
        train_batches=lambda epoch: batches(train_shards, shuffle_seed=(params.seed, epoch)),
        validation_batches=batches(subject_shards(shards, fold.validation)),
        epochs=recipe.epochs,
        early_stop=recipe.early_stop,
        loss_weights=loss_weights,
        label_smoothing=recipe.label_smoothing,
        flip_probability=recipe.flip_probability,
        clip_gradients=recipe.clip_gradients,
        seed=params.seed,
        on_epoch=on_epoch,
    )
    tested = evaluate(fabric, model, batches(subject_shards(shards, fold.test)), loss_weights)
    predictions = predictions_table(tested, fold.fold, params.classes)
    scores = recalls(tested.labels, tested.probabilities.argmax(axis=1), len(params.classes))
    metrics = {
        "uar": scores.uar,
        "war": scores.war,
        "box_iou": float(predictions["box_iou"].mean()),
        "landmark_error": float(predictions["landmark_error"].mean()),
        "best_epoch": trained.best_epoch,
        "num_test_clips": len(predictions),
        "num_parameters": num_parameters,
    }
    metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / "history.csv") as temporary:
        # The clock goes to MLflow only: the files of a fold are the same in every run.
        history = pd.DataFrame(trained.history).drop(columns=["clips_per_second", "seconds"])
        history.to_csv(temporary, index=False)
    with atomic_path(out / "predictions.parquet") as temporary:
        predictions.to_parquet(temporary, index=False)
    choices = params.model_dump(include={"dataset", "model", "recipe", "seed", "classes"})
    save_model(
        out / "model.safetensors",
        model,
        metadata={**choices, "fold": fold.fold, "metrics": metrics},
    )
    write_json(out / "metrics.json", metrics)
    print(
        f"finetune fold {fold.fold}: test UAR {scores.uar:.1%}, WAR {scores.war:.1%} on "
        f"{len(predictions)} clips of {len(fold.test)} subjects; epoch {trained.best_epoch} of "
        f"{len(trained.history)}"
    )
    return metrics


def build_model(params: Params) -> MTCAE:
    """The chosen structure in the chosen size."""
    sizes = params.models
    encoder = VideoMAEEncoder(
        dim=sizes.encoder_dim,
        depth=sizes.encoder_depth,
        num_heads=sizes.encoder_heads,
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        tubelet_size=sizes.tubelet_size,
        drop_path=params.recipes.drop_path,
        checkpointing=params.recipes.checkpointing,
    )
    weights = params.encoder.weights
    if weights.name != FROM_SCRATCH:
        report = load_encoder(encoder, weights)
        print(
            f"encoder: {len(report.matched)} weights from {weights.name} ({report.family}); left "
            f"aside: {len(report.dropped)} known, unknown: {report.unexpected or 'none'}"
        )
    if params.recipes.encoder == "frozen":
        if weights.name == FROM_SCRATCH:
            raise ValueError(
                "a frozen encoder without weights would stay random: name a checkpoint in "
                "encoder.weights, or take a recipe with `encoder: full`"
            )
        encoder.freeze()
    return MTCAE(
        encoder,
        arch=params.arch,
        decoder=params.decoder,
        num_classes=len(params.classes),
        decoder_dim=sizes.decoder_dim,
        decoder_heads=sizes.decoder_heads,
        decoder_head_dim=sizes.decoder_head_dim,
        decoder_layers=sizes.decoder_layers,
        dropout=sizes.dropout,
        head_dropout=sizes.head_dropout,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fold", type=int)
    parser.add_argument("shards", type=Path)
    parser.add_argument("folds", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    main(load_params(Params), args.fold, args.shards, args.folds, args.out)
