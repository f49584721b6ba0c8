"""Stage aggregate: UAR and WAR over all folds, as tables, plots' data and MLflow's parent run."""

import argparse
import json
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field, NonNegativeInt

from pipeline.evaluation.tables import (
    confusion_table,
    fold_table,
    markdown,
    per_class_table,
    summarise,
)
from pipeline.files import atomic_path, write_json
from pipeline.params import Preset, StageParams, load_params
from pipeline.tracking import log_experiment


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


def main(params: Params, runs: Path, pooled: Path, out: Path) -> None:
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
    structure = params.arch if params.arch == "stl" else f"{params.arch} {params.decoder}"
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
    history = pd.concat([history.assign(fold=fold) for fold, history in histories.items()])
    tables = {
        "folds.csv": folds,
        "per_class.csv": per_class,
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
        {fold: (lines(histories[fold]), fold_metrics[fold]) for fold in params.folds},
        {
            **{
                f"{name}_{kind}": value
                for name in ("uar", "war")
                for kind, value in summary[name].items()
            },
            **{name: summary[name] for name in ("box_iou", "landmark_error") if name in summary},
        },
        [out / "table.md", out / "folds.csv", out / "per_class.csv"],
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
    parser.add_argument("predictions", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    main(load_params(Params), args.runs, args.predictions, args.out)
