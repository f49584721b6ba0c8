"""How sure scores are: intervals over groups, and differences of two models on the same pictures.

Pictures of one recording are not independent, so what is drawn again is a whole group. All scores
follow from sums over groups: moments of valence and arousal, and counts of right and wrong answers.

Shape letters: N pictures, G groups, C classes, U action units, R resamples.
"""

from collections.abc import Callable, Sequence
from math import nan
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipeline.affect.metrics import Answers, Mask, Numbers, Truth

NUM_RESAMPLES = 2000
# Of fewer groups an interval says more about who came than about the model.
MIN_GROUPS = 10
SCORES = ("p_mtl", "valence_ccc", "arousal_ccc", "va_ccc", "expression_f1", "au_f1")


class Interval(NamedTuple):
    """A score and the ends of its 95 % interval; the ends are NaN where there are few groups."""

    value: float
    low: float
    high: float


class GroupSums(NamedTuple):
    """What scores are made of, summed over the pictures of each group.

    Attributes:
        moments: (G, 2, 6) of valence and arousal: count, x, y, x^2, y^2, x y.
        classes: (G, C, 2) pictures of a class that are named rightly; named so plus truly so.
        aus: (G, U, 3) the same of active units, and pictures in which the unit is known.
    """

    moments: Numbers
    classes: Numbers
    aus: Numbers


def group_sums(
    answers: Answers, truth: Truth, groups: Sequence[str], num_classes: int
) -> GroupSums:
    """The sums of each group, in the order of their names.

    Args:
        answers: Of N pictures.
        truth: Of the same.
        groups: N names.
        num_classes: C.
    """
    names, rows = np.unique(np.asarray(groups), return_inverse=True)
    x, y = answers.valence_arousal, truth.valence_arousal
    columns = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)
    columns = np.where(truth.valence_arousal_known[..., None], columns, 0)
    numbers = np.arange(num_classes)
    named = (answers.expression[:, None] == numbers) & truth.expression_known[:, None]
    true = (truth.expression[:, None] == numbers) & truth.expression_known[:, None]
    classes = _right_and_all(named, true)
    units = _right_and_all(answers.aus & truth.aus_known, truth.aus & truth.aus_known)
    units = np.concatenate([units, truth.aus_known[..., None].astype(np.float64)], axis=-1)
    return GroupSums(*(_by_group(values, rows, len(names)) for values in (columns, classes, units)))


def scores_of(sums: GroupSums, weights: Numbers) -> dict[str, Numbers]:
    """Scores by name, each (R,), of groups that count several times or not at all.

    Args:
        sums: Of G groups.
        weights: (R, G).
    """
    return _scores_of_totals(_totals(sums, weights))


def _totals(sums: GroupSums, weights: Numbers) -> GroupSums:
    """The sums over all groups: (R, 2, 6), (R, C, 2) and (R, U, 3)."""
    return GroupSums(*(np.tensordot(weights, values, axes=1) for values in sums))


