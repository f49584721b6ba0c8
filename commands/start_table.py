"""Trainings from several starts side by side, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.evaluation.comparison import System, compare
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.tables import groups_tested


def start_table(
    systems: Sequence[System],
    classes: list[str],
    baselines: Mapping[int, pd.DataFrame],
    facts: Mapping[str, Mapping[str, str]],
) -> str:
    """A row per start, the first of which is the reference, and the baselines below.

    Args:
        systems: Named after their starts; all of the same clips, folds and seeds.
        classes: In the order of params.yaml.
        baselines: Predictions of `stages.baseline`, by seed.
        facts: What else is known of a start, by its name and that of the column.
    """
    reference = systems[0].name
    found = compare(systems, classes, "", baselines, reference=reference)
    rows = [
        {
            "encoder": row["structure"],
            "UAR": _interval(row, "uar_pooled"),
            f"difference to {reference}": _interval(row, "uar_difference"),
            "p (Holm)": "" if pd.isna(row.get("uar_p")) else f"{row['uar_p']:.3f}",
            "WAR": _interval(row, "war_pooled"),
            **facts.get(row["structure"], {}),
        }
        for row in found.to_dict("records")
    ]
    return markdown_table(pd.DataFrame(rows).fillna(""))


def rests_on(systems: Sequence[System], num_folds: int) -> str:
    """In words, what all the numbers of the table are of."""
    first = systems[0].trainings[0]
    groups = groups_tested(first)
    return (
        f"{len(first)} clips of {first['subject'].nunique()} {groups} in {num_folds} folds, seeds "
        f"{', '.join(map(str, systems[0].seeds))}. Per cent, mean over the seeds, with 95 % "
        f"intervals over {groups}."
    )


def _interval(row: Mapping[Any, Any], name: str) -> str:
    value, low, high = (row.get(f"{name}{end}", float("nan")) for end in ("", "_low", "_high"))
    if pd.isna(value):
        return ""
    sign = "+" if "difference" in name else ""
    ends = "" if pd.isna(low) else f" ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"
    return f"{100 * value:{sign}.1f}{ends}"
