"""Stage train of the affect models: one fold with one seed, and its test with the best epoch."""

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, NamedTuple

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
from pipeline.affect.image_folds import ImageFold, read_fold, refuse_leaks, refuse_seen
from pipeline.affect.predictions import Evaluation, ask, evaluation_of, expressions_of
from pipeline.affect.recipe import AffectTask, ModelPreset, Recipe, Start, build, make_task
from pipeline.affect.results import (
    SUBMISSION,
    Tested,
    constant_of,
    expression_only,
    write_fold,
    write_model,
)
from pipeline.affect.stored import (
    CHALLENGE,
    IMAGES,
    PIXELS,
    StoredSet,
    read_challenge,
    read_challenge_list,
    read_stored,
)
from pipeline.affect.submission import answers_by_path, fill_in, write_submission
from pipeline.affect.task import EMMATask
from pipeline.affect.tuning import UNTUNED, Frames, Tuning, check_groups, frames_of, tune
from pipeline.common.encoder_weights import (
    CARD,
    History,
    card_in,
    checkpoint_in,
    history_in,
)
from pipeline.common.files import project_root, sha256_of
from pipeline.common.imports import OBSERVERS, needed_files
from pipeline.common.memory import memory_advice
from pipeline.common.params import Preset, StageParams, load_params
from pipeline.feed.batches import BatchPlan, evaluation_batches
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


class Inputs(NamedTuple):
    """Folders of the set, of the prior and of the CNN, and the table of folds."""

    data: Path
    folds: Path
    prior: Path
    cnn: Path


