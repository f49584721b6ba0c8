"""Structures and baselines, tested on the same clips: scores, intervals, paired differences."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from math import isfinite, nan
from typing import NamedTuple

import pandas as pd

from pipeline.evaluation.baselines import CHANCE, LINEAR, MAJORITY
from pipeline.evaluation.published import NUM_CLASSES, ablation_results
from pipeline.evaluation.statistics import (
    NUM_RESAMPLES,
    Comparison,
    Counts,
    Interval,
    holm,
    paired_difference,
)
from pipeline.evaluation.summary import score_experiment, training_confusions
from pipeline.mtcae.structures import Structure


class System(NamedTuple):
    """A row of the comparison: a structure with its finished experiments, or another system.

    Attributes:
        name: Of the structure.
        experiments: Names of the DVC experiments, one for each training; or where it is from.
        trainings: Of each of them the test predictions of all folds.
        seeds: Of the trainings; folds of the same seed are the same. None of another system, whose
            training is compared with all of ours.
        num_parameters: Of its model; NaN where that is not known.
        training_seconds: Mean over the folds; NaN where nobody took the time.
    """

    name: str
    experiments: str
    trainings: Sequence[pd.DataFrame]
    seeds: Sequence[int] = ()
    num_parameters: float = nan
    training_seconds: float = nan


def compare(
    systems: Sequence[System],
    classes: list[str],
    dataset: str,
    baselines: Mapping[int, pd.DataFrame],
    *,
    reference: str = "cascaded vit",
    seed: int = 1,
) -> pd.DataFrame:
    """A row per system, in the order given, and below them a row per baseline.

    The columns of `Scores.flat`, and for UAR and WAR `_difference` to the reference with its paired
    interval and its p-value, corrected for the number of comparisons (Holm); `linear_difference` is
    that of the UAR to the linear model's. The published columns are in per cent, as printed.

    Args:
        systems: All tested on the same clips.
        classes: In the order of params.yaml.
        dataset: Where there are published numbers of it, they are put beside.
        baselines: Predictions of `stages.baseline`, by the seeds that the systems have.
        reference: The system that the others are compared with; without it, no differences.
        seed: Of the resampling.

    Raises:
        ValueError: Systems and baselines were not tested on the same clips.
    """
    others = [
        System(name, "", [one[one["baseline"] == name] for one in baselines.values()], [*baselines])
        for name in (LINEAR, MAJORITY)
    ]
    _require_same_clips([*systems, *others])
    confusions = {one.name: training_confusions(one.trainings, classes) for one in systems}
    linear = training_confusions(others[0].trainings, classes)
    published = {
        Structure(str(result.arch), str(result.decoder)).name: result
        for result in (ablation_results(dataset) if dataset in NUM_CLASSES else [])
    }
    rows = []
    for one in systems:
        row: dict[str, object] = {"structure": one.name, "experiment": one.experiments}
        row |= score_experiment(one.trainings, classes).flat()
        if reference in confusions and one.name != reference:
            found = _difference(confusions[one.name], confusions[reference], seed)
            row |= _columns("uar_difference", found.uar) | {"uar_p": found.uar_p_value}
            row |= _columns("war_difference", found.war) | {"war_p": found.war_p_value}
        row |= _columns("linear_difference", _difference(confusions[one.name], linear, seed).uar)
        row |= {
            "num_parameters": one.num_parameters,
            "training_seconds": one.training_seconds,
        }
        if one.name in published:
            result = published[one.name]
            row |= {"published_uar": result.uar, "published_war": result.war}
        rows.append(row)
    for one in others:
        scores = score_experiment(one.trainings, classes).flat()
        rows.append({"structure": one.name, "experiment": "", **scores})
    num_classes = systems[0].trainings[0]["actual"].nunique()
    rows.append({"structure": CHANCE, "experiment": "", "uar_pooled": 1 / num_classes})
    table = pd.DataFrame(rows)
    for name in ("uar_p", "war_p"):
        if name in table:
            tested = table[name].notna()
            table.loc[tested, name] = holm(table.loc[tested, name].tolist())
    return table


def _require_same_clips(systems: Sequence[System]) -> None:
    first = systems[0]
    clips = _truth(first.trainings[0]).drop(columns="fold")
    first_with: dict[int, tuple[System, pd.DataFrame]] = {}
    for system in systems:
        for seed, table in zip_longest(system.seeds, system.trainings):
            truth = _truth(table)
            other, same = first, truth.drop(columns="fold").equals(clips)
            if same and seed is not None:
                other, expected = first_with.setdefault(seed, (system, truth))
                same = truth.equals(expected)
            if not same:
                raise ValueError(
                    f"{system.name} and {other.name} were not tested on the same clips in the "
                    "same folds; run one of them again"
                )


def _difference(one: Counts, other: Counts, seed: int) -> Comparison:
    return paired_difference(one, other, num_resamples=NUM_RESAMPLES, seed=seed)


def _columns(name: str, interval: Interval) -> dict[str, object]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def compare_with_baselines(
    name: str, predictions: pd.DataFrame, baselines: pd.DataFrame, classes: list[str]
) -> pd.DataFrame:
    """A row for one experiment and a row per baseline; see `compare`."""
    system = System(name, "this experiment", [predictions], [1])
    return compare([system], classes, "", {1: baselines}).drop(columns="num_parameters")


def beside_linear(table: pd.DataFrame) -> list[str]:
    """For each structure a sentence: whether it beats the linear model, and by how much.

    Args:
        table: From `compare`.
    """
    sentences = []
    names = ["linear_difference", "linear_difference_low", "linear_difference_high"]
    for structure, values in (
        table.dropna(subset=names[:1]).set_index("structure")[names].iterrows()
    ):
        value, low, high = (100 * float(number) for number in values)
        points = f"{value:+.1f} points of UAR"
        points += f" [{low:+.1f}, {high:+.1f}]" if isfinite(low) else " (no interval)"
        if low > 0:
            sentences.append(f"{structure} beats the linear model: {points}.")
        else:
            sentences.append(
                f"**{structure} does not beat the linear model**: {points}. Nobody should take its "
                "score for a merit of the structure."
            )
    return sentences


def _truth(predictions: pd.DataFrame) -> pd.DataFrame:
    columns = predictions[["fold", "clip", "subject", "actual"]]
    return columns.sort_values("clip", ignore_index=True)
