"""Table I: the finished experiments of the present parameters, beside the published numbers.

    python -m commands.table_one

prints it and writes metrics/ablation.md, .csv and .tex.
"""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from commands.experiments import (
    FinishedExperiment,
    finished_experiments,
    read_params,
    read_predictions,
)
from pipeline.common.files import atomic_path
from pipeline.evaluation.comparison import Experiment, beside_linear, compare
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.page import notes
from pipeline.evaluation.published import (
    NUM_CLASSES,
    PAPER,
    PublishedResult,
    comparison_results,
)
from pipeline.mtcae.structures import STRUCTURES, Choices
from pipeline.tracking.observer import training_seconds


def main(out: Path) -> None:
    """Write the table of the data set, model, recipe and seed in params.yaml."""
    params = read_params()
    found = finished_experiments(params)
    if not found:
        raise SystemExit(
            "no finished experiment upon this commit has the parameters of params.yaml; "
            "`make ablation` runs the six structures"
        )
    structures = [structure for structure in STRUCTURES if structure in found]
    experiments = [load(found[structure]) for structure in structures]
    classes = params["datasets"][params["dataset"]]["classes"]
    predictions = experiments[0].predictions
    baselines = read_predictions(found[structures[0]], "baselines")
    table = compare(experiments, classes, params["dataset"], baselines)
    text = page(
        table,
        params["dataset"],
        f"{params['dataset']}: model {params['model']}, recipe {params['recipe']}, protocol "
        f"{params['split']['protocol']}, seed {params['seed']}",
        protocol=params["split"]["protocol"],
        num_classes=len(classes),
        remarks=[
            *beside_linear(table),
            *notes(predictions, classes, has_interval=bool(table["uar_low"].notna()[0])),
        ],
        missing=[structure.name for structure in STRUCTURES if structure not in found],
    )
    with atomic_path(out / "ablation.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    for name, content in (("ablation.md", text), ("ablation.tex", latex(table))):
        with atomic_path(out / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    print(text)


def load(finished: FinishedExperiment) -> Experiment:
    """An experiment with its predictions and the time that its training took."""
    choices = Choices.of(finished.params)
    return Experiment(
        choices.structure,
        name=finished.name,
        predictions=read_predictions(finished),
        num_parameters=finished.summary["num_parameters"],
        training_seconds=training_seconds(choices.model_dump()),
    )


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """The comparison as people read it: a few columns of text, scores in per cent."""
    columns: dict[str, Sequence[str] | pd.Series[str]] = {"structure": table["structure"]}
    for name in ("uar", "war"):
        title = name.upper()
        columns[f"{title} folds"] = _join(table, "{:.2f} ± {:.2f}", f"{name}_mean", f"{name}_std")
        columns[f"{title} pooled [95 %]"] = _join(
            table,
            "{:.2f} [{:.2f}, {:.2f}]",
            f"{name}_pooled",
            f"{name}_low",
            f"{name}_high",
        )
    if "uar_difference" in table:
        for name in ("uar", "war"):
            difference = f"{name}_difference"
            columns[f"Δ {name.upper()} [95 %]"] = _join(
                table,
                "{:+.2f} [{:+.2f}, {:+.2f}]",
                difference,
                f"{difference}_low",
                f"{difference}_high",
            )
            columns[f"p {name.upper()}"] = table[f"{name}_p"].map(_number("{:.3f}"))
    columns["Δ UAR to linear [95 %]"] = _join(
        table,
        "{:+.2f} [{:+.2f}, {:+.2f}]",
        "linear_difference",
        "linear_difference_low",
        "linear_difference_high",
    )
    columns["box IoU"] = table["box_iou"].map(_number("{:.3f}"))
    columns["landmark error"] = table["landmark_error"].map(_number("{:.3f}"))
    columns["parameters"] = table["num_parameters"].map(_number("{:,.0f}"))
    columns["training"] = table["training_seconds"].map(_duration)
    if "published_uar" in table:
        columns["paper UAR / WAR"] = [
            f"{uar:.2f} / {war:.2f}"
            for uar, war in zip(table["published_uar"], table["published_war"], strict=True)
        ]
    return pd.DataFrame(columns)


def _join(table: pd.DataFrame, pattern: str, *names: str) -> list[str]:
    rows = 100 * table[list(names)]
    return [
        "-" if np.isnan(row[0]) else _drop_nothing(pattern.format(*row))
        for row in rows.itertuples(index=False, name=None)
    ]


def _drop_nothing(text: str) -> str:
    """A score without the interval that it does not have."""
    return re.sub(r" \[[+-]?nan, [+-]?nan\]", "", text).replace("nan", "-")


def _number(pattern: str) -> Callable[[float], str]:
    return lambda value: "-" if np.isnan(value) else pattern.format(value)


def _duration(seconds: float | None) -> str:
    if seconds is None or np.isnan(seconds):
        return "-"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def published_table(dataset: str) -> pd.DataFrame:
    """What the paper reports of the methods on a data set; another protocol is marked by `†`."""
    return pd.DataFrame(
        [
            {
                "method": result.method + ("" if result.protocol == PAPER else " †"),
                "self-supervised": _yes(result.self_supervised),
                "multi-task": _yes(result.multi_task),
                "UAR": "-" if result.uar is None else f"{result.uar:.2f}",
                "WAR": f"{result.war:.2f}",
            }
            for result in comparison_results(dataset)
        ]
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def latex(table: pd.DataFrame) -> str:
    """The comparison as a LaTeX tabular; it needs the package booktabs."""
    text: str = format_table(table).to_latex(index=False, escape=True)
    return text.replace("±", r"$\pm$").replace("Δ", r"$\Delta$")


def page(
    table: pd.DataFrame,
    dataset: str,
    title: str,
    *,
    protocol: str,
    num_classes: int,
    remarks: Sequence[str],
    missing: Sequence[str],
) -> str:
    """The comparison as a page of Markdown.

    Args:
        table: From `compare`.
        dataset: Its name.
        title: What all experiments share.
        protocol: `split.protocol` of the experiments.
        num_classes: Of the experiments.
        remarks: What the reader of the scores must know.
        missing: Structures without a finished experiment.
    """
    parts = [f"# {title}", markdown_table(format_table(table))]
    parts += remarks
    if missing:
        parts.append(f"Not run yet: {', '.join(missing)}.")
    parts.append(
        "UAR is the mean of the classes' recalls, WAR the accuracy, in per cent. *Folds* is mean ± "
        "standard deviation over the folds, *pooled* is over all clips with a 95 % interval over "
        "subjects. *Δ* is the difference to `cascaded vit` on the same clips with its paired "
        "interval; *p* is of a permutation test that swaps whole subjects, corrected for the "
        "number of structures (Holm). *Training* is the mean of a fold as MLflow recorded it. What "
        "an interval says and does not say: docs/tables.md."
    )
    if dataset in NUM_CLASSES:
        results = comparison_results(dataset)
        parts += [
            f"## Published on {dataset} ({NUM_CLASSES[dataset]} classes, per cent)",
            markdown_table(published_table(dataset)),
        ]
        if others := [result for result in results if result.protocol != PAPER]:
            parts.append(f"† {_footnote(others)}")
        if protocol != PAPER or num_classes != NUM_CLASSES[dataset]:
            parts.append(
                f"**The experiments above follow protocol `{protocol}` with {num_classes} classes, "
                f"the paper 5 subject-independent folds with {NUM_CLASSES[dataset]}: the two "
                "do not compare.**"
            )
        else:
            parts.append(
                "The paper does not publish its folds: ours are other ones, and a difference of a "
                "few points to its numbers says little."
            )
    return "\n\n".join(parts) + "\n"


def _footnote(results: Sequence[PublishedResult]) -> str:
    names = " and ".join(result.method for result in results)
    return (
        f"{names}: protocol {results[0].protocol} with {results[0].num_classes} classes, not that "
        "of the other rows; do not compare them."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("metrics"))
    main(parser.parse_args().out)
