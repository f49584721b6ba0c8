"""Stage train of the affect models: one fold with one seed, and its test with the best epoch."""

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

if __name__ == "__main__":
    # Before torch is imported; see stages/finetune.py.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch
from lightning_fabric import Fabric, seed_everything

from pipeline.affect.build import make_optimizer
from pipeline.affect.choices import Choices
from pipeline.affect.cnn_stored import open_stored, read_record
from pipeline.affect.cotex import CoTEXSettings, MaskedCoTEX
from pipeline.affect.emma import EMMA
from pipeline.affect.feed import PictureBatches, Pictures
from pipeline.affect.fold_data import FoldData, Inputs
from pipeline.affect.fold_test import FoldTest, batches_of
from pipeline.affect.recipe import AffectTask, ModelPreset, Recipe, Start, build, make_task
from pipeline.affect.results import write_fold, write_model
from pipeline.affect.stored import IMAGES
from pipeline.common.encoder_weights import card_in, checkpoint_in
from pipeline.common.files import project_root, sha256_of
from pipeline.common.imports import OBSERVERS, needed_files
from pipeline.common.memory import memory_advice
from pipeline.common.params import Preset, StageParams, load_params
from pipeline.feed.batches import BatchPlan
from pipeline.feed.order import Rank
from pipeline.tracking.affect import AffectExperiment
from pipeline.tracking.observer import RunLog, track_fold
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import end_together, launch
from pipeline.training.identity import training_key
from pipeline.training.log_file import log_file
from pipeline.training.loop import Training, train
from pipeline.training.optim import make_schedule

ADVICE = (
    "lower engine.micro_batch_size of the recipe (the result stays the same), set its "
    "encoder.checkpointing to true, or choose a smaller model; the training then starts afresh"
)


class Params(Choices, StageParams):
    """Exactly this stage's `params` in affect/dvc.yaml."""

    cotex: CoTEXSettings
    models: Annotated[ModelPreset, Preset("models", chosen_by="model")]
    recipes: Annotated[Recipe, Preset("recipes", chosen_by="recipe")]


class FoldTraining:
    """The training of a fold on this device.

    Args:
        params: Of the stage.
        seed: Of the training.
        data: Of the fold.
    """

    def __init__(self, params: Params, seed: int, data: FoldData) -> None:
        self.params = params
        self.seed = seed
        self.data = data

    def start(self) -> Start:
        """What the training begins with."""
        params, data = self.params, self.data
        images = [*data.stored.images, *data.challenge.images]
        return Start(
            params.models,
            params.recipes,
            params.cotex,
            checkpoint_in(data.inputs.prior),
            open_stored(data.inputs.cnn, images, params.recipes.cnn_scores),
            self.seed,
        )

    def described(self) -> dict[str, Any]:
        """All parameters of the training, with what its parts start from."""
        return {
            **self.params.model_dump(mode="json"),
            "seed": self.seed,
            "encoder": card_in(self.data.inputs.prior),
            "classes": list(self.data.classes),
            "cnn_digest": read_record(self.data.inputs.cnn).digest,
        }

    def run(self, fabric: Fabric, checkpoints: Checkpoints, log: RunLog, out: Path) -> None:
        """Train, test once, and write the files of the fold."""
        seed_everything(self.seed, verbose=False)
        params, data, start = self.params, self.data, self.start()
        model = build(params.system, params.va_input, start, len(data.classes))
        training = data.part("train")
        validation = batches_of(data.part("validation"), fabric, params.recipes.engine)
        task = make_task(params.system, start, training, validation)
        done = self.fit(fabric, model, task, training, checkpoints, log)
        test = FoldTest(fabric, model, task, data, params.recipes)
        tested = test.run()
        if not fabric.is_global_zero:
            return
        number = data.fold.number
        more = {
            "best_epoch": float(done.best_epoch),
            "num_parameters": float(sum(weight.numel() for weight in model.parameters())),
        }
        metrics = write_fold(out, number, tested, done.history, data.classes, more)
        log.metrics(metrics)
        description = {**self.described(), "fold": number, "metrics": metrics}
        write_model(out, model, description, data.seen())
        if data.challenge.images and params.system == "emma":
            test.submit(tested.tuning, out)
        said = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items() if value <= 3)
        print(f"train fold {number}, seed {self.seed}: {said}")

    def fit(
        self,
        fabric: Fabric,
        model: EMMA | MaskedCoTEX,
        task: AffectTask,
        training: Pictures,
        checkpoints: Checkpoints,
        log: RunLog,
    ) -> Training:
        """Train the model."""
        recipe, engine = self.params.recipes, self.params.recipes.engine
        if engine.compile:
            model.compile(dynamic=False)
        batches = PictureBatches(
            training,
            recipe.augment,
            BatchPlan(
                batch_size=engine.batch_size,
                class_balanced=engine.class_balanced,
                min_steps=engine.min_steps,
                seed=self.seed,
                rank=Rank(fabric.global_rank, fabric.world_size),
                num_workers=engine.num_workers,
            ),
        )
        optimizer = make_optimizer(model, recipe.optimizer)
        schedule = make_schedule(
            recipe.schedule,
            optimizer,
            epochs=engine.epochs,
            steps_per_epoch=batches.steps_per_epoch,
        )
        torch.manual_seed(self.seed + fabric.global_rank)
        return train(
            fabric,
            model,
            optimizer,
            schedule,
            task,
            batches,
            engine,
            checkpoints,
            lambda row: log.metrics(row, int(row["epoch"])),
        )


def main(params: Params, number: int, seed: int, inputs: Inputs, out: Path) -> None:
    side, crop = params.models.encoder.image_size, params.recipes.augment.crop
    try:
        data = FoldData(inputs, number, side=side, crop=crop)
    except ValueError as error:
        raise SystemExit(f"train: {error}") from error
    training = FoldTraining(params, seed, data)
    fabric = launch(params.recipes.engine.precision)
    checkpoints = Checkpoints(scratch(training), writer=fabric.is_global_zero)
    with end_together(fabric), memory_advice(ADVICE), ExitStack() as stack:
        log = RunLog(None, "")
        if fabric.is_global_zero:
            experiment = AffectExperiment.of(training.described(), sha256_of(inputs.data / IMAGES))
            log = stack.enter_context(track_fold(experiment, number))
        try:
            training.run(fabric, checkpoints, log, out)
        except ValueError as error:
            raise SystemExit(f"train: {error}") from error
    if fabric.is_global_zero:
        checkpoints.remove()


def scratch(training: FoldTraining) -> Path:
    """Where the state of this training is kept until it is done."""
    root = Path(__file__).parents[2]
    key = training_key(
        training.params.model_dump(mode="json"),
        {**training.data.fold._asdict(), "seed": training.seed},
        training.data.digests(),
        needed_files(Path(__file__).relative_to(root), root, without=[OBSERVERS]),
        root,
    )
    return project_root(Path()) / ".scratch/affect" / key


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fold", type=int, help="its number, from 1")
    parser.add_argument("seed", type=int, help="of the training")
    for name in (*Inputs._fields, "out"):
        parser.add_argument(name, type=Path, help="in the order of dvc.yaml")
    parser.add_argument(
        "--params",
        type=Path,
        default=Path("affect/params.yaml"),
        help="the parameters (%(default)s)",
    )
    args = parser.parse_args()
    with log_file(f"affect-fold{args.fold}-seed{args.seed}"):
        main(
            load_params(Params, args.params),
            args.fold,
            args.seed,
            Inputs(*(getattr(args, name) for name in Inputs._fields)),
            args.out,
        )
