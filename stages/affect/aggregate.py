"""Stage aggregate of the affect models: scores over all folds and seeds, as tables."""

import argparse
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
from pydantic import Field

from pipeline.affect.choices import Choices
from pipeline.affect.intervals import Interval
from pipeline.affect.published import PUBLISHED_ROWS
from pipeline.affect.results import FoldFiles, read_fold_files
from pipeline.affect.summary import (
    TITLES,
    Pooled,
    class_table,
    intervals_of,
    pool,
    score_row,
)
from pipeline.common.files import atomic_path, sha256_of, write_json
from pipeline.common.params import StageParams, load_params
from pipeline.evaluation.markdown import markdown_table
from pipeline.tracking.affect import AffectExperiment
from pipeline.tracking.observer import FoldFiles as LoggedFold
from pipeline.tracking.observer import log_experiment


class Params(Choices, StageParams):
    """Exactly this stage's `params` in affect/dvc.yaml."""

    folds: Annotated[list[int], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]


class Found(NamedTuple):
    """What was found of all trainings.

    Attributes:
        model: Pooled answers of each seed.
        constant: Pooled answers of the constant predictor.
        classes: Expressions.
    """

    model: list[Pooled]
    constant: Pooled
    classes: list[str]


def main(params: Params, runs: Path, manifest: Path, out: Path) -> None:
    files = {
        seed: {fold: read_fold_files(runs / f"fold{fold}-seed{seed}") for fold in params.folds}
        for seed in params.seeds
    }
    try:
        found = pool_all(files)
    except ValueError as error:
        raise SystemExit(f"aggregate: {error}") from error
    num_classes = len(found.classes)
    model = intervals_of(found.model, num_classes)
    constant = intervals_of([found.constant], num_classes)
    write_json(out / "summary.json", summary(params, files, model, constant, found))
    tables = [
        class_table(
            found.model[0].scores(num_classes),
            found.constant.scores(num_classes),
            found.constant.truth,
            found.classes,
        ),
        fold_table(files),
    ]
    histories = history_table(files)
    for name, table in zip(("classes", "folds", "history"), [*tables, histories], strict=True):
        with atomic_path(out / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    with atomic_path(out / "table.md") as temporary:
        text = page(params, model, constant, tables, found)
        temporary.write_text(text, encoding="utf-8")
    track(params, files, model, manifest, [out / "table.md", out / "classes.csv"])
    said = " and ".join(
        f"{title} {model[key].value:.3f} (constant {constant[key].value:.3f})"
        for key, title in TITLES.items()
        if key in ("p_mtl", "expression_f1") and isfinite(model[key].value)
    )
    print(f"aggregate: {said} over {len(set(found.constant.groups))} groups; see {out}/table.md")


def pool_all(files: dict[int, dict[int, FoldFiles]]) -> Found:
    """The test pictures of all folds, of each seed."""
    first = next(iter(next(iter(files.values())).values()))
    classes: list[str] = first.description["classes"]
    model = [pool([one.predictions for one in folds.values()], classes) for folds in files.values()]
    folds = next(iter(files.values()))
    return Found(model, pool([one.constant for one in folds.values()], classes), classes)


def summary(
    params: Params,
    files: dict[int, dict[int, FoldFiles]],
    model: dict[str, Interval],
    constant: dict[str, Interval],
    found: Found,
) -> dict[str, Any]:
    """The content of summary.json, without what is no number."""
    first = next(iter(next(iter(files.values())).values()))
    return {
        **finite({name: one.value for name, one in model.items()}),
        "low": finite({name: one.low for name, one in model.items()}),
        "high": finite({name: one.high for name, one in model.items()}),
        "constant": finite({name: one.value for name, one in constant.items()}),
        "num_parameters": int(first.metrics["num_parameters"]),
        "images": len(found.constant.groups),
        "groups": len(set(found.constant.groups)),
        "folds": len(params.folds),
        "seeds": len(params.seeds),
    }


def finite(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items() if isfinite(value)}


def rows_of(history: pd.DataFrame) -> list[dict[str, float]]:
    """A dict per epoch."""
    return [{str(name): value for name, value in row.items()} for row in history.to_dict("records")]


def fold_table(files: dict[int, dict[int, FoldFiles]]) -> pd.DataFrame:
    """A row of scores per training."""
    rows = [
        {"seed": seed, "fold": fold, **one.metrics}
        for seed, folds in files.items()
        for fold, one in folds.items()
    ]
    return pd.DataFrame(rows).drop(columns="num_parameters").round(4)


def history_table(files: dict[int, dict[int, FoldFiles]]) -> pd.DataFrame:
    """A row per training and epoch, for the plots."""
    return pd.concat(
        [
            one.history.assign(training=f"fold {fold}, seed {seed}")
            for seed, folds in files.items()
            for fold, one in folds.items()
        ],
        ignore_index=True,
    )


def page(
    params: Params,
    model: dict[str, Interval],
    constant: dict[str, Interval],
    tables: list[pd.DataFrame],
    found: Found,
) -> str:
    """The content of table.md."""
    name = " ".join([params.system, *([params.va_input] if params.system == "emma" else [])])
    rows = [score_row(name, model), score_row("constant predictor", constant)]
    groups = len(set(found.constant.groups))
    parts = [
        f"# {name}, {params.set}, {params.model}, init {params.init}, recipe {params.recipe}",
        f"All {len(found.constant.groups)} test pictures of {groups} groups at once, in "
        f"{len(params.folds)} fold(s) and the mean over {len(params.seeds)} seed(s); in brackets "
        "95 % intervals over groups. P_MTL is the sum of mean CCC, macro F1 and AU F1.",
        markdown_table(pd.DataFrame(rows)),
        "## Classes and action units (first seed)",
        markdown_table(tables[0]),
        "## Folds",
        markdown_table(tables[1]),
    ]
    if params.set == "s_aff_wild2":
        published = pd.DataFrame(PUBLISHED_ROWS).astype(object)
        parts += ["## Published", markdown_table(published.where(published.notna(), "-"))]
    return "\n\n".join(parts) + "\n"


def track(
    params: Params,
    files: dict[int, dict[int, FoldFiles]],
    model: dict[str, Interval],
    manifest: Path,
    artifacts: list[Path],
) -> None:
    """Close the MLflow run of each seed."""
    for folds in files.values():
        first = next(iter(folds.values()))
        described = {k: v for k, v in first.description.items() if k not in ("fold", "metrics")}
        log_experiment(
            AffectExperiment.of(described, sha256_of(manifest)),
            {fold: LoggedFold(rows_of(one.history), one.metrics) for fold, one in folds.items()},
            finite({name: one.value for name, one in model.items()}),
            artifacts,
            {},
            {"folds": params.folds},
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("runs", "manifest", "out"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    main(load_params(Params, Path("affect/params.yaml")), args.runs, args.manifest, args.out)
