"""Stage report of the affect models: tables and the pictures most wrong, as one page."""

import argparse
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from pipeline.affect.choices import Choices
from pipeline.affect.report_page import figure, html_table, most_wrong, page
from pipeline.affect.results import PREDICTIONS
from pipeline.affect.stored import read_stored
from pipeline.common.files import atomic_path
from pipeline.common.params import Section, StageParams, load_params

# Of either kind.
_MOST = 12


class ReportParams(Section):
    """Whether the page shows pictures, which may be faces of people."""

    frames: bool


class Params(Choices, StageParams):
    """Exactly this stage's `params` in affect/dvc.yaml."""

    folds: Annotated[list[int], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]
    report: ReportParams


def main(params: Params, runs: Path, data: Path, metrics: Path, out: Path) -> None:
    seed = params.seeds[0]
    predictions = pd.concat(
        [pd.read_parquet(runs / f"fold{fold}-seed{seed}" / PREDICTIONS) for fold in params.folds],
        ignore_index=True,
    )
    stored = read_stored(data)
    rows = {image.id: number for number, image in enumerate(stored.images)}
    summary = json.loads((metrics / "summary.json").read_text(encoding="utf-8"))
    scores = pd.DataFrame(
        [
            {"score": name, "model": value, "constant predictor": constant}
            for name, constant in summary["constant"].items()
            if (value := summary.get(name)) is not None
        ]
    )
    sections = [
        ("Scores", html_table(scores)),
        ("Classes and action units", html_table(pd.read_csv(metrics / "classes.csv"))),
        ("Folds", html_table(pd.read_csv(metrics / "folds.csv"))),
    ]
    for kind, wrong in most_wrong(predictions, _MOST).items():
        shown = [
            figure(one, np.array(stored.pixels[rows[one.image]]) if params.report.frames else None)
            for one in wrong
        ]
        sections.append((f"Most wrong: {kind}", "\n".join(shown) or "nothing"))
    title = f"{params.system} {params.model} on {params.set}, init {params.init}, {params.recipe}"
    with atomic_path(out / "index.html") as temporary:
        temporary.write_text(page(title, sections), encoding="utf-8")
    faces = " (with faces: keep it to yourself)" if params.report.frames else ""
    print(f"report: {out / 'index.html'}{faces}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("runs", "data", "metrics", "out"):
        parser.add_argument(name, type=Path, help="in the order of dvc.yaml")
    args = parser.parse_args()
    params = load_params(Params, Path("affect/params.yaml"))
    main(params, args.runs, args.data, args.metrics, args.out)
