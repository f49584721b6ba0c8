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
    subject_intervals,
)
from pipeline.evaluation.summary import class_indices, fold_table
from pipeline.mtcae.structures import structure_name


class Experiment(NamedTuple):
    """A finished experiment.

    Attributes:
        arch: As in params.yaml.
        decoder: As in params.yaml; it means nothing where arch is stl.
        name: Of the DVC experiment.
        predictions: A row per test clip, of all folds.
        num_parameters: Of its model.
        training_seconds: Mean over the folds; None where nobody took the time.
    """

    arch: str
    decoder: str
    name: str
    predictions: pd.DataFrame
    num_parameters: int
    training_seconds: float | None

    @property
    def structure(self) -> str:
        """`stl`, `fully_shared vit` and so on."""
        return structure_name(self.arch, self.decoder)


def compare(
    experiments: Sequence[Experiment],
    classes: list[str],
    dataset: str,
    *,
    reference: str = "cascaded vit",
    seed: int = 1,
) -> pd.DataFrame:
    """A row per experiment, in the order given.

    UAR and WAR: `_mean` and `_sd` over the folds, `uar` and `war` over all clips with the ends of
    their 95 % intervals over subjects (`_low`, `_high`), `_difference` to the reference with its
    paired interval and its p-value, corrected for the number of comparisons (Holm). The published
    columns are in per cent, as printed.

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
        experiment.structure: _confusions(experiment.predictions, classes)
        for experiment in experiments
    }
    published = {
        structure_name(str(result.arch), result.decoder): result
        for result in (ablation_results(dataset) if dataset in NUM_CLASSES else [])
    }
    rows = []
    for experiment in experiments:
        folds = fold_table(experiment.predictions, classes)
        counts = confusions[experiment.structure]
        uar, war = subject_intervals(counts, num_resamples=NUM_RESAMPLES, seed=seed)
        row: dict[str, object] = {"structure": experiment.structure, "experiment": experiment.name}
        for name, interval in (("uar", uar), ("war", war)):
            row |= {
                f"{name}_mean": folds[name].mean(),
                f"{name}_sd": folds[name].std(),
                name: interval.value,
                f"{name}_low": interval.low,
                f"{name}_high": interval.high,
            }
        if reference in confusions and experiment.structure != reference:
            found = paired_difference(
                counts, confusions[reference], num_resamples=NUM_RESAMPLES, seed=seed
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
            "box_iou": experiment.predictions["box_iou"].mean(),
            "landmark_error": experiment.predictions["landmark_error"].mean(),
            "num_parameters": experiment.num_parameters,
            "training_seconds": experiment.training_seconds,
        }
        if experiment.structure in published:
            result = published[experiment.structure]
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
