"""One model trained on everybody, to be used: nobody is left to test it on.

    python -m commands.final

reads params.yaml, the shards and the trained folds, and writes model.safetensors, model.json and
history.csv into runs/final. It trains as the stage finetune does, on all clips that could be used,
and for as many epochs as the median of the folds took to their best one: no clip chooses an epoch.
The schedule is the recipe's; of kind plateau, which goes by validation, the rate of an epoch is the
median of the folds'. A training that was stopped goes on when the same command is run again.

What is known of such a model are the scores of the folds (metrics/table.md): of models that have
seen fewer people, and otherwise the same.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, median_low
from typing import Any, NamedTuple

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from commands.experiments import read_params
from pipeline.common.clips import group_words
from pipeline.common.encoder_weights import card_in, history_in
from pipeline.common.files import atomic_path
from pipeline.common.memory import memory_advice
from pipeline.common.params import load_params
from pipeline.evaluation.fold_files import TrainedFold, read_fold_files, shared_parameters
from pipeline.feed.order import Rank
from pipeline.folds.folds import Fold
from pipeline.mtcae.assembly import Assembly, TrainingParams, assemble, start_model
from pipeline.mtcae.fold_data import FoldData
from pipeline.mtcae.model import MTCAE
from pipeline.mtcae.saved import save_model
from pipeline.mtcae.scratch import ADVICE, manifest_digest, scratch_folder
from pipeline.mtcae.task import MTCAETask
from pipeline.store.folders import open_shards, read_clips
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import end_together, launch
from pipeline.training.history import MEASURED, Epoch
from pipeline.training.loop import train
from pipeline.training.optim import make_schedule
from pipeline.training.task import Validation

# Said in model.json and by all that answers with the model.
UNTESTED = (
    "trained on everybody in its data set, so that nobody was left to test it on; what is known "
    "are the scores of the folds' models, which have seen fewer people"
)


class Plan(NamedTuple):
    """What the folds say of how to train.

    Attributes:
        epochs: Median of the folds' best ones, the lower of two.
        rates: Learning rate of each of these epochs, in the median over the folds that came to it.
    """

    epochs: int
    rates: list[float]


class LastEpochTask(MTCAETask):
    """As in the folds, but that the last epoch is the best: there are no clips to judge by."""

    epochs = 0

    def validate(self, fabric: Fabric, module: nn.Module) -> Validation:
        """Each epoch ranks above the one before."""
        self.epochs += 1
        return Validation({}, rank=(self.epochs,))

    def state_dict(self) -> dict[str, Any]:
        """The epochs so far."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` found."""
        self.epochs = state["epochs"]


def main(params: TrainingParams, data: FoldData, plan: Plan, out: Path) -> None:
    fabric = launch(params.recipes.engine.precision)
    scratch = scratch_folder(
        Path(__file__),
        params,
        data,
        manifest_digest(data),
        {**data.fold._asdict(), **plan._asdict()},
    )
    checkpoints = Checkpoints(scratch, writer=fabric.is_global_zero)
    with end_together(fabric), memory_advice(ADVICE):
        model = start_model(params, data)
        history = fit(params, fabric, data, model, plan, checkpoints)
    if fabric.is_global_zero:
        write(params, data, model, history, out)
        checkpoints.remove()
        print(f"final: {out} is {UNTESTED}")


def everybody(shards: str, start: Path, tokens: Path) -> FoldData:
    """All clips of the shards as a fold that tests nobody."""
    opened = open_shards(shards)
    clips = read_clips(opened)
    fold = Fold(0, {clip.clip: "train" for clip in clips})
    return FoldData(opened, start, tokens, clips, fold)


def read_plan(runs: Path, params: TrainingParams, start: Path) -> Plan:
    """What the trained folds say.

    Raises:
        FileNotFoundError: There are none.
        ValueError: They were trained with other parameters, or from another encoder.
    """
    folders = {int(path.name.removeprefix("fold")): path for path in runs.glob("fold[0-9]*")}
    if not folders:
        raise FileNotFoundError(f"no trained fold in {runs}; `dvc repro` trains them")
    folds = {number: read_fold_files(folders[number]) for number in sorted(folders)}
    trained = shared_parameters(folds)
    wanted = {**params.model_dump(mode="json"), "encoder": card_in(start)}
    if unlike := [name for name in wanted if trained.get(name) != wanted[name]]:
        raise ValueError(
            f"the folds in {runs} were trained with other values of {', '.join(unlike)} than "
            "params.yaml has now; `dvc repro` trains them again"
        )
    return plan_of(list(folds.values()))


