"""Table I as people read it: a page of Markdown, and a tabular of LaTeX."""

import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.published import (
    NUM_CLASSES,
    PROTOCOLS,
    PublishedResult,
    comparison_results,
    other_results,
)
from pipeline.evaluation.setting import Setting


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
            f"{name}_pooled_low",
            f"{name}_pooled_high",
        )
        if table["seeds"].max() > 1:
            columns[f"± seeds, {title}"] = _join(table, "{:.2f}", f"{name}_seed_std")
    if table["uar_optimistic_pooled"].notna().any():
        gap = table["uar_optimistic_pooled"] - table["uar_pooled"]
        columns["UAR best epoch on test (gap)"] = _join(
            table.assign(gap=gap), "{:.2f} ({:+.2f})", "uar_optimistic_pooled", "gap"
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
            "-" if np.isnan(war) else f"{uar:.2f} / {war:.2f}"
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


def _duration(seconds: float) -> str:
    if np.isnan(seconds):
        return "-"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def published_table(dataset: str, protocol: str) -> pd.DataFrame:
    """What is published of the methods on a data set.

    Args:
        dataset: Its name.
        protocol: Of our experiments; a method with another one is marked by `†`.
    """
    epochs = {True: "test clips ‡", False: "validation", None: "not said"}
    return pd.DataFrame(
        [
            {
                "method": result.method + ("" if result.protocol == protocol else " †"),
                "protocol": f"{result.protocol}, {result.num_classes} classes",
                "epoch chosen on": "-"
                if result.modality == "people"
                else epochs[result.epoch_on_test],
                "input": "video" if result.modality == "people" else result.modality,
                "self-supervised": _yes(result.self_supervised),
                "multi-task": _yes(result.multi_task),
                "UAR": "-" if result.uar is None else f"{result.uar:.2f}",
                "WAR": f"{result.war:.2f}",
                "from": result.source,
            }
            for result in published_results(dataset)
            for people in [result.modality == "people"]
        ]
    )


def published_results(dataset: str) -> list[PublishedResult]:
    """All of them: the paper's tables, and others; none of a data set that nobody published on."""
    paper = comparison_results(dataset) if dataset in NUM_CLASSES else []
    return [*paper, *other_results(dataset)]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def latex(table: pd.DataFrame) -> str:
    """The comparison as a LaTeX tabular; it needs the package booktabs."""
    text: str = format_table(table).to_latex(index=False, escape=True)
    return text.replace("±", r"$\pm$").replace("Δ", r"$\Delta$")


def page(table: pd.DataFrame, setting: Setting, remarks: Sequence[str]) -> str:
    """The comparison as a page of Markdown.

    Args:
        table: From `compare`.
        setting: What all experiments share.
        remarks: What the reader of the scores must know besides.
    """
    groups = setting.coverage.groups
    parts = [
        f"# Table I on {setting.dataset}",
        f"{setting.in_a_line()}.",
        *setting.sentences(),
        markdown_table(format_table(table)),
        *remarks,
        _EXPLANATION.format(groups=groups),
    ]
    if table["seeds"].max() > 1:
        parts.append(_SEEDS.format(groups=groups))
    if table["uar_optimistic_pooled"].notna().any():
        parts.append(_OPTIMISTIC)
    parts.append(
        "The table is made of `metrics/ablation/predictions.parquet`, a row per system, seed and "
        f"tested clip, by `python -m commands.table_one`. {setting.trace()}"
    )
    if published_results(setting.dataset):
        parts += _published(setting)
    return "\n\n".join(parts) + "\n"


_EXPLANATION = (
    "UAR is the mean of the classes' recalls, WAR the accuracy, in per cent. *Folds* is mean ± "
    "standard deviation over the folds, *pooled* is over all clips with a 95 % interval over "
    "{groups}. *Δ* is the difference to `cascaded vit` on the same clips with its paired "
    "interval; *p* is of a permutation test that swaps whole {groups}, corrected for the "
    "number of systems (Holm). *Training* is the mean of a fold as MLflow recorded it. What "
    "an interval says and does not say: docs/tables.md."
)
_SEEDS = (
    "With several seeds, each of which draws folds, weights and order anew, *pooled* and *Δ* are "
    "means over the seeds, their intervals draw {groups} with all their seeds, and *± seeds* is "
    "the standard deviation of the pooled value between seeds."
)
_OPTIMISTIC = (
    "*Best epoch on test* is optimistic: in each fold the epoch is chosen by the UAR on the test "
    "clips themselves, as in most published numbers; *gap* is what that adds. It chooses nothing "
    "here, and is no result."
)


def _published(setting: Setting) -> list[str]:
    """The published numbers, and how they meet ours."""
    dataset, num_classes = setting.dataset, len(setting.classes)
    results = published_results(dataset)
    protocols = sorted({result.protocol for result in results})
    parts = [
        f"## Published on {dataset} (per cent)",
        markdown_table(published_table(dataset, setting.protocol)),
        "† another protocol than that of the experiments above: not to be compared with them. "
        "‡ the epoch was chosen by the score on the test clips: compare with *best epoch on test*.",
        *(f"Protocol `{name}`: {PROTOCOLS[name]}" for name in protocols),
    ]
    if dataset not in NUM_CLASSES:
        return parts
    if setting.protocol != "paper" or num_classes != NUM_CLASSES[dataset]:
        parts.append(
            f"**The experiments above follow protocol `{setting.protocol}` with {num_classes} "
            f"classes, the paper 5 subject-independent folds with {NUM_CLASSES[dataset]}: the two "
            "do not compare.**"
        )
    else:
        parts.append(
            "The paper does not publish its folds: ours are other ones, and a difference of a few "
            "points to its numbers says little."
        )
    return parts
