"""Stage finetune: train one fold, and predict its test subjects once with the best epoch."""

import argparse
import math
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

if __name__ == "__main__":
    # Before torch is imported: threads of GNU OpenMP that wait for one another go to sleep soon
    # instead of spinning, which costs nothing on an idle machine and saves much on a busy one.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch
from lightning_fabric import Fabric, seed_everything

from pipeline.common.encoder_weights import ALLOW_SEEN, CARD, card_in, checkpoint_in, history_in
from pipeline.common.files import project_root, sha256_in, sha256_of
from pipeline.common.frames import FaceSettings, FrameSettings
from pipeline.common.imports import OBSERVERS, needed_files
from pipeline.common.memory import memory_advice
from pipeline.common.params import Preset, StageParams, load_params
from pipeline.feed.batches import (
    LabelledSource,
    MiddleSegment,
    TrainingBatches,
    evaluation_batches,
)
from pipeline.feed.order import Rank
from pipeline.folds.folds import refuse_leaks
from pipeline.folds.seen import refuse_seen
from pipeline.models.start import token_origin
from pipeline.mtcae.fold_data import FoldData
from pipeline.mtcae.loss import in_fractions
from pipeline.mtcae.model import MTCAE, ModelSize
from pipeline.mtcae.optimistic import Optimistic
from pipeline.mtcae.predictions import Evaluation, evaluate
from pipeline.mtcae.recipe import Recipe, build_model
from pipeline.mtcae.results import fold_result, in_words, write_tables
from pipeline.mtcae.saved import save_model
from pipeline.mtcae.structures import Choices
from pipeline.mtcae.task import MTCAETask
from pipeline.mtcae.view_mean import ViewMean
from pipeline.store.contents import CLIPS
from pipeline.store.folders import open_shards
from pipeline.store.tokens import TOKENS
from pipeline.tracking.experiment import TrackedExperiment
from pipeline.tracking.observer import track_fold
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import end_together, launch
from pipeline.training.history import Epoch
from pipeline.training.identity import training_key
from pipeline.training.loop import Training, train
from pipeline.training.optim import adamw, make_schedule

# Without workers decoding delays the training; of a small data set it is then done once.
KEEP_BYTES = 256 * 2**20
# Clips from which the variance of boxes and points is taken.
SCALE_CLIPS = 256
# Where a device's memory is full.
ADVICE = (
    "lower engine.micro_batch_size of the recipe (the result stays the same, but for mixup and "
    "cutmix), set its encoder.checkpointing to true if the encoder is trained, or choose a smaller "
    "model; the training then starts afresh"
)