def plan_of(folds: Sequence[TrainedFold]) -> Plan:
    """See `Plan`."""
    epochs = median_low(int(fold.metrics["best_epoch"]) for fold in folds)
    rates = [fold.history["learning_rate"].tolist() for fold in folds]
    return Plan(epochs, [median(one[i] for one in rates if i < len(one)) for i in range(epochs)])


def fit(
    params: TrainingParams,
    fabric: Fabric,
    data: FoldData,
    model: MTCAE,
    plan: Plan,
    checkpoints: Checkpoints,
) -> list[Epoch]:
    """Train the model on everybody; the history comes back."""
    rank = Rank(fabric.global_rank, fabric.world_size)
    assembly = assemble(params, rank, data, model)
    task = LastEpochTask(
        assembly.loss,
        params.recipes.mix,
        num_classes=len(params.classes),
        seed=params.seed,
        validation=(),
    )
    torch.manual_seed(params.seed + fabric.global_rank)  # Devices drop out differently.
    training = train(
        fabric,
        assembly.trained,
        assembly.optimizer,
        schedule_of(params, assembly, plan),
        task,
        assembly.batches,
        params.recipes.engine.model_copy(update={"epochs": plan.epochs}),
        checkpoints,
        lambda row: None,
    )
    return training.history


def schedule_of(
    params: TrainingParams, assembly: Assembly, plan: Plan
) -> LambdaLR | ReduceLROnPlateau:
    """The recipe's, and in the place of one that goes by validation the rates of the folds."""
    settings, engine = params.recipes.schedule, params.recipes.engine
    steps = assembly.batches.steps_per_epoch
    if settings.kind == "plateau":
        shares = [rate / params.recipes.optimizer.learning_rate for rate in plan.rates]
        # After the last step it is asked once more.
        return LambdaLR(
            assembly.optimizer, lambda step: shares[min(step // steps, len(shares) - 1)]
        )
    return make_schedule(settings, assembly.optimizer, epochs=engine.epochs, steps_per_epoch=steps)


def write(
    params: TrainingParams, data: FoldData, model: MTCAE, history: list[Epoch], out: Path
) -> None:
    """Write the model, what it is and how it was trained."""
    description = {
        **params.model_dump(mode="json"),
        "encoder": card_in(data.start),
        "fold": None,
        "untested": UNTESTED,
        "clip_seconds": data.median_seconds("train"),
        "metrics": {
            "epochs": len(history),
            "num_training_clips": len(data.clips),
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        },
    }
    seen = history_in(data.start).with_groups(params.dataset, data.groups("train"))
    out.mkdir(parents=True, exist_ok=True)
    save_model(out / "model.safetensors", model, metadata=description, history=seen)
    with atomic_path(out / "history.csv") as temporary:
        pd.DataFrame(history).drop(columns=[*MEASURED]).to_csv(temporary, index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="folder of the data (%(default)s)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the folds")
    parser.add_argument("--shards", help="in place of <data>/shards/<dataset>; may be an address")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/final"), help="where the result goes (%(default)s)"
    )
    args = parser.parse_args()
    params = load_params(TrainingParams)
    start = args.data / "weights" / read_params()["encoder"]["weights"]
    try:
        data = everybody(
            args.shards or str(args.data / "shards" / params.dataset),
            start,
            args.data / "tokens" / params.dataset,
        )
        plan = read_plan(args.runs, params, start)
    except (OSError, ValueError) as error:
        raise SystemExit(f"final: {error}") from error
    print(
        f"final: {len(data.clips)} clips of {len(data.groups('train'))} {group_words(data.clips)}, "
        f"{plan.epochs} epochs, the median of the folds' best"
    )
    main(params, data, plan, args.out)