def _scores_of_totals(totals: GroupSums) -> dict[str, Numbers]:
    n, x, y, xx, yy, xy = np.moveaxis(totals.moments, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = xx / n + yy / n - 2 * (x / n) * (y / n)
        ccc = 2 * (xy / n - (x / n) * (y / n)) / spread
        # Rounding leaves some covariance of constants.
        ccc = np.where(np.abs(ccc) < 1e-9, 0, ccc)
        right, both = np.moveaxis(totals.classes, -1, 0)
        f1 = np.where(both > 0, 2 * right / both, 0)
        expression = np.where(both.sum(axis=1) > 0, f1.mean(axis=1), nan)
        right, both, known = np.moveaxis(totals.aus, -1, 0)
        units = np.where(known > 0, np.where(both > 0, 2 * right / both, 0), nan)
    counted = (known > 0).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        au_f1 = np.nansum(units, axis=1) / np.where(counted > 0, counted, nan)
    va_ccc = ccc.mean(axis=1)
    values = (va_ccc + expression + au_f1, ccc[:, 0], ccc[:, 1], va_ccc, expression, au_f1)
    return dict(zip(SCORES, values, strict=True))


def intervals(sums: Sequence[GroupSums], seed: int) -> dict[str, Interval]:
    """Scores with intervals, of a model that was trained several times.

    The score is the mean over trainings. The ends are quantiles of resamples of whole groups, the
    same for all trainings, at levels widened as in pipeline/evaluation/statistics.py.

    Args:
        sums: Of each training, of the same groups.
        seed: Of the groups drawn.
    """
    return _intervals(lambda weights: _mean_scores(sums, weights), len(sums[0].moments), seed)


def differences(
    sums: Sequence[GroupSums], others: Sequence[GroupSums], seed: int
) -> dict[str, Interval]:
    """How much better one model is than another on the same groups, with intervals.

    Args:
        sums: Of each training of the one.
        others: Of each training of the other.
        seed: Of the groups drawn, the same for both.
    """

    def difference(weights: Numbers) -> dict[str, Numbers]:
        one, other = _mean_scores(sums, weights), _mean_scores(others, weights)
        return {name: one[name] - other[name] for name in SCORES}

    return _intervals(difference, len(sums[0].moments), seed)


def p_values(sums: Sequence[GroupSums], others: Sequence[GroupSums], seed: int) -> dict[str, float]:
    """How likely differences as large as those of two models are by chance (two-sided).

    A permutation test: in each of R random ways some groups exchange what the two models answered,
    and (1 + k) / (1 + R) is the p-value where k differences are at least as large. With several
    trainings the first of the one is exchanged for the first of the other, and so on. NaN where
    there is no score.

    Args:
        sums: Of each training of the one.
        others: Of each training of the other: as many, of the same groups.
        seed: Of the ways.
    """
    num_groups = len(sums[0].moments)
    random = np.random.default_rng(seed)
    exchanged = random.integers(0, 2, (NUM_RESAMPLES, num_groups)).astype(np.float64)
    # The first way is that in which nothing is exchanged.
    exchanged = np.concatenate([np.zeros((1, num_groups)), exchanged])
    found = {name: np.zeros(len(exchanged)) for name in SCORES}
    for one, other in zip(sums, others, strict=True):
        for first, second, sign in ((one, other, 1), (other, one, -1)):
            parts = zip(_totals(first, 1 - exchanged), _totals(second, exchanged), strict=True)
            scores = _scores_of_totals(GroupSums(*(a + b for a, b in parts)))
            for name in SCORES:
                found[name] += sign * scores[name] / len(sums)
    # Sums in another order differ in their last digits.
    return {
        name: float(np.mean(np.abs(values) >= np.abs(values[0]) - 1e-9))
        if np.isfinite(values[0])
        else nan
        for name, values in found.items()
    }


def _mean_scores(sums: Sequence[GroupSums], weights: Numbers) -> dict[str, Numbers]:
    found = [scores_of(one, weights) for one in sums]
    return {name: np.mean([one[name] for one in found], axis=0) for name in SCORES}


def _intervals(
    scores: Callable[[Numbers], dict[str, Numbers]], num_groups: int, seed: int
) -> dict[str, Interval]:
    values = {name: float(one[0]) for name, one in scores(np.ones((1, num_groups))).items()}
    if num_groups < MIN_GROUPS:
        return {name: Interval(value, nan, nan) for name, value in values.items()}
    quantile = stats.t.ppf(0.025, num_groups - 1)
    tail = stats.norm.cdf(quantile * np.sqrt(num_groups / (num_groups - 1)))
    random = np.random.default_rng(seed)
    drawn = random.multinomial(num_groups, np.full(num_groups, 1 / num_groups), NUM_RESAMPLES)
    found = scores(drawn.astype(np.float64))
    return {
        name: Interval(value, *np.quantile(found[name], [tail, 1 - tail]).tolist())
        for name, value in values.items()
    }


def _right_and_all(named: Mask, true: Mask) -> Numbers:
    both: Numbers = np.stack([named & true, named.astype(np.int64) + true], axis=-1).astype(float)
    return both


def _by_group(values: Numbers, rows: npt.NDArray[np.intp], num_groups: int) -> Numbers:
    sums = np.zeros((num_groups, *values.shape[1:]))
    np.add.at(sums, rows, values)
    return sums
