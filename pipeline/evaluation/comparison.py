"""Structures side by side, tested on the same clips: scores, intervals, paired differences."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from pipeline.evaluation.published import NUM_CLASSES, ablation_results
from pipeline.evaluation.statistics import (
    NUM_RESAMPLES,
    Counts,
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
    *,
    reference: str = "cascaded vit",
    seed: int = 1,
) -> pd.DataFrame:
    """A row per experiment, in the order given.

    The columns of `Scores.flat`, and for UAR and WAR `_difference` to the reference with its paired
    interval and its p-value, corrected for the number of comparisons (Holm). The published columns
    are in per cent, as printed.

    Args:
        experiments: All tested on the same clips.
        classes: In the order of params.yaml.
        dataset: Where there are published numbers of it, they are put beside.
        reference: The structure that the others are compared with; without it, no differences.
        seed: Of the resampling.

    Raises:
        ValueError: The experiments were not tested on the same clips in the same folds.
    """
    first = _truth(experiments[0])
    for experiment in experiments[1:]:
        if not _truth(experiment).equals(first):
            raise ValueError(
                f"{experiment.name} and {experiments[0].name} were not tested on the same clips in "
                "the same folds; run one of them again"
            )
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
            found = paired_difference(
                confusions[structure],
                confusions[reference],
                num_resamples=NUM_RESAMPLES,
                seed=seed,
            )
            for name, interval, p_value in (
                ("uar", found.uar, found.uar_p_value),
                ("war", found.war, found.war_p_value),
            ):
                row |= {
                    f"{name}_difference": interval.value,
                    f"{name}_difference_low": interval.low,
                    f"{name}_difference_high": interval.high,
                    f"{name}_p": p_value,
                }
        row |= {
            "num_parameters": experiment.num_parameters,
            "training_seconds": experiment.training_seconds,
        }
        if structure in published:
            result = published[structure]
            row |= {"published_uar": result.uar, "published_war": result.war}
        rows.append(row)
    table = pd.DataFrame(rows)
    for name in ("uar_p", "war_p"):
        if name in table:
            tested = table[name].notna()
            table.loc[tested, name] = holm(table.loc[tested, name].tolist())
    return table


def _truth(experiment: Experiment) -> pd.DataFrame:
    columns = experiment.predictions[["fold", "clip", "subject", "actual"]]
    return columns.sort_values("clip", ignore_index=True)


def _confusions(predictions: pd.DataFrame, classes: list[str]) -> Counts:
    return subject_confusions(
        class_indices(predictions["actual"], classes),
        class_indices(predictions["predicted"], classes),
        predictions["subject"],
        len(classes),
    )
