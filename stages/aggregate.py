"""Stage aggregate: UAR and WAR over all folds, as tables, plots' data and MLflow's parent run."""

import argparse
import json
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field, NonNegativeInt

from pipeline.common.files import atomic_path, sha256_of, write_json
from pipeline.common.params import Preset, Section, StageParams, load_params
from pipeline.evaluation.figures import save_confusion
from pipeline.evaluation.summary import (
    confusion_table,
    fold_table,
    markdown,
    per_class_table,
    subject_table,
    summarise,
)
from pipeline.mtcae.structures import structure_name
from pipeline.tracking.observer import log_experiment


class TrackingParams(Section):
    """What MLflow is given beside numbers and tables."""

    log_models: bool


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    dataset: str
    arch: str
    decoder: str
    model: str
    recipe: str
    seed: NonNegativeInt
    folds: Annotated[list[int], Field(min_length=1)]
    classes: Annotated[list[str], Preset("datasets", chosen_by="dataset", key="classes")]
    tracking: TrackingParams


def main(params: Params, runs: Path, clips: Path, pooled: Path, out: Path) -> None:
    # The declared folds, never whatever lies in the folder: a removed fold leaves its files behind.
    folders = {fold: runs / f"fold{fold}" for fold in params.folds}
    histories = {fold: pd.read_csv(folder / "history.csv") for fold, folder in folders.items()}
    fold_metrics = {
        fold: json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        for fold, folder in folders.items()
    }
    predictions = pd.concat(
        [pd.read_parquet(folder / "predictions.parquet") for folder in folders.values()],
        ignore_index=True,
    )
    classes = params.classes
    folds = fold_table(predictions, classes)
    per_class = per_class_table(predictions, classes)
    confusions = confusion_table(predictions, classes)
    summary = summarise(predictions, classes)
    summary["num_parameters"] = fold_metrics[params.folds[0]]["num_parameters"]
    structure = structure_name(params.arch, params.decoder)
    page = markdown(
        f"{structure} on {params.dataset} "
        f"(model {params.model}, recipe {params.recipe}, seed {params.seed})",
        folds,
        per_class,
        confusions,
        summary,
    )
    with atomic_path(pooled) as temporary:
        predictions.to_parquet(temporary, index=False)
    write_json(out / "summary.json", summary)
    figure = out / "confusion.png"
    save_confusion(figure, confusions.to_numpy(), classes)
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
    with atomic_path(out / "table.md") as temporary:
        temporary.write_text(page, encoding="utf-8")
    log_experiment(
        params.model_dump(include={"dataset", "arch", "decoder", "model", "recipe", "seed"}),
        params.model_dump(),
        sha256_of(clips),
        {fold: (lines(histories[fold]), fold_metrics[fold]) for fold in params.folds},
        {
            **{
                f"{name}_{kind}": value
                for name in ("uar", "war")
                for kind, value in summary[name].items()
            },
            **{name: value for name, value in summary.items() if not isinstance(value, dict)},
        },
        [figure, *(out / name for name in ("table.md", *tables))],
        {fold: folder / "model.safetensors" for fold, folder in folders.items()}
        if params.tracking.log_models
        else {},
    )
    print(
        f"aggregate: UAR {summary['uar']['pooled']:.1%}, WAR {summary['war']['pooled']:.1%} "
        f"pooled over {summary['clips']} clips of {len(params.folds)} folds; see {out / 'table.md'}"
    )


def lines(history: pd.DataFrame) -> list[dict[str, float]]:
    """A learning curve as a dict per epoch."""
    return [
        dict(zip(history.columns, map(float, row), strict=True))
        for row in history.itertuples(index=False, name=None)
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    main(load_params(Params), args.runs, args.clips, args.predictions, args.out)
