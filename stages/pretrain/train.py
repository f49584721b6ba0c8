"""Stage train of pre-training: a masked autoencoder, and the encoder out of it."""

import argparse
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, NamedTuple

if __name__ == "__main__":
    # Before torch is imported; see stages/finetune.py.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch
from lightning_fabric import Fabric, seed_everything
from pydantic import PositiveInt

from pipeline.common.encoder_weights import (
    CARD,
    History,
    card_in,
    checkpoint_in,
    history_in,
)
from pipeline.common.files import project_root, sha256_of, write_json
from pipeline.common.imports import OBSERVERS, needed_files
from pipeline.common.memory import memory_advice
from pipeline.common.params import Preset, StageParams, load_params
from pipeline.feed.batches import BatchPlan, evaluation_batches
from pipeline.feed.order import Rank
from pipeline.pretrain.batches import HeldOutSamples, PretrainBatches
from pipeline.pretrain.files import history_after, write_encoder, write_official
from pipeline.pretrain.manifest import HELD_OUT, MANIFEST, TRAIN
from pipeline.pretrain.recipe import ModelSizes, Recipe, make_optimizer, make_schedule
from pipeline.pretrain.results import metrics_of, write_tables
from pipeline.pretrain.setup import (
    METHODS,
    Choices,
    SampleFolders,
    build_autoencoder,
    form_of,
)
from pipeline.pretrain.video_clips import ClipSettings
from pipeline.pretrain.watch import Leavings, WatchedTask, WatchSettings
from pipeline.tracking.observer import RunLog, track_training
from pipeline.tracking.pretraining import PretrainingExperiment
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import end_together, launch
from pipeline.training.history import Epoch
from pipeline.training.identity import training_key
from pipeline.training.log_file import log_file
from pipeline.training.loop import Training, train

# Without workers decoding delays the training; of a small data set it is then done once.
KEEP_BYTES = 1024 * 2**20
# Names of groups that a file's header can hold.
_NAMED_GROUPS = 10_000
ADVICE = (
    "lower engine.micro_batch_size of the recipe (the result stays the same), set its "
    "checkpointing to true, or choose a smaller model; the training then starts afresh"
)


ENCODER = "encoder.safetensors"


class Params(Choices, StageParams):
    """Exactly this stage's `params` in pretrain/dvc.yaml."""

    clips: ClipSettings
    models: Annotated[ModelSizes, Preset("models", chosen_by="model")]
    recipes: Annotated[Recipe, Preset("recipes", chosen_by="recipe")]
    # Most of the held-out samples that validate an epoch.
    validated: PositiveInt
    watch: WatchSettings


class Inputs(NamedTuple):
    """What is learnt from, as it lies there and as it was collected, and what it starts from."""

    source: Path
    samples: Path
    start: Path


class Outputs(NamedTuple):
    """The folder of all files, and that of metrics."""

    folder: Path
    metrics: Path


def main(params: Params, inputs: Inputs, out: Outputs) -> None:
    recipe = params.recipes
    fabric = launch(recipe.engine.precision)
    root = Path(__file__).parents[2]
    files = {MANIFEST: inputs.samples, CARD: inputs.start}
    key = training_key(
        params.model_dump(mode="json", exclude={"watch"}),
        {},
        {name: sha256_of(path / name) for name, path in files.items()},
        needed_files(Path(__file__).relative_to(root), root, without=[OBSERVERS]),
        root,
    )
    scratch = project_root(Path()) / ".scratch/pretrain" / key
    checkpoints = Checkpoints(scratch, writer=fabric.is_global_zero)
    with end_together(fabric), memory_advice(ADVICE), ExitStack() as stack:
        log = RunLog(None, "")
        if fabric.is_global_zero:
            experiment = PretrainingExperiment.of(
                described(params, inputs), sha256_of(inputs.samples / MANIFEST)
            )
            log = stack.enter_context(track_training(experiment))
        pretraining = Pretraining(params, fabric, inputs)
        training = pretraining.run(out, checkpoints, scratch / "leavings", log.metrics)
        if fabric.is_global_zero:
            log.metrics(pretraining.write(out, training))
    if fabric.is_global_zero:
        checkpoints.remove()


def described(params: Params, inputs: Inputs) -> dict[str, Any]:
    """All parameters of the training, with the card of its encoder."""
    return params.model_dump(mode="json") | {"encoder": card_in(inputs.start)}


