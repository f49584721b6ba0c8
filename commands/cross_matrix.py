"""Models of several data sets on one another's clips: a row and a column per data set.

On the diagonal are the models' own test folds, of people whom each of them has never seen.

Shape letters: R rows, C columns.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.figure import Figure

from commands.cross_testing import (
    Reading,
    TrainedModel,
    answer_elsewhere,
    encoders_in_words,
    same_classes,
)
from pipeline.common.files import atomic_path
from pipeline.evaluation.classes import ClassMapping, class_mapping
from pipeline.evaluation.cross_tables import score_row
from pipeline.evaluation.figures import STYLE
from pipeline.evaluation.markdown import markdown_table
from pipeline.mtcae.predictions import predictions_table
from pipeline.scores.metrics import NUM_BINS, expected_calibration_error
from pipeline.store.contents import CLIPS
from pipeline.store.folders import LocalShards


class Cell(NamedTuple):
    """What the models of one data set say about the clips of another, or of their own.

    Attributes:
        trained_on: The data set of the models.
        tested_on: That of the clips.
        predictions: Of all its models, one below the other, as `predictions_table` has them.
        mapping: Of the models' classes and the clips' labels.
        encoders: What the models started from, in words.
    """

    trained_on: str
    tested_on: str
    predictions: pd.DataFrame
    mapping: ClassMapping
    encoders: list[str]


def cross_matrix(
    models: Mapping[Path, TrainedModel], data: Path, out: Path, reading: Reading
) -> str:
    """Test the models of every data set on every data set that has shards: a page of Markdown.

    Args:
        models: By the paths of their weights; those of one data set are its folds.
        data: Folder of the shards.
        out: Gets matrix.md, matrix.csv and matrix.png.
        reading: How clips are read.

    Raises:
        ValueError: Models of one data set differ in their classes, or no cell can be filled.
    """
    rows: dict[str, dict[Path, TrainedModel]] = defaultdict(dict)
    for path, one in models.items():
        rows[one.metadata["dataset"]][path] = one
    for of_one in rows.values():
        same_classes(of_one)
    shards = {
        path.parent.name: path.parent for path in sorted((data / "shards").glob(f"*/{CLIPS}"))
    }
    columns = [*rows, *(name for name in shards if name not in rows)]
    cells, empty = [], []
    for trained_on, of_one in rows.items():
        for tested_on in columns:
            try:
                if trained_on == tested_on:
                    cells.append(own_cell(trained_on, of_one))
                elif tested_on in shards:
                    place = LocalShards(shards[tested_on])
                    cells.append(other_cell(trained_on, tested_on, of_one, place, reading))
                else:
                    empty.append(f"{trained_on} on {tested_on}: no shards of it are here")
            except (FileNotFoundError, ValueError) as error:
                empty.append(f"{trained_on} on {tested_on}: {error}")
    if not cells:
        raise ValueError("; ".join(empty))
    table = matrix_table(cells)
    page = matrix_page(table, empty, restrict=reading.restrict)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / "matrix.csv") as temporary:
        table.to_csv(temporary, index=False)
    with atomic_path(out / "matrix.md") as temporary:
        temporary.write_text(page, encoding="utf-8")
    with atomic_path(out / "matrix.png") as temporary:
        save_heat_map(temporary, table)
    return page


def own_cell(dataset: str, models: Mapping[Path, TrainedModel]) -> Cell:
    """The predictions of the test folds that lie beside the models."""
    predictions = pd.concat(
        [pd.read_parquet(path.with_name("predictions.parquet")) for path in models],
        ignore_index=True,
    )
    mapping = class_mapping(same_classes(models), predictions["actual"])
    subjects = predictions["subject"].tolist()
    return Cell(
        dataset, dataset, predictions, mapping, encoders_in_words(models, dataset, subjects)
    )


def other_cell(
    trained_on: str,
    tested_on: str,
    models: Mapping[Path, TrainedModel],
    shards: LocalShards,
    reading: Reading,
) -> Cell:
    """All clips of another data set by each of the models."""
    _, mapping, answers = answer_elsewhere(models, shards, reading)
    tables = [
        predictions_table(one, number, mapping.answers)
        for number, one in enumerate(answers.values(), start=1)
    ]
    subjects = tables[0]["subject"].tolist()
    encoders = encoders_in_words(models, tested_on, subjects)
    return Cell(trained_on, tested_on, pd.concat(tables, ignore_index=True), mapping, encoders)


def matrix_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """A row per cell: scores as fractions, with the ends of their intervals over subjects."""
    rows: list[dict[str, Any]] = []
    for cell in cells:
        found = score_row("", cell.predictions, cell.mapping)
        names = [f"probability_{answer}" for answer in cell.mapping.answers]
        labels = cell.predictions["actual"].map(cell.mapping.answers.index).to_numpy()
        probabilities = cell.predictions[names].to_numpy()
        rows.append(
            {
                "trained_on": cell.trained_on,
                "tested_on": cell.tested_on,
                "clips": found["clips"],
                "subjects": found["subjects"],
                "classes": " ".join(cell.mapping.common),
                "uar": found["uar"].value,
                "uar_low": found["uar"].low,
                "uar_high": found["uar"].high,
                "war": found["war"].value,
                "calibration_error": expected_calibration_error(labels, probabilities),
                "outside": found["outside"],
                "encoders": "; ".join(cell.encoders),
            }
        )
    return pd.DataFrame(rows)


def matrix_page(table: pd.DataFrame, empty: Sequence[str], *, restrict: bool) -> str:
    """The matrix of UARs, the facts of every cell, and why others are empty, in Markdown."""
    uars = [_percent(*row) for row in table[["uar", "uar_low", "uar_high"]].to_numpy()]
    rows, columns = _names(table)
    matrix = (
        table.assign(uar=uars)
        .pivot(index="trained_on", columns="tested_on", values="uar")
        .reindex(index=rows, columns=columns)
        .fillna("-")
        .rename_axis("trained on", axis=0)
    )
    facts = table.drop(columns=["uar_low", "uar_high"]).assign(
        classes=[f"{len(words.split())}: {words}" for words in table["classes"]],
        uar=uars,
        war=table["war"].map("{:.1%}".format),
        calibration_error=table["calibration_error"].map("{:.3f}".format),
        outside=table["outside"].map("{:.6g}".format),
    )
    restricted = ", renormalised over the common ones" if restrict else ""
    parts = [
        "# Trained on (rows), tested on (columns): UAR",
        markdown_table(matrix.reset_index()),
        "On the diagonal every model on its own test fold. Elsewhere the mean over the models of a "
        f"row, on all clips of the classes in common{restricted}. In brackets 95 % intervals of a "
        "bootstrap over subjects, for these very models. UARs over other classes do not compare.",
        markdown_table(facts),
        "`outside`: clips answered with a class that the data set lacks. `calibration_error`: the "
        f"expected one, over {NUM_BINS} bins of equal width of the probability of the predicted "
        "class.",
        *[f"- Not filled: {line}" for line in empty],
    ]
    return "\n\n".join(parts) + "\n"


def _names(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Of rows and columns, in the order of the table."""
    return list(dict.fromkeys(table["trained_on"])), list(dict.fromkeys(table["tested_on"]))


