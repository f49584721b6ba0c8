import itertools

import numpy as np
import pytest

from pipeline.affect.group_table import group_table, read_group_table
from pipeline.affect.intervals import (
    SCORES,
    differences,
    group_sums,
    intervals,
    p_values,
    scores_of,
)
from pipeline.affect.labels import AUS
from pipeline.affect.metrics import Answers, Truth, score

NUM_CLASSES = 4
N = 240


def truth_and_answers(seed: int = 0, error: float = 0.3) -> tuple[Truth, Answers, list[str]]:
    """Twelve groups with some labels unknown; answers that are right in part."""
    random = np.random.default_rng(seed)
    truth = Truth(
        random.uniform(-1, 1, (N, 2)),
        random.random((N, 2)) < 0.8,
        random.integers(0, NUM_CLASSES, N),
        random.random(N) < 0.8,
        random.random((N, len(AUS))) < 0.3,
        random.random((N, len(AUS))) < 0.8,
    )
    wrong = random.random(N) < error
    answers = Answers(
        truth.valence_arousal + error * random.normal(size=(N, 2)),
        np.where(wrong, random.integers(0, NUM_CLASSES, N), truth.expression),
        truth.aus ^ (random.random((N, len(AUS))) < error / 3),
    )
    return truth, answers, [f"g{i % 12}" for i in range(N)]


def test_scores_out_of_sums_are_those_of_the_pictures() -> None:
    truth, answers, groups = truth_and_answers()
    sums = group_sums(answers, truth, groups, NUM_CLASSES)
    # All groups once, and the first three of them twice.
    weights = np.ones((2, 12))
    weights[1, :3] = 2
    found = scores_of(sums, weights)
    twice = [i for i in range(N) if groups[i] in ("g0", "g1", "g10")]
    for row, chosen in enumerate((range(N), [*range(N), *twice])):
        rows = list(chosen)
        expected = score(
            Answers(answers.valence_arousal[rows], answers.expression[rows], answers.aus[rows]),
            Truth._make(part[rows] for part in truth),
            NUM_CLASSES,
        )
        assert found["valence_ccc"][row] == pytest.approx(expected.valence, abs=1e-12)
        assert found["expression_f1"][row] == pytest.approx(expected.expression, abs=1e-12)
        assert found["au_f1"][row] == pytest.approx(expected.mean_au, abs=1e-12)
        assert found["p_mtl"][row] == pytest.approx(expected.p_mtl, abs=1e-12)


def test_a_constant_answer_has_a_ccc_of_zero_and_no_label_no_score() -> None:
    truth, answers, groups = truth_and_answers()
    constant = answers._replace(valence_arousal=np.full((N, 2), 0.137))
    hidden = truth._replace(expression_known=np.zeros(N, bool))
    found = scores_of(group_sums(constant, hidden, groups, NUM_CLASSES), np.ones((1, 12)))
    assert found["va_ccc"][0] == 0
    assert np.isnan(found["expression_f1"][0])
    assert np.isnan(found["p_mtl"][0])


def test_intervals_hold_their_score_and_few_groups_have_none() -> None:
    truth, answers, groups = truth_and_answers()
    found = intervals([group_sums(answers, truth, groups, NUM_CLASSES)], seed=1)
    assert all(found[name].low < found[name].value < found[name].high for name in SCORES)
    few = intervals([group_sums(answers, truth, ["a", "b"] * (N // 2), NUM_CLASSES)], seed=1)
    assert few["p_mtl"].value == pytest.approx(found["p_mtl"].value)
    assert np.isnan(few["p_mtl"].low)


def test_a_better_model_differs_by_more_than_chance_and_one_from_itself_by_nothing() -> None:
    truth, answers, groups = truth_and_answers(error=0.1)
    worse = truth_and_answers(error=0.6)[1]
    one, other = (group_sums(said, truth, groups, NUM_CLASSES) for said in (answers, worse))
    found = differences([one], [other], seed=1)
    assert found["expression_f1"].low > 0
    itself = differences([one], [one], seed=1)
    assert itself["p_mtl"] == (0, 0, 0)


def test_a_p_value_counts_the_ways_to_exchange_groups_that_differ_as_much() -> None:
    truth, answers, _ = truth_and_answers(error=0.3)
    random = np.random.default_rng(5)
    other = Answers(
        truth.valence_arousal + 0.3 * random.normal(size=(N, 2)),
        np.where(random.random(N) < 0.28, 0, truth.expression),
        truth.aus ^ (random.random((N, len(AUS))) < 0.08),
    )
    groups = [f"g{i % 7}" for i in range(N)]
    one, two = (group_sums(said, truth, groups, NUM_CLASSES) for said in (answers, other))
    found = p_values([one], [two], seed=1)
    # All 128 ways, with answers in place of sums.
    counts = []
    for way in itertools.product([False, True], repeat=7):
        swapped = np.array([way[i % 7] for i in range(N)])
        mixed = [
            Answers(*(np.where(swapped.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pair))
            for pair in (zip(answers, other, strict=True), zip(other, answers, strict=True))
        ]
        a, b = (score(said, truth, NUM_CLASSES) for said in mixed)
        counts.append([a.p_mtl - b.p_mtl, a.expression - b.expression])
    differences_of_ways = np.abs(np.array(counts))
    for column, name in enumerate(("p_mtl", "expression_f1")):
        values = differences_of_ways[:, column]
        exact = np.mean(values >= values[0] - 1e-9)
        assert 0.05 < exact < 0.95
        assert found[name] == pytest.approx(exact, abs=0.04)
    assert p_values([one, one], [one, one], seed=1)["p_mtl"] == 1


def test_sums_come_back_out_of_their_table() -> None:
    truth, _, groups = truth_and_answers()
    classes = ["neutral", "happy", "au", "right_sad"]
    sums = {
        seed: group_sums(truth_and_answers(error=seed / 9)[1], truth, groups, NUM_CLASSES)
        for seed in (3, 4)
    }
    table = group_table(sums, sorted(set(groups)), classes)
    assert table["group"].tolist() == sorted(set(groups)) * 2
    found = read_group_table(table)
    assert list(found) == [3, 4]
    for seed, one in found.items():
        for part, expected in zip(one, sums[seed], strict=True):
            assert np.array_equal(part, expected)
    with pytest.raises(ValueError, match="no column known_au12"):
        read_group_table(table.drop(columns="known_au12"))
