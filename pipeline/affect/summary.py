"""Tables of the folds' tests: every score beside what a constant predictor has.

Shape letters: N pictures, C classes, U action units.
"""

from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.affect.intervals import GroupSums, Interval, group_sums, intervals
from pipeline.affect.labels import AUS
from pipeline.affect.metrics import Answers, Numbers, Scores, Truth, prevalence, score

# Columns of the tables, and how they are headed.
TITLES = {
    "p_mtl": "P_MTL",
    "va_ccc": "CCC, mean",
    "valence_ccc": "CCC valence",
    "arousal_ccc": "CCC arousal",
    "expression_f1": "macro F1",
    "au_f1": "AU F1",
}
# Of the groups drawn for intervals.
_SEED = 1


class Pooled(NamedTuple):
    """The test pictures of all folds of one training seed.

    Attributes:
        groups: N names.
        truth: Of them.
        answers: The model's.
    """

    groups: list[str]
    truth: Truth
    answers: Answers

    def sums(self, num_classes: int) -> GroupSums:
        """See `group_sums`."""
        return group_sums(self.answers, self.truth, self.groups, num_classes)

    def scores(self, num_classes: int) -> Scores:
        """Over all pictures at once."""
        return score(self.answers, self.truth, num_classes)


def pool(tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> Pooled:
    """The answers in the tables of predictions of some folds.

    Raises:
        ValueError: An image is tested twice.
    """
    table = pd.concat(tables, ignore_index=True).sort_values("image", ignore_index=True)
    if table["image"].duplicated().any():
        twice = table["image"][table["image"].duplicated()].iloc[0]
        raise ValueError(f"{twice} is tested in two folds")
    numbers = {name: number for number, name in enumerate(classes)}

    def columns(kind: str, names: Sequence[str]) -> Numbers:
        return table[[f"{kind}_{name}" for name in names]].astype(float).to_numpy()

    actual, units = columns("actual", ["valence", "arousal"]), [f"au{unit}" for unit in AUS]
    active = columns("actual", units)
    labels = table["actual"].map(numbers)
    truth = Truth(
        np.nan_to_num(actual),
        ~np.isnan(actual),
        labels.fillna(0).to_numpy().astype(np.int64),
        labels.notna().to_numpy(),
        np.nan_to_num(active) > 0,
        ~np.isnan(active),
    )
    answers = Answers(
        columns("predicted", ["valence", "arousal"]),
        table["predicted"].map(numbers).to_numpy().astype(np.int64),
        columns("predicted", units) > 0,
    )
    return Pooled(table["group"].tolist(), truth, answers)


def intervals_of(pooled: Sequence[Pooled], num_classes: int) -> dict[str, Interval]:
    """Scores with intervals over groups; the mean over the trainings with several seeds."""
    return intervals([one.sums(num_classes) for one in pooled], _SEED)


def score_row(name: str, found: Mapping[str, Interval]) -> dict[str, str]:
    """A row of a table, for people."""
    return {"": name} | {title: in_words(found[key]) for key, title in TITLES.items()}


def in_words(interval: Interval) -> str:
    """`0.812 [0.777, 0.841]`, or a dash where there is nothing."""
    if isnan(interval.value):
        return "-"
    if not isfinite(interval.low):
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def class_table(
    model: Scores, constant: Scores, truth: Truth, classes: Sequence[str]
) -> pd.DataFrame:
    """F1 of each class and unit beside how often it occurs and what the constant predictor has.

    Units of which a model of expressions says nothing are left out.
    """
    shares = prevalence(truth, len(classes))
    names = [*classes, *(f"AU{unit}" for unit in AUS)]
    kinds = ["expression"] * len(classes) + ["action unit"] * len(AUS)
    table = pd.DataFrame(
        {
            "kind": kinds,
            "name": names,
            "prevalence": [*shares.classes, *shares.aus],
            "f1": [*model.classes, *model.aus],
            "constant_f1": [*constant.classes, *constant.aus],
        }
    )
    return table.dropna(subset="f1").round(4)
