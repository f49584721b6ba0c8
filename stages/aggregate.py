"""Stage aggregate: UAR and WAR over all folds, as tables, plots' data and MLflow's parent run."""

import argparse
import re
import shutil
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
from pydantic import Field

from pipeline.common.clips import read_stored
from pipeline.common.encoder_weights import History
from pipeline.common.files import atomic_path, sha256_of, write_json
from pipeline.common.params import Preset, Section, StageParams, load_params
from pipeline.evaluation.baselines import CHANCE, LINEAR, MAJORITY
from pipeline.evaluation.comparison import beside_linear, compare_with_baselines
from pipeline.evaluation.figures import save_confusion
from pipeline.evaluation.fold_files import read_fold_files, rows_of, shared_parameters
from pipeline.evaluation.page import markdown
from pipeline.evaluation.setting import SETTING, Setting, coverage
from pipeline.evaluation.summary import Scores, score_experiment
from pipeline.evaluation.tables import (
    confusion_table,
    fold_table,
    per_class_table,
    subject_table,
)
from pipeline.folds.folds import classes_lacking, read_folds
from pipeline.folds.protocols import SplitSettings
from pipeline.mtcae.structures import Choices
from pipeline.tracking.experiment import TrackedExperiment
from pipeline.tracking.observer import FoldFiles, log_experiment

# In the runs' folder, and ignored by DVC there.
UNDECLARED = "undeclared"


class TrackingParams(Section):
    """What MLflow is given beside numbers and tables."""

    log_models: bool


class Params(Choices, StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    folds: Annotated[list[int], Field(min_length=1)]
    split: SplitSettings
    classes: Annotated[list[str], Preset("datasets", chosen_by="dataset", key="classes")]
    tracking: TrackingParams


class Inputs(NamedTuple):
    """Where the stages before have put what is aggregated."""

    runs: Path
    clips: Path
    folds: Path
    baselines: Path


def main(params: Params, inputs: Inputs, pooled: Path, out: Path) -> None:
    set_undeclared_aside(inputs.runs, params.folds)
    trained = {fold: read_fold_files(inputs.runs / f"fold{fold}") for fold in params.folds}
    try:
        parameters = shared_parameters(trained)
        predictions = pd.concat([one.predictions for one in trained.values()], ignore_index=True)
        setting = describe(params, parameters, predictions, inputs)
    except ValueError as error:
        raise SystemExit(f"aggregate: {error}") from error
    scores = score_experiment([predictions], params.classes)
    num_parameters = int(trained[params.folds[0]].metrics["num_parameters"])
    comparison = compare_with_baselines(
        params.structure.name, predictions, pd.read_parquet(inputs.baselines), params.classes
    )
    others = baseline_scores(comparison)
    with atomic_path(pooled) as temporary:
        predictions.to_parquet(temporary, index=False)
    write_json(
        out / "summary.json",
        scores.nested() | {"num_parameters": num_parameters, "baselines": others},
    )
    write_json(out / "scores.json", scores.compared() | {"linear_uar": others["linear_uar"]})
    write_json(out / SETTING, setting.model_dump(exclude_defaults=True))
    histories = {fold: one.history for fold, one in trained.items()}
    artifacts = write_tables(params, setting, predictions, histories, scores, comparison, out)
    log_experiment(
        TrackedExperiment.of(parameters, sha256_of(inputs.clips)),
        {fold: FoldFiles(rows_of(one.history), one.metrics) for fold, one in trained.items()},
        scores.flat() | {"num_parameters": num_parameters} | others,
        artifacts,
        {fold: one.model for fold, one in trained.items()} if params.tracking.log_models else {},
        {
            "folds": params.folds,
            "protocol": setting.protocol,
            "occurring_classes": setting.occurring,
            "tested": setting.coverage.in_words(),
        },
    )
    print(
        f"aggregate: UAR {scores.uar.pooled:.1%}, WAR {scores.war.pooled:.1%} pooled over "
        f"{setting.coverage.in_words()}; see {out / 'table.md'}"
    )
    for sentence in (*setting.sentences(), *beside_linear(comparison)):
        print(f"aggregate: {sentence}")


def describe(
    params: Params, parameters: Mapping[str, Any], predictions: pd.DataFrame, inputs: Inputs
) -> Setting:
    """What the numbers rest on.

    Raises:
        ValueError: What was tested is not what the manifest has.
    """
    clips, folds = read_stored(inputs.clips), read_folds(inputs.folds)
    occurring = set(predictions["actual"])
    history = History.model_validate(parameters["encoder"]["history"])
    lacking = {fold.number: classes_lacking(fold, clips) for fold in folds}
    return Setting(
        dataset=params.dataset,
        model=params.model,
        recipe=params.recipe,
        seeds=[params.seed],
        protocol=params.split.protocol,
        views=parameters["frames"]["segments"] * parameters["recipes"]["evaluation"]["crops"],
        encoder=parameters["encoder"]["name"],
        history=history,
        seen=len(history.seen_of(params.dataset, set(predictions["subject"]))),
        classes=params.classes,
        occurring=[name for name in params.classes if name in occurring],
        coverage=coverage(predictions, clips, all_folds=len(folds)),
        lacking={fold: lacking[fold] for fold in params.folds if lacking[fold]},
    )


def baseline_scores(comparison: pd.DataFrame) -> dict[str, float]:
    """Pooled UAR of every baseline, and how much the experiment is above the linear model.

    Args:
        comparison: From `compare`, of one experiment.
    """
    uar = comparison.set_index("structure")["uar_pooled"]
    scores = {
        "linear_uar": uar[LINEAR],
        "majority_uar": uar[MAJORITY],
        "chance_uar": uar[CHANCE],
    }
    for name in ("linear_difference", "linear_difference_low", "linear_difference_high"):
        scores[name] = comparison[name].iloc[0]
    return {name: round(float(value), 6) for name, value in scores.items() if isfinite(value)}


def set_undeclared_aside(runs: Path, folds: list[int]) -> None:
    """Move the folders of folds that params.yaml no longer lists to `undeclared/`.

    DVC leaves them behind when a fold is taken out of the list, and cannot be told to depend on one
    folder per fold: what stays among the declared ones would go into dvc.lock.
    """
    declared = {f"fold{fold}" for fold in folds}
    for folder in sorted(runs.iterdir()):
        of_a_fold = re.fullmatch(r"fold\d+", folder.name) and folder.is_dir()
        if of_a_fold and folder.name not in declared:
            target = runs / UNDECLARED / folder.name
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)  # Of an older run; DVC's cache has it.
            folder.rename(target)
            print(f"aggregate: {folder} is of no fold in params.yaml and was moved to {target}")