def _percent(value: float, low: float, high: float) -> str:
    ends = "-" if np.isnan(low) else f"{low:.1%} to {high:.1%}"
    return f"{value:.1%} ({ends})"


@style.context(STYLE, after_reset=True)
def save_heat_map(path: Path, table: pd.DataFrame) -> None:
    """Write the matrix as a PNG on white: colour is UAR, from 0 to 1."""
    rows, columns = _names(table)
    figure = Figure(figsize=(2.2 + 1.5 * len(columns), 1.6 + 0.9 * len(rows)))
    axes = figure.subplots()
    shares = np.full((len(rows), len(columns)), np.nan)
    for cell in table.to_dict("records"):
        place = rows.index(cell["trained_on"]), columns.index(cell["tested_on"])
        uar, low, high = (float(cell[name]) for name in ("uar", "uar_low", "uar_high"))
        shares[place] = uar
        ends = "" if np.isnan(low) else f"{low:.0%} to {high:.0%}\n"
        text = f"{uar:.1%}\n{ends}{len(str(cell['classes']).split())} classes"
        colour = "white" if uar > 0.6 else "black"
        axes.text(place[1], place[0], text, ha="center", va="center", size=8, color=colour)
    corners = [np.arange(len(names) + 1) - 0.5 for names in (columns, rows)]
    axes.pcolormesh(*corners, np.ma.masked_invalid(shares), vmin=0, vmax=1, cmap="Blues")
    axes.invert_yaxis()
    axes.set(xlabel="tested on", ylabel="trained on")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(False)
    figure.savefig(path, format="png", dpi=150, metadata={"Software": None})
