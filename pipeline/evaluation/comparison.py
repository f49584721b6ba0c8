"""Structures and baselines, tested on the same clips: scores, intervals, paired differences."""

from collections.abc import Mapping, Sequence
from math import isfinite
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
    subject_confusions,
)
from pipeline.evaluation.summary import class_indices, score_experiment
from pipeline.mtcae.structures import Structure


class Experiment(NamedTuple):
    """A finished experiment.

    Attributes:
        structure: Of its model.
        name: Of the DVC experiment.
        predictions: A row per test clip, of all folds.
        num_parameters: Of its model.
        training_seconds: Mean over the folds; None where nobody took the time.
    """

    structure: Structure
    name: str
    predictions: pd.DataFrame
    num_parameters: int
    training_seconds: float | None


def compare(
    experiments: Sequence[Experiment],
    classes: list[str],
    dataset: str,
    baselines: pd.DataFrame,
    *,
    reference: str = "cascaded vit",
    seed: int = 1,
) -> pd.DataFrame:
    """A row per experiment, in the order given, and below them a row per baseline.

    The columns of `Scores.flat`, and for UAR and WAR `_difference` to the reference with its paired
    interval and its p-value, corrected for the number of comparisons (Holm); `linear_difference` is
    that of the UAR to the linear model's. The published columns are in per cent, as printed.

    Args:
        experiments: All tested on the same clips.
        classes: In the order of params.yaml.
        dataset: Where there are published numbers of it, they are put beside.
        baselines: Predictions of `stages.baseline`.
        reference: The structure that the others are compared with; without it, no differences.
        seed: Of the resampling.

    Raises:
        ValueError: Experiments and baselines were not tested on the same clips in the same folds.
    """
    by_baseline = {str(name): table for name, table in baselines.groupby("baseline")}
    _require_same_clips(
        {experiment.name: experiment.predictions for experiment in experiments} | by_baseline
    )
    linear = _confusions(by_baseline[LINEAR], classes)
    confusions = {
        experiment.structure.name: _confusions(experiment.predictions, classes)
        for experiment in experiments
    }
    published = {
        Structure(str(result.arch), str(result.decoder)).name: result
        for result in (ablation_results(dataset) if dataset in NUM_CLASSES else [])
    }
    rows = []
    for experiment in experiments:
        structure = experiment.structure.name
        row: dict[str, object] = {"structure": structure, "experiment": experiment.name}
        row |= score_experiment(experiment.predictions, classes).flat()
        if reference in confusions and structure != reference:
            found = _difference(confusions[structure], confusions[reference], seed)
            row |= _columns("uar_difference", found.uar) | {"uar_p": found.uar_p_value}
            row |= _columns("war_difference", found.war) | {"war_p": found.war_p_value}
        row |= _columns("linear_difference", _difference(confusions[structure], linear, seed).uar)
        row |= {
            "num_parameters": experiment.num_parameters,
            "training_seconds": experiment.training_seconds,
        }
        if structure in published:
            result = published[structure]
            row |= {"published_uar": result.uar, "published_war": result.war}
        rows.append(row)
    for name in (LINEAR, MAJORITY):
        scores = score_experiment(by_baseline[name], classes).flat()
        rows.append({"structure": name, "experiment": "", **scores})
    num_classes = experiments[0].predictions["actual"].nunique()
    rows.append({"structure": CHANCE, "experiment": "", "uar_pooled": 1 / num_classes})
    table = pd.DataFrame(rows)
    for name in ("uar_p", "war_p"):
        if name in table:
            tested = table[name].notna()
            table.loc[tested, name] = holm(table.loc[tested, name].tolist())
    return table


def _require_same_clips(predictions: Mapping[str, pd.DataFrame]) -> None:
    first_name, first = next(iter(predictions.items()))
    for name, table in predictions.items():
        if not _truth(table).equals(_truth(first)):
            raise ValueError(
                f"{name} and {first_name} were not tested on the same clips in the same folds; run "
                "one of them again"
            )


def _difference(one: Counts, other: Counts, seed: int) -> Comparison:
    return paired_difference(one, other, num_resamples=NUM_RESAMPLES, seed=seed)


def _columns(name: str, interval: Interval) -> dict[str, object]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def compare_with_baselines(
    structure: Structure, predictions: pd.DataFrame, baselines: pd.DataFrame, classes: list[str]
) -> pd.DataFrame:
    """A row for one experiment and a row per baseline; see `compare`."""
    experiment = Experiment(structure, "this experiment", predictions, 0, None)
    return compare([experiment], classes, "", baselines).drop(columns="num_parameters")


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


def _confusions(predictions: pd.DataFrame, classes: list[str]) -> Counts:
    return subject_confusions(
        class_indices(predictions["actual"], classes),
        class_indices(predictions["predicted"], classes),
        predictions["subject"],
        len(classes),
    )
