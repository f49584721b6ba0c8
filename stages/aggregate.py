"""Stage aggregate: UAR and WAR over all folds, as tables, plots' data and MLflow's parent run."""

import argparse
import json
import re
import shutil
from math import isfinite
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field

from pipeline.common.files import atomic_path, sha256_of, write_json
from pipeline.common.params import Preset, Section, StageParams, load_params
from pipeline.evaluation.baselines import CHANCE, LINEAR, MAJORITY
from pipeline.evaluation.comparison import beside_linear, compare_with_baselines
from pipeline.evaluation.figures import save_confusion
from pipeline.evaluation.page import markdown
from pipeline.evaluation.summary import (
    Scores,
    classes_without_clips,
    confusion_table,
    fold_table,
    per_class_table,
    score_experiment,
    subject_table,
)
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
    classes: Annotated[list[str], Preset("datasets", chosen_by="dataset", key="classes")]
    tracking: TrackingParams


def main(params: Params, runs: Path, clips: Path, baselines: Path, pooled: Path, out: Path) -> None:
    set_undeclared_aside(runs, params.folds)
    folders = {fold: runs / f"fold{fold}" for fold in params.folds}
    histories = {fold: pd.read_csv(folder / "history.csv") for fold, folder in folders.items()}
    metrics = {
        fold: json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        for fold, folder in folders.items()
    }
    predictions = pd.concat(
        [pd.read_parquet(folder / "predictions.parquet") for folder in folders.values()],
        ignore_index=True,
    )
    scores = score_experiment(predictions, params.classes)
    num_parameters = int(metrics[params.folds[0]]["num_parameters"])
    comparison = compare_with_baselines(
        params.structure, predictions, pd.read_parquet(baselines), params.classes
    )
    others = baseline_scores(comparison)
    with atomic_path(pooled) as temporary:
        predictions.to_parquet(temporary, index=False)
    write_json(
        out / "summary.json",
        scores.nested() | {"num_parameters": num_parameters, "baselines": others},
    )
    artifacts = write_tables(params, predictions, histories, scores, comparison, out)
    log_experiment(
        TrackedExperiment(
            params.choices.model_dump(), {"classes": params.classes}, sha256_of(clips)
        ),
        {fold: FoldFiles(rows_of(histories[fold]), metrics[fold]) for fold in params.folds},
        scores.flat() | {"num_parameters": num_parameters} | others,
        artifacts,
        {fold: folder / "model.safetensors" for fold, folder in folders.items()}
        if params.tracking.log_models
        else {},
        {"folds": params.folds},
    )
    print(
        f"aggregate: UAR {scores.uar.pooled:.1%}, WAR {scores.war.pooled:.1%} pooled over "
        f"{scores.clips} clips of {len(params.folds)} folds; see {out / 'table.md'}"
    )
    for sentence in beside_linear(comparison):
        print(f"aggregate: {sentence}")
    if missing := classes_without_clips(predictions, params.classes):
        print(f"aggregate: no clip of {', '.join(missing)} was tested")


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
    page = markdown(
        f"{params.structure.name} on {params.dataset} "
        f"(model {params.model}, recipe {params.recipe}, seed {params.seed})",
        predictions,
        classes,
        scores,
        comparison,
    )
    with atomic_path(out / "table.md") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return [figure, *(out / name for name in ("table.md", *tables))]


def rows_of(history: pd.DataFrame) -> list[dict[str, float]]:
    """A history as a dict per epoch."""
    return [
        dict(zip(history.columns, map(float, row), strict=True))
        for row in history.itertuples(index=False, name=None)
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("baselines", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    main(load_params(Params), args.runs, args.clips, args.baselines, args.predictions, args.out)
