"""Stage aggregate of the affect models: scores over all folds and seeds, as tables."""

import argparse
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from pipeline.affect.choices import Choices
from pipeline.affect.group_table import group_table
from pipeline.affect.intervals import Interval
from pipeline.affect.published import PUBLISHED_ROWS
from pipeline.affect.summary import (
    TITLES,
    class_table,
    intervals_of,
    score_row,
)
from pipeline.affect.trainings import (
    Found,
    Trainings,
    finite,
    first_of,
    fold_table,
    history_table,
    pool_all,
    read_trainings,
)
from pipeline.common.files import atomic_path, sha256_of, write_json
from pipeline.common.params import StageParams, load_params
from pipeline.evaluation.markdown import markdown_table
from pipeline.tracking.affect import log_trainings


class Params(Choices, StageParams):
    """Exactly this stage's `params` in affect/dvc.yaml."""

    folds: Annotated[list[int], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]


def main(params: Params, runs: Path, manifest: Path, out: Path) -> None:
    files = read_trainings(runs, params.seeds, params.folds)
    try:
        found = pool_all(files)
    except ValueError as error:
        raise SystemExit(f"aggregate: {error}") from error
    num_classes = len(found.classes)
    model = intervals_of(found.model, num_classes)
    constant = intervals_of([found.constant], num_classes)
    write_json(out / "summary.json", summary(params, files, model, constant, found))
    scores = finite({name: one.value for name, one in model.items()})
    write_json(out / "scores.json", scores)
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
    sums = {
        seed: one.sums(num_classes) for seed, one in zip(params.seeds, found.model, strict=True)
    }
    with atomic_path(out / "groups.parquet") as temporary:
        names = sorted(set(found.constant.groups))
        group_table(sums, names, found.classes).to_parquet(temporary, index=False)
    with atomic_path(out / "table.md") as temporary:
        text = page(params, model, constant, tables, found)
        temporary.write_text(text, encoding="utf-8")
    log_trainings(
        files,
        scores,
        sha256_of(manifest),
        [out / "table.md", out / "classes.csv"],
    )
    said = " and ".join(
        f"{title} {model[key].value:.3f} (constant {constant[key].value:.3f})"
        for key, title in TITLES.items()
        if key in ("p_mtl", "expression_f1") and isfinite(model[key].value)
    )
    print(f"aggregate: {said} over {len(set(found.constant.groups))} groups; see {out}/table.md")


def summary(
    params: Params,
    files: Trainings,
    model: dict[str, Interval],
    constant: dict[str, Interval],
    found: Found,
) -> dict[str, Any]:
    """The content of summary.json, without what is no number."""
    first = first_of(files)
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("runs", "manifest", "out"):
        parser.add_argument(name, type=Path, help="in the order of dvc.yaml")
    args = parser.parse_args()
    main(load_params(Params, Path("affect/params.yaml")), args.runs, args.manifest, args.out)
