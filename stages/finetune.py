"""Stage finetune: train one fold, and predict its test subjects once with the best epoch."""

import argparse
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    # Before torch is imported: threads of GNU OpenMP that wait for one another go to sleep soon
    # instead of spinning, which costs nothing on an idle machine and saves much on a busy one.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch
from lightning_fabric import Fabric

from pipeline.common.encoder_weights import ALLOW_SEEN, card_in, history_in
from pipeline.common.memory import memory_advice
from pipeline.common.params import load_params
from pipeline.feed.batches import MiddleSegment, evaluation_batches
from pipeline.feed.order import Rank
from pipeline.folds.folds import refuse_leaks
from pipeline.folds.seen import refuse_seen
from pipeline.mtcae.assembly import TrainingParams, assemble, start_model
from pipeline.mtcae.fold_data import FoldData
from pipeline.mtcae.model import MTCAE
from pipeline.mtcae.optimistic import Optimistic
from pipeline.mtcae.predictions import Evaluation, evaluate
from pipeline.mtcae.results import fold_result, in_words, write_tables
from pipeline.mtcae.saved import save_model
from pipeline.mtcae.scratch import ADVICE, manifest_digest, scratch_folder
from pipeline.mtcae.task import MTCAETask
from pipeline.mtcae.view_mean import ViewMean
from pipeline.store.folders import open_shards
from pipeline.tracking.experiment import TrackedExperiment
from pipeline.tracking.observer import track_fold
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import end_together, launch
from pipeline.training.history import Epoch
from pipeline.training.log_file import log_file
from pipeline.training.loop import Training, train
from pipeline.training.optim import make_schedule
from pipeline.training.place import place_in_words, warn_of_cpu


class Params(TrainingParams):
    """Exactly this stage's `params` in dvc.yaml."""


def main(params: TrainingParams, data: FoldData, out: Path) -> None:
    try:
        refuse_leaks(data.fold, data.clips)
        if ALLOW_SEEN not in card_in(data.start):
            refuse_seen(history_in(data.start), params.dataset, data.fold, data.clips)
    except ValueError as error:
        raise SystemExit(f"finetune: {error}") from error
    fabric = launch(params.recipes.engine.precision)
    manifest = manifest_digest(data)
    scratch = scratch_folder(Path(__file__), params, data, manifest, data.fold._asdict())
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
    params: TrainingParams,
    fabric: Fabric,
    data: FoldData,
    out: Path,
    checkpoints: Checkpoints,
    on_epoch: Callable[[Epoch], None],
) -> dict[str, float]:
    """Train the fold; model, history, predictions and the returned metrics go into `out`."""
    model = start_model(params, data)
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
    params: TrainingParams,
    fabric: Fabric,
    data: FoldData,
    model: MTCAE,
    checkpoints: Checkpoints,
    on_epoch: Callable[[Epoch], None],
) -> tuple[Training, Evaluation, Optimistic | None]:
    """Train the model, and predict the test clips with its best epoch."""
    recipe, engine = params.recipes, params.recipes.engine
    rank = Rank(fabric.global_rank, fabric.world_size)
    trained, batches, loss, optimizer, open_part = assemble(params, rank, data, model)
    batches_of = partial(
        evaluation_batches,
        batch_size=min(engine.micro_batch_size, engine.batch_size),
        rank=rank,
        num_workers=engine.num_workers,
    )
    views = partial(
        ViewMean, num_frames=params.frames.num_frames, num_crops=recipe.evaluation.crops
    )
    task = MTCAETask(
        loss,
        recipe.mix,
        num_classes=len(params.classes),
        seed=params.seed,
        validation=batches_of(MiddleSegment(open_part("validation"))),
        tested=batches_of(open_part("test")) if recipe.evaluation.optimistic else None,
        views=views,
    )
    schedule = make_schedule(
        recipe.schedule, optimizer, epochs=engine.epochs, steps_per_epoch=batches.steps_per_epoch
    )
    torch.manual_seed(params.seed + fabric.global_rank)  # Devices drop out differently.
    if fabric.is_global_zero:
        print(
            f"finetune fold {data.fold.number}: {len(data.fold.rows(data.clips, 'train'))} clips "
            f"to train on; {place_in_words(fabric, engine.precision)}"
        )
    warn_of_cpu(
        fabric,
        trained,
        num_tokens=model.encoder.num_tokens,
        num_samples=len(data.fold.rows(data.clips, "train")),
        epochs=engine.epochs,
    )
    training = train(
        fabric, trained, optimizer, schedule, task, batches, engine, checkpoints, on_epoch
    )
    test = evaluate(fabric, views(trained), batches_of(open_part("test")), loss)
    return training, test, task.optimistic


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fold", type=int, help="its number, from 1")
    parser.add_argument("shards", help="a folder, or its address: https://host/shards/ravdess")
    parser.add_argument("weights", type=Path, help="folder of what the encoder starts from")
    parser.add_argument("tokens", type=Path, help="folder of a frozen encoder's tokens")
    parser.add_argument("folds", type=Path, help="table of clips x folds")
    parser.add_argument("out", type=Path, help="what is written")
    args = parser.parse_args()
    try:
        shards = open_shards(args.shards)
        data = FoldData.read(args.fold, shards, args.weights, args.tokens, args.folds)
    except (OSError, ValueError) as error:
        raise SystemExit(f"finetune: {error}") from error
    with log_file(f"finetune-fold{args.fold}"):
        main(load_params(Params), data, args.out)