class Params(Choices, StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    # Saved with the model too, so that a video can be read as the training clips were.
    frames: FrameSettings
    faces: FaceSettings
    classes: Annotated[list[str], Preset("datasets", chosen_by="dataset", key="classes")]
    models: Annotated[ModelSize, Preset("models", chosen_by="model")]
    recipes: Annotated[Recipe, Preset("recipes", chosen_by="recipe")]


def main(params: Params, data: FoldData, out: Path) -> None:
    try:
        refuse_leaks(data.fold, data.clips)
        if ALLOW_SEEN not in card_in(data.start):
            refuse_seen(history_in(data.start), params.dataset, data.fold, data.clips)
    except ValueError as error:
        raise SystemExit(f"finetune: {error}") from error
    fabric = launch(params.recipes.engine.precision)
    root = Path(__file__).parents[1]
    with data.shards.open(CLIPS) as file:
        manifest = sha256_in(file)
    key = training_key(
        params.model_dump(mode="json"),
        data.fold._asdict(),
        {
            CLIPS: manifest,
            TOKENS: sha256_of(data.tokens / TOKENS),
            CARD: sha256_of(data.start / CARD),
        },
        needed_files(Path(__file__).relative_to(root), root, without=[OBSERVERS]),
        root,
    )
    scratch = project_root(Path()) / ".scratch/finetune" / key
    checkpoints = Checkpoints(scratch, writer=fabric.is_global_zero)
    with end_together(fabric), memory_advice(ADVICE), ExitStack() as stack:
        log = None
        if fabric.is_global_zero:
            parameters = params.model_dump(mode="json") | {"encoder": card_in(data.start)}
            experiment = TrackedExperiment.of(parameters, manifest)
            log = stack.enter_context(track_fold(experiment, data.fold.number))

        def on_epoch(row: Epoch) -> None:
            if log:
                log.metrics(row, int(row["epoch"]))

        metrics = fit_and_test(params, fabric, data, out, checkpoints, on_epoch)
        if log:
            log.metrics(metrics)
    if fabric.is_global_zero:
        checkpoints.remove()


def fit_and_test(
    params: Params,
    fabric: Fabric,
    data: FoldData,
    out: Path,
    checkpoints: Checkpoints,
    on_epoch: Callable[[Epoch], None],
) -> dict[str, float]:
    """Train the fold; model, history, predictions and the returned metrics go into `out`."""
    seed_everything(params.seed, verbose=False)
    model = build_model(
        params.structure,
        params.models,
        params.recipes.encoder,
        checkpoint_in(data.start),
        num_frames=params.frames.num_frames,
        num_classes=len(params.classes),
    )
    training, test, optimistic = fit(params, fabric, data, model, checkpoints, on_epoch)
    times = {clip.clip: clip.times for clip in data.clips}
    result = fold_result(test, data.fold.number, params.classes, times, optimistic)
    metrics = result.metrics
    metrics["best_epoch"] = training.best_epoch
    metrics["num_parameters"] = sum(parameter.numel() for parameter in model.parameters())
    if fabric.is_global_zero:
        description = {
            **params.model_dump(mode="json"),
            "encoder": card_in(data.start),
            "fold": data.fold.number,
            "clip_seconds": data.median_seconds("train"),
            "metrics": metrics,
        }
        history = history_in(data.start).with_groups(
            params.dataset, data.groups("train", "validation")
        )
        out.mkdir(parents=True, exist_ok=True)
        save_model(out / "model.safetensors", model, metadata=description, history=history)
        write_tables(out, training.history, result.predictions, metrics)
        num_classes = len({clip.label for clip in data.clips})
        for line in in_words(result, training.history, num_classes):
            print(f"finetune fold {data.fold.number}: {line}")
    return metrics


def fit(
    params: Params,
    fabric: Fabric,
    data: FoldData,
    model: MTCAE,
    checkpoints: Checkpoints,
    on_epoch: Callable[[Epoch], None],
) -> tuple[Training, Evaluation, Optimistic | None]:
    """Train the model, and predict the test clips with its best epoch."""
    recipe, engine = params.recipes, params.recipes.engine
    stored = not recipe.why_tokens_vary(params.frames.segments)
    # Of stored tokens the decoders are trained alone.
    trained = model.tasks if stored else model

    def open_part(part: str) -> LabelledSource:
        if stored:
            weights = checkpoint_in(data.start)
            origin = token_origin(model.encoder, weights, engine.precision)
            return data.stored_tokens(part, classes=params.classes, origin=origin)
        return data.frames(
            part,
            classes=params.classes,
            image_size=model.encoder.size.image_size,
            segments=params.frames.segments,
            keep_bytes=0 if engine.num_workers else KEEP_BYTES,
        )

    if engine.compile:
        # Every size of a batch, of which there are few, gets kernels of its own.
        trained.compile(dynamic=False)
    rank = Rank(fabric.global_rank, fabric.world_size)
    batches_of = partial(
        evaluation_batches,
        batch_size=min(engine.micro_batch_size, engine.batch_size),
        rank=rank,
        num_workers=engine.num_workers,
    )
    views = partial(
        ViewMean, num_frames=params.frames.num_frames, num_crops=recipe.evaluation.crops
    )
    training_batches = partial(
        TrainingBatches,
        open_part("train"),
        recipe.augment,
        batch_size=engine.batch_size,
        class_balanced=engine.class_balanced,
        min_steps=engine.min_steps,
        seed=params.seed,
    )
    batches = training_batches(rank=rank, num_workers=engine.num_workers)
    # The same batches on every device.
    every = training_batches(rank=Rank(), num_workers=0).starting_at(epoch=1, step=0)
    some = islice(every, min(math.ceil(SCALE_CLIPS / engine.batch_size), batches.steps_per_epoch))
    loss = in_fractions(recipe.loss, some)
    task = MTCAETask(
        loss,
        recipe.mix,
        num_classes=len(params.classes),
        seed=params.seed,
        validation=batches_of(MiddleSegment(open_part("validation"))),
        tested=batches_of(open_part("test")) if recipe.evaluation.optimistic else None,
        views=views,
    )
    optimizer = adamw(
        trained, recipe.optimizer, (lambda name: 0) if stored else model.layers_from_output
    )
    steps = batches.steps_per_epoch
    schedule = make_schedule(
        recipe.schedule, optimizer, epochs=engine.epochs, steps_per_epoch=steps
    )
    torch.manual_seed(params.seed + fabric.global_rank)  # Devices drop out differently.
    training = train(
        fabric, trained, optimizer, schedule, task, batches, engine, checkpoints, on_epoch
    )
    test = evaluate(fabric, views(trained), batches_of(open_part("test")), loss)
    return training, test, task.optimistic


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fold", type=int)
    parser.add_argument("shards", help="a folder, or its address: https://host/shards/ravdess")
    parser.add_argument("weights", type=Path)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("folds", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    try:
        shards = open_shards(args.shards)
        data = FoldData.read(args.fold, shards, args.weights, args.tokens, args.folds)
    except (OSError, ValueError) as error:
        raise SystemExit(f"finetune: {error}") from error
    main(load_params(Params), data, args.out)