class FoldTraining:
    """The training of a fold on this device.

    Args:
        params: Of the stage.
        number: Of the fold.
        seed: Of the training.
        inputs: What it reads.

    Raises:
        ValueError: Somebody who is tested has been seen, or the choices do not go together.
    """

    def __init__(self, params: Params, number: int, seed: int, inputs: Inputs) -> None:
        self.params = params
        self.seed = seed
        self.inputs = inputs
        self.stored = read_stored(inputs.data)
        self.challenge = read_challenge(inputs.data)
        self.fold: ImageFold = read_fold(inputs.folds, number)
        self.refuse_what_was_seen()

    def refuse_what_was_seen(self) -> None:
        """Check that neither the other parts nor prior and CNN hold anybody who is tested."""
        images, identity = self.stored.images, self.stored.card.identity
        refuse_leaks(self.fold, images)
        for what, history in self.histories().items():
            refuse_seen(history, what, identity, self.fold, images)

    def histories(self) -> dict[str, History]:
        """Whom those parts have seen that are trained elsewhere."""
        return {
            "prior": history_in(self.inputs.prior),
            "cnn": read_record(self.inputs.cnn).history,
        }

    def pictures(self, stored: StoredSet, rows: list[int]) -> Pictures:
        """Some pictures of a set as an evaluation sees them."""
        side = self.params.models.encoder.image_size
        return Pictures(stored, rows, side=side, crop=self.params.recipes.augment.crop)

    def part(self, name: str) -> Pictures:
        """The pictures of a part.

        Raises:
            ValueError: There are none.
        """
        rows = self.fold.rows(self.stored.images, name)
        if not rows:
            raise ValueError(f"fold {self.fold.number} has nothing in its {name} part")
        return self.pictures(self.stored, rows)

    def start(self) -> Start:
        """What the training begins with."""
        params = self.params
        images = [*self.stored.images, *self.challenge.images]
        return Start(
            params.models,
            params.recipes,
            params.cotex,
            checkpoint_in(self.inputs.prior),
            open_stored(self.inputs.cnn, images, params.recipes.cnn_scores),
            self.seed,
        )

    def described(self) -> dict[str, Any]:
        """All parameters of the training, with what its parts start from."""
        return {
            **self.params.model_dump(mode="json"),
            "seed": self.seed,
            "encoder": card_in(self.inputs.prior),
            "classes": list(self.stored.card.classes),
            "cnn_digest": read_record(self.inputs.cnn).digest,
        }

    def run(self, fabric: Fabric, checkpoints: Checkpoints, log: RunLog, out: Path) -> None:
        """Train, test once, and write the files of the fold."""
        seed_everything(self.seed, verbose=False)
        start = self.start()
        model = build(
            self.params.system, self.params.va_input, start, len(self.stored.card.classes)
        )
        training = self.part("train")
        task = make_task(
            self.params.system, start, training, self.evaluated(self.part("validation"), fabric)
        )
        done = self.fit(fabric, model, task, training, checkpoints, log)
        tested = self.test(fabric, model, task)
        if not fabric.is_global_zero:
            return
        more = {
            "best_epoch": float(done.best_epoch),
            "num_parameters": float(sum(weight.numel() for weight in model.parameters())),
        }
        classes = self.stored.card.classes
        metrics = write_fold(out, self.fold.number, tested, done.history, classes, more)
        log.metrics(metrics)
        description = {**self.described(), "fold": self.fold.number, "metrics": metrics}
        seen = self.fold.groups(self.stored.images, "train", "validation")
        history = history_in(self.inputs.prior).with_groups(self.stored.card.identity, seen)
        write_model(out, model, description, history)
        if self.challenge.images and self.params.system == "emma":
            self.submit(fabric, model, task, tested.tuning, out)
        said = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items() if value <= 3)
        print(f"train fold {self.fold.number}, seed {self.seed}: {said}")

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

    def test(self, fabric: Fabric, model: EMMA | MaskedCoTEX, task: AffectTask) -> Tested:
        """What the model says of the test pictures; thresholds and smoothing by validation."""
        model.eval()
        tested_part, validation_part = self.part("test"), self.part("validation")
        tested = self.evaluate(fabric, model, task, tested_part)
        validation = self.evaluate(fabric, model, task, validation_part)
        check_groups(validation, tested)
        tuning = self.tune(validation, validation_part)
        answers = tuning.answers(tested, self.frames(tested_part))
        truth = self.part("train").truth
        return Tested(tested, answers, constant_of(truth, tested), tuning)

    def evaluated(self, pictures: Pictures, fabric: Fabric) -> Any:
        """This device's batches of some pictures."""
        engine = self.params.recipes.engine
        return evaluation_batches(
            pictures,
            batch_size=min(engine.micro_batch_size, engine.batch_size),
            rank=Rank(fabric.global_rank, fabric.world_size),
            num_workers=engine.num_workers,
        )

    def evaluate(
        self,
        fabric: Fabric,
        model: EMMA | MaskedCoTEX,
        task: AffectTask,
        pictures: Pictures,
    ) -> Evaluation:
        """What the model says of some pictures."""
        model.eval()
        module = model.to(fabric.device)
        asked = ask(fabric, task.answer(module), self.evaluated(pictures, fabric))
        if isinstance(task, EMMATask):
            return evaluation_of(asked)
        return expression_only(expressions_of(asked))

    def tune(self, validation: Evaluation, pictures: Pictures) -> Tuning:
        """Thresholds and smoothing as the recipe wants them."""
        settings = self.params.recipes.answers
        if settings.thresholds == "half" and set(settings.smoothing) == {0}:
            return UNTUNED
        found = tune(validation, self.frames(pictures), radii=settings.smoothing)
        return found if settings.thresholds == "tuned" else found._replace(thresholds=UNTUNED[0])

    def frames(self, pictures: Pictures) -> Frames:
        """Which frames the pictures are; without smoothing it does not matter."""
        if set(self.params.recipes.answers.smoothing) == {0}:
            count = len(pictures)
            return Frames([""] * count, [0] * count)
        return frames_of(pictures.images)

    def submit(
        self,
        fabric: Fabric,
        model: EMMA | MaskedCoTEX,
        task: AffectTask,
        tuning: Tuning,
        out: Path,
    ) -> None:
        """Answer the set's test list."""
        pictures = self.pictures(self.challenge, list(range(len(self.challenge.images))))
        evaluation = self.evaluate(fabric, model, task, pictures)
        answers = tuning.answers(evaluation, self.frames(pictures))
        found = answers_by_path(pictures.images, answers, self.stored.card.classes)
        listed = read_challenge_list(self.inputs.data / CHALLENGE)
        whole = fill_in(found, listed, self.part("train").truth)
        write_submission(out / SUBMISSION, listed, whole)
        missing = len(set(listed) - set(found))
        print(f"train: {out / SUBMISSION} answers {len(listed)} lines, {missing} pictures missing")


def main(params: Params, number: int, seed: int, inputs: Inputs, out: Path) -> None:
    try:
        training = FoldTraining(params, number, seed, inputs)
    except ValueError as error:
        raise SystemExit(f"train: {error}") from error
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
    inputs = training.inputs
    files = {
        IMAGES: inputs.data / IMAGES,
        PIXELS: inputs.data / PIXELS,
        CARD: inputs.prior / CARD,
        "cnn.json": inputs.cnn / CARD,
    }
    key = training_key(
        training.params.model_dump(mode="json"),
        {**training.fold._asdict(), "seed": training.seed},
        {name: sha256_of(path) for name, path in files.items()},
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