class Pretraining:
    """A pre-training on this device.

    Args:
        params: Of the stage.
        fabric: Device, precision, and the other processes.
        inputs: What is learnt from.

    Raises:
        SystemExit: Model, samples and recipe do not go together.
    """

    def __init__(self, params: Params, fabric: Fabric, inputs: Inputs) -> None:
        self.params = params
        self.fabric = fabric
        self.inputs = inputs
        seed_everything(params.seed, verbose=False)
        engine, recipe = params.recipes.engine, params.recipes
        self.rank = Rank(fabric.global_rank, fabric.world_size)
        try:
            start = checkpoint_in(inputs.start)
            self.model = build_autoencoder(
                params.method, params.models, recipe, params.clips, start
            )
            self.form = form_of(params.method, self.model, params.clips)
            folders = SampleFolders(params.data, inputs.source, inputs.samples, params.clips)
            side = recipe.augment.side_before(self.form.size)
            keep_bytes = 0 if engine.num_workers else KEEP_BYTES
            self.source = folders.open(TRAIN, self.form, side, keep_bytes)
            self.held_out = folders.open(HELD_OUT, self.form, side, keep_bytes // 4)
            self.batches = PretrainBatches(
                self.source,
                self.form,
                recipe.augment,
                BatchPlan(
                    batch_size=engine.batch_size,
                    class_balanced=False,
                    min_steps=engine.min_steps,
                    seed=params.seed,
                    rank=self.rank,
                    num_workers=engine.num_workers,
                ),
            )
            self.optimizer = make_optimizer(
                self.model, recipe.optimizer, batch_size=engine.batch_size
            )
            self.schedule = make_schedule(
                recipe.schedule,
                self.optimizer,
                batch_size=engine.batch_size,
                epochs=engine.epochs,
                steps_per_epoch=self.batches.steps_per_epoch,
            )
        except ValueError as error:
            raise SystemExit(f"train: {error}") from error
        if engine.compile:
            self.model.compile(dynamic=False)

    def run(
        self,
        out: Outputs,
        checkpoints: Checkpoints,
        kept: Path,
        on_epoch: Callable[[Epoch, int], None],
    ) -> Training:
        """Train, and leave files in `out` while it goes on."""
        params, fabric, engine = self.params, self.fabric, self.params.recipes.engine
        watched = self._held_out(params.watch.samples)
        leavings = Leavings(
            params.watch,
            kept,
            out.folder,
            self.history,
            lambda: watched[list(range(len(watched)))],
        )
        task = WatchedTask(
            fabric,
            evaluation_batches(
                self._held_out(params.validated),
                batch_size=min(engine.micro_batch_size, engine.batch_size),
                rank=self.rank,
                num_workers=engine.num_workers,
            ),
            leavings.after,
        )
        torch.manual_seed(params.seed + fabric.global_rank)
        training = train(
            fabric,
            self.model,
            self.optimizer,
            self.schedule,
            task,
            self.batches,
            engine,
            checkpoints,
            lambda row: on_epoch(row, int(row["epoch"])),
        )
        for row in training.history:
            row["skipped"] = task.skipped.get(int(row["epoch"]), 0)
        return training

    def write(self, out: Outputs, training: Training) -> dict[str, float]:
        """Write the files of a training that is done; its metrics come back."""
        folder, history = out.folder, self.history(training.best_epoch)
        folder.mkdir(parents=True, exist_ok=True)
        write_encoder(folder / ENCODER, self.model.encoder, history)
        write_official(folder / "official.pth", self.model)
        metrics = metrics_of(training, self.model) | {
            "samples": len(self.source),
            "held_out_samples": min(len(self.held_out), self.params.validated),
        }
        write_json(
            folder / "parameters.json",
            {
                "training": described(self.params, self.inputs),
                "data_digest": sha256_of(self.inputs.samples / MANIFEST),
                "history": history.model_dump(),
            },
        )
        write_tables(out.metrics, training.history, metrics)
        print(
            f"train: error of hidden pixels {metrics['loss']:.4f} on held-out samples (1 is noise) "
            f"after epoch {training.best_epoch} of {len(training.history)}; `cp {folder / ENCODER} "
            "weights/NAME.safetensors` makes it a start that encoder.weights can name"
        )
        return metrics

    def history(self, epochs: int) -> History:
        """Whom the encoder has seen after so many epochs: the held-out samples chose the epoch."""
        groups: dict[str, list[str]] = {}
        for source in (self.source, self.held_out):
            for dataset, names in source.groups().items():
                groups[dataset] = [*groups.get(dataset, []), *names]
        named = {
            dataset: sorted(names) if len(names) <= _NAMED_GROUPS else []
            for dataset, names in groups.items()
        }
        return history_after(
            history_in(self.inputs.start), METHODS[self.params.method], epochs, named
        )

    def _held_out(self, most: int) -> HeldOutSamples:
        return HeldOutSamples(self.held_out, self.form, most=most, seed=self.params.seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in (*Inputs._fields, *Outputs._fields):
        parser.add_argument(name, type=Path, help="in the order of dvc.yaml")
    args = parser.parse_args()
    with log_file("pretrain"):
        main(
            load_params(Params, Path("pretrain/params.yaml")),
            Inputs(*(getattr(args, name) for name in Inputs._fields)),
            Outputs(*(getattr(args, name) for name in Outputs._fields)),
        )