def write_tables(
    params: Params,
    setting: Setting,
    predictions: pd.DataFrame,
    histories: dict[int, pd.DataFrame],
    scores: Scores,
    comparison: pd.DataFrame,
    out: Path,
) -> list[Path]:
    """Write table.md, the CSV tables and the confusion's figure; their paths."""
    classes = params.classes
    folds = fold_table(predictions, classes)
    per_class = per_class_table(predictions, classes)
    confusions = confusion_table(predictions, classes)
    history = pd.concat([history.assign(fold=fold) for fold, history in histories.items()])
    tables = {
        "folds.csv": folds,
        "per_class.csv": per_class,
        "subjects.csv": subject_table(predictions, classes),
        "confusion.csv": predictions[["actual", "predicted"]],
        "history.csv": history[["fold", *history.columns.drop("fold")]],
    }
    for name, table in tables.items():
        with atomic_path(out / name) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    figure = out / "confusion.png"
    save_confusion(figure, confusions.to_numpy(), classes)
    title = f"{params.structure.name} on {params.dataset}"
    page = markdown(title, setting, predictions, scores, comparison)
    with atomic_path(out / "table.md") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return [figure, *(out / name for name in ("table.md", *tables))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in Inputs._fields:
        parser.add_argument(name, type=Path, help="in the order of dvc.yaml")
    parser.add_argument("predictions", type=Path, help="test predictions of all folds")
    parser.add_argument("out", type=Path, help="what is written")
    args = parser.parse_args()
    inputs = Inputs(*(getattr(args, name) for name in Inputs._fields))
    main(load_params(Params), inputs, args.predictions, args.out)
