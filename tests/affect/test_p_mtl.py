from math import isnan

import numpy as np
import pytest
from sklearn.metrics import f1_score

from pipeline.affect.metrics import (
    Answers,
    Numbers,
    Truth,
    au_f1,
    class_f1,
    concordance,
    constant_answers,
    prevalence,
    score,
)

C, U = 8, 12


def random_truth(num_images: int, seed: int = 0) -> Truth:
    random = np.random.default_rng(seed)
    return Truth(
        random.uniform(-1, 1, (num_images, 2)),
        random.random((num_images, 2)) < 0.7,
        random.integers(0, C, num_images),
        random.random(num_images) < 0.7,
        random.random((num_images, U)) < 0.3,
        random.random((num_images, U)) < 0.7,
    )


def random_answers(num_images: int, seed: int = 1) -> Answers:
    other = random_truth(num_images, seed)
    return Answers(other.valence_arousal, other.expression, other.aus)


def numbers(size: int = 50) -> Numbers:
    return np.random.default_rng(3).normal(0.2, 0.4, size)


def test_numbers_agree_with_themselves_and_centred_ones_disagree_with_their_negatives() -> None:
    y = numbers()
    assert concordance(y, y) == pytest.approx(1, abs=1e-12)
    centred = y - y.mean()
    assert concordance(-centred, centred) == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [(2.0, 0.0), (0.5, 0.3), (-1.5, 1.0)])
def test_the_ccc_of_a_straight_line_is_that_of_the_closed_form(a: float, b: float) -> None:
    x = numbers()
    y = a * x + b
    variance = np.mean(x**2) - np.mean(x) ** 2  # of the population: divided by N, not by N - 1
    apart = (np.mean(x) - np.mean(y)) ** 2
    expected = 2 * a * variance / (variance * (1 + a * a) + apart)
    assert concordance(x, y) == pytest.approx(expected, rel=1e-12)


def test_the_ccc_is_computed_in_double_precision() -> None:
    """In float32 a mean of 1000 leaves nothing of a deviation of a thousandth."""
    y = (1000 + 1e-3 * numbers()).astype(np.float64)
    assert concordance(y + 1e-9, y) == pytest.approx(1, abs=1e-6)


def test_a_constant_scores_nothing_and_no_image_is_no_score() -> None:
    y = numbers()
    assert concordance(np.full(50, 0.3), y) == pytest.approx(0, abs=1e-12)
    # The mean of 49 times 0.1 is not 0.1: what is left of the variance must not count.
    assert concordance(np.full(49, 0.1), np.full(49, 0.1)) == 0
    assert concordance(y, np.full(50, 0.1)) == 0
    assert isnan(concordance(np.empty(0), np.empty(0)))


def test_macro_f1_is_over_the_named_list_and_not_over_the_classes_present() -> None:
    labels = np.array([0, 0, 1, 1])
    predicted = np.array([0, 1, 1, 1])
    # Class 0: precision 1, recall 1/2; class 1: precision 2/3, recall 1; class 2 does not occur.
    per_class = class_f1(labels, predicted, num_classes=3)
    assert per_class == pytest.approx([2 / 3, 4 / 5, 0])
    over_present = f1_score(labels, predicted, average="macro")
    assert np.mean(per_class) == pytest.approx((2 / 3 + 4 / 5) / 3)
    assert over_present == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_au_f1_counts_each_unit_where_that_unit_is_known() -> None:
    truth, answers = random_truth(200), random_answers(200)
    found = au_f1(truth.aus, answers.aus, truth.aus_known)
    for i in range(U):
        known = truth.aus_known[:, i]
        expected = f1_score(truth.aus[known, i], answers.aus[known, i])
        assert found[i] == pytest.approx(expected, rel=1e-12)


def test_a_unit_without_positives_scores_0_and_one_that_is_never_known_is_left_out() -> None:
    aus = np.array([[True, False], [True, True]])
    known = np.array([[True, False], [True, False]])
    first, second = au_f1(aus, np.ones_like(aus), known)
    assert first == 1
    assert isnan(second)
    assert au_f1(~aus, np.zeros_like(aus), known)[0] == 0
    truth = random_truth(4)._replace(aus=aus.repeat(2, axis=0), aus_known=known.repeat(2, axis=0))
    answers = random_answers(4)._replace(aus=np.ones((4, 2), np.bool_))
    assert score(answers, truth, C).mean_au == 1


def test_the_au_score_does_not_look_at_the_mask_of_valence_and_arousal() -> None:
    truth, answers = random_truth(60), random_answers(60)
    nowhere = truth._replace(valence_arousal_known=np.zeros((60, 2), np.bool_))
    assert score(answers, nowhere, C).aus == score(answers, truth, C).aus


def test_what_is_not_known_changes_no_score() -> None:
    truth, answers = random_truth(60), random_answers(60)
    other = truth._replace(
        valence_arousal=np.where(truth.valence_arousal_known, truth.valence_arousal, np.nan),
        expression=np.where(truth.expression_known, truth.expression, -1),
        aus=truth.aus ^ ~truth.aus_known,
    )
    assert score(answers, other, C) == score(answers, truth, C)


def test_p_mtl_is_the_sum_of_a_mean_ccc_a_macro_f1_and_a_mean_f1() -> None:
    truth, answers = random_truth(300), random_answers(300)
    found = score(answers, truth, C)
    v, a = truth.valence_arousal_known.T
    ccc = [
        concordance(answers.valence_arousal[v, 0], truth.valence_arousal[v, 0]),
        concordance(answers.valence_arousal[a, 1], truth.valence_arousal[a, 1]),
    ]
    known = truth.expression_known
    macro = f1_score(
        truth.expression[known],
        answers.expression[known],
        labels=range(C),
        average="macro",
        zero_division=0,
    )
    units = np.mean(au_f1(truth.aus, answers.aus, truth.aus_known))
    assert found.p_mtl == pytest.approx(np.mean(ccc) + macro + units, rel=1e-12)
    perfect = Answers(truth.valence_arousal, truth.expression, truth.aus)
    assert score(perfect, truth, C).p_mtl == pytest.approx(3)


def test_a_constant_predictor_scores_what_prevalence_says() -> None:
    truth = random_truth(500)
    found = score(constant_answers(truth, 500, C), truth, C)
    share = prevalence(truth, C)
    assert found.valence_arousal == pytest.approx(0, abs=1e-12)
    largest = max(share.classes)
    assert found.expression == pytest.approx(2 * largest / (1 + largest) / C)
    assert found.aus == pytest.approx([2 * p / (1 + p) for p in share.aus])
    assert sum(share.classes) == pytest.approx(1)
    named = truth.expression[truth.expression_known]
    assert share.classes[0] == np.mean(named == 0)
    assert share.aus[2] == np.mean(truth.aus[truth.aus_known[:, 2], 2])
