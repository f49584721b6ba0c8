from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from scipy.special import ndtr
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from pipeline.evaluation.statistics import (
    Counts,
    Interval,
    holm,
    paired_difference,
    subject_confusions,
    subject_intervals,
    why_no_interval,
)
from pipeline.scores.metrics import Labels

CLIPS_PER_CLASS = 6
EASE = np.array([1.4, 0.9, 0.4])  # probit of a class's recall by a subject of average skill
SPREAD = 0.6  # standard deviation of the subjects' skills
# The mean of a probit over normal skills has a closed form; every class has as many clips.
TRUE_RECALL = ndtr(EASE / np.sqrt(1 + SPREAD**2)).mean()


def people(num_subjects: int) -> tuple[Labels, Labels]:
    """Labels and subjects of everybody's clips."""
    labels = np.tile(np.repeat(np.arange(len(EASE)), CLIPS_PER_CLASS), num_subjects)
    return labels, np.repeat(np.arange(num_subjects), CLIPS_PER_CLASS * len(EASE))


def predict(
    random: np.random.Generator,
    labels: Labels,
    subjects: Labels,
    skill: npt.NDArray[np.float64] | float = 0.0,
) -> Labels:
    """Right with a probability that depends on class and subject, else the next class."""
    skills = skill + random.normal(0, SPREAD, subjects.max() + 1)
    right = random.random(len(labels)) < ndtr(EASE[labels] + skills[subjects])
    predicted: Labels = np.where(right, labels, (labels + 1) % len(EASE))
    return predicted


def counts(*subjects: list[list[int]]) -> Counts:
    """Of one training."""
    return np.array([subjects], np.int64)


def one_training(labels: Labels, predicted: Labels, subjects: Labels, num_classes: int) -> Counts:
    return subject_confusions(labels, predicted, subjects, num_classes)[None]


def holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def test_confusions_are_counted_per_subject_in_sorted_order() -> None:
    confusions = subject_confusions(
        np.array([0, 0, 1, 0]), np.array([0, 1, 1, 0]), ["Zoë", "Ann", "Ann", "Zoë"], 2
    )
    assert confusions.tolist() == [[[0, 1], [0, 1]], [[2, 0], [0, 0]]]


def test_eleven_thousand_clips_as_groups_have_the_interval_of_a_binomial_share() -> None:
    # As many as DFEW has, of which seven in ten are right.
    labels = np.repeat(np.arange(7), [2445, 1894, 2669, 2173, 1469, 145, 902])
    right = np.random.default_rng(1).random(len(labels)) < 0.7
    predicted = np.where(right, labels, (labels + 1) % 7)
    confusions = one_training(labels, predicted, np.arange(len(labels)), 7)
    uar, war = subject_intervals(confusions, num_resamples=2000, seed=1)
    assert uar.value == pytest.approx(balanced_accuracy_score(labels, predicted))
    share = right.mean()
    error = np.sqrt(share * (1 - share) / len(labels))
    assert [war.low, war.high] == pytest.approx(
        [share - 1.96 * error, share + 1.96 * error], abs=1e-3
    )
    # Of the variance of UAR the 145 clips of one class make more than half.
    recalls = [right[labels == label] for label in range(7)]
    error = np.sqrt(sum(one.var() / len(one) for one in recalls)) / 7
    assert [uar.low, uar.high] == pytest.approx(
        [uar.value - 1.96 * error, uar.value + 1.96 * error], abs=2e-3
    )


def test_values_are_the_pooled_scores_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    labels, predicted, subjects = random.integers([[6], [6], [12]], size=(3, 300))
    confusions = one_training(labels, predicted, subjects, 7)  # nobody shows class 6
    uar, war = subject_intervals(confusions, num_resamples=99, seed=1)
    assert uar.value == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert war.value == pytest.approx(accuracy_score(labels, predicted))
    assert uar.low < uar.value < uar.high


@pytest.mark.parametrize("num_subjects", [24, 91])
def test_intervals_hold_the_true_value_as_often_as_stated(num_subjects: int) -> None:
    random = np.random.default_rng(num_subjects)
    labels, subjects = people(num_subjects)
    held = []
    for seed in range(400):
        confusions = one_training(labels, predict(random, labels, subjects), subjects, 3)
        uar, war = subject_intervals(confusions, num_resamples=499, seed=seed)
        held.append((holds(uar, TRUE_RECALL), holds(war, TRUE_RECALL)))
    # 400 experiments have a standard error of 1.1 %.
    assert np.all(np.mean(held, axis=0) > 0.92)
    assert np.all(np.mean(held, axis=0) < 0.98)


def test_intervals_over_clips_would_hold_it_far_too_seldom() -> None:
    random = np.random.default_rng(24)
    labels, subjects = people(24)
    held = []
    for seed in range(100):
        predicted = predict(random, labels, subjects)
        every_clip = one_training(labels, predicted, np.arange(len(labels)), 3)
        uar, _ = subject_intervals(every_clip, num_resamples=199, seed=seed)
        held.append(holds(uar, TRUE_RECALL))
    assert np.mean(held) < 0.8


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_of_equal_subjects_agree_with_student(confidence: float) -> None:
    random = np.random.default_rng(1)
    labels, subjects = people(24)
    a, b = predict(random, labels, subjects), predict(random, labels, subjects)
    of_a, of_b = (one_training(labels, x, subjects, 3) for x in (a, b))
    right_a, right_b = ((x == labels).reshape(24, -1).mean(axis=1) for x in (a, b))

    _, war = subject_intervals(of_a, num_resamples=20_000, confidence=confidence, seed=1)
    student = stats.ttest_1samp(right_a, 0).confidence_interval(confidence)
    assert war[1:] == pytest.approx((student.low, student.high), abs=0.006)

    # The bootstrap widens with the difference's own spread, not with that of the two systems.
    comparison = paired_difference(of_a, of_b, num_resamples=20_000, confidence=confidence, seed=1)
    student = stats.ttest_rel(right_a, right_b).confidence_interval(confidence)
    assert comparison.war.value == pytest.approx((right_a - right_b).mean())
    assert comparison.war[1:] == pytest.approx((student.low, student.high), abs=0.008)


def test_a_class_absent_from_a_resample_does_not_count() -> None:
    # Nine show class 0 and are right, one shows class 1 and is wrong: UAR is 1 when that one is not
    # drawn, else 1/2.
    shown = [[[4, 0], [0, 0]]] * 9 + [[[0, 0], [4, 0]]]
    uar, _ = subject_intervals(counts(*shown), num_resamples=999, seed=1)
    assert uar == (0.5, 0.5, 1)


def test_subjects_without_a_difference_have_no_interval_because_it_has_no_width() -> None:
    uar, war = subject_intervals(counts(*[[[3, 1], [0, 1]]] * 20), num_resamples=99, seed=1)
    assert (uar.value, war.value) == pytest.approx((7 / 8, 4 / 5))
    assert np.isnan([uar.low, uar.high, war.low, war.high]).all()
    assert why_no_interval(20) == "no interval: whoever is drawn, the score is the same"


@pytest.mark.parametrize("num_subjects", [1, 9])
def test_few_subjects_have_a_value_but_no_interval(num_subjects: int) -> None:
    few = counts(*[[[3, 1], [0, 1]]] * num_subjects)
    few[0, 0, 0] = [1, 3]
    uar, war = subject_intervals(few, num_resamples=99, seed=1)
    assert uar.value == pytest.approx((1 + 3 / 4 - 1 / 2 / num_subjects) / 2)
    assert np.isnan([uar.low, uar.high, war.low, war.high]).all()
    assert why_no_interval(num_subjects) == (
        f"no interval: it takes 10 subjects, and here are {num_subjects}"
    )


def test_one_subject_shows_no_difference_between_systems() -> None:
    one = counts([[3, 1], [0, 1]])
    comparison = paired_difference(one, counts([[0, 4], [0, 1]]), num_resamples=99, seed=1)
    assert comparison.uar.value == pytest.approx(3 / 8)
    assert np.isnan(comparison.uar[1:]).all()
    assert comparison.uar_p_value == comparison.war_p_value == 1


def test_identical_systems_do_not_differ() -> None:
    labels, subjects = people(24)
    predicted = predict(np.random.default_rng(1), labels, subjects)
    confusions = one_training(labels, predicted, subjects, 3)
    comparison = paired_difference(confusions, confusions, num_resamples=999, seed=1)
    assert comparison.uar.value == comparison.war.value == 0
    assert np.isnan([comparison.uar[1:], comparison.war[1:]]).all()
    assert comparison.uar_p_value == comparison.war_p_value == 1


def test_p_values_of_few_subjects_count_every_swap() -> None:
    # a has 3 and 2 more right clips of the first two subjects, b has 1 more of the third. Of the
    # sums of +-3, +-2, +-1, four (+-4 and +-6) out of eight are at least as large as 4.
    a = counts([[5, 0], [0, 5]], [[4, 1], [0, 5]], [[2, 3], [0, 5]])
    b = counts([[2, 3], [0, 5]], [[2, 3], [0, 5]], [[3, 2], [0, 5]])
    comparison = paired_difference(a, b, num_resamples=8, seed=1)
    assert comparison.war.value == pytest.approx(4 / 30)
    assert comparison.uar.value == pytest.approx(4 / 15 / 2)
    assert comparison.war_p_value == comparison.uar_p_value == 4 / 8


def test_p_values_agree_with_swapping_the_predictions() -> None:
    random = np.random.default_rng(4)
    labels, a, b, subjects = random.integers([[4], [4], [4], [6]], size=(4, 60))
    a = np.where(random.random(60) < 0.3, labels, a)
    found = paired_difference(
        one_training(labels, a, subjects, 4),
        one_training(labels, b, subjects, 4),
        num_resamples=100,
        seed=1,
    )
    for score, p_value in (
        (balanced_accuracy_score, found.uar_p_value),
        (accuracy_score, found.war_p_value),
    ):
        differences = []
        for swapped in product([False, True], repeat=6):
            swap = np.array(swapped)[subjects]
            differences.append(
                score(labels, np.where(swap, b, a)) - score(labels, np.where(swap, a, b))
            )
        as_large = np.abs(differences) >= abs(differences[0]) - 1e-9
        assert p_value == as_large.mean()


def test_p_values_are_uniform_where_the_systems_are_equally_good() -> None:
    random = np.random.default_rng(1)
    labels, subjects = people(24)
    p_values = []
    for seed in range(300):
        a, b = (
            one_training(labels, predict(random, labels, subjects), subjects, 3) for _ in range(2)
        )
        p_values.append(paired_difference(a, b, num_resamples=199, seed=seed)[2:])
    for column in np.transpose(p_values):
        assert stats.kstest(column, "uniform").pvalue > 0.01
        assert 0.02 < (column <= 0.05).mean() < 0.08


def test_a_better_system_is_found_out() -> None:
    random = np.random.default_rng(1)
    labels, subjects = people(24)
    shared = random.normal(0, SPREAD, 24)
    a = one_training(labels, predict(random, labels, subjects, shared + 1), subjects, 3)
    b = one_training(labels, predict(random, labels, subjects, shared), subjects, 3)
    comparison = paired_difference(a, b, num_resamples=999, seed=1)
    assert comparison.uar.low > 0
    assert comparison.war.low > 0
    assert comparison.uar_p_value < 0.01
    # The other way round it is the same difference with the opposite sign.
    other = paired_difference(b, a, num_resamples=999, seed=1)
    assert other.uar.value == pytest.approx(-comparison.uar.value)
    assert other.uar_p_value == comparison.uar_p_value


def test_no_p_value_of_random_swaps_is_zero() -> None:
    right, wrong = counts(*[[[2, 0], [0, 2]]] * 40), counts(*[[[0, 2], [2, 0]]] * 40)
    comparison = paired_difference(right, wrong, num_resamples=199, seed=1)
    assert comparison.uar.value == 1
    assert comparison.uar_p_value == comparison.war_p_value == pytest.approx(1 / 200)


def test_the_same_seed_gives_the_same_numbers() -> None:
    random = np.random.default_rng(1)
    labels, subjects = people(24)
    a, b = (one_training(labels, predict(random, labels, subjects), subjects, 3) for _ in range(2))
    first, again, other = (paired_difference(a, b, num_resamples=99, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first.uar.low != other.uar.low


def test_several_trainings_count_as_their_mean_and_share_the_subjects_drawn() -> None:
    random = np.random.default_rng(1)
    labels, subjects = people(24)
    one, other = (
        one_training(labels, predict(random, labels, subjects), subjects, 3) for _ in range(2)
    )
    both = np.concatenate([one, other])
    found = subject_intervals(both, num_resamples=999, seed=1)
    alone = [subject_intervals(x, num_resamples=999, seed=1) for x in (one, other)]
    for i in range(2):
        assert found[i].value == pytest.approx((alone[0][i].value + alone[1][i].value) / 2)
    # The same training twice knows no more than once.
    twice = subject_intervals(np.concatenate([one, one]), num_resamples=999, seed=1)
    for i in range(2):
        assert twice[i] == pytest.approx(alone[0][i])


def test_a_difference_of_several_trainings_swaps_all_of_them_for_a_subject() -> None:
    random = np.random.default_rng(4)
    labels, subjects = random.integers([[4], [6]], size=(2, 60))
    a, b = random.integers(4, size=(2, 60)), random.integers(4, size=(3, 60))
    a = np.where(random.random((2, 60)) < 0.2, labels, a)
    confusions = [
        np.concatenate([one_training(labels, x, subjects, 4) for x in trainings])
        for trainings in (a, b)
    ]
    found = paired_difference(*confusions, num_resamples=100, seed=1)

    def uar(trainings: list[Labels]) -> float:
        return float(np.mean([balanced_accuracy_score(labels, x) for x in trainings]))

    assert found.uar.value == pytest.approx(uar(list(a)) - uar(list(b)))
    # Swapping a subject moves the mean over two trainings there and that over three here.
    share = [np.mean([x == labels for x in trainings], axis=0) for trainings in (a, b)]
    classes = [labels == label for label in range(4)]

    def difference(swap: npt.NDArray[np.bool_]) -> float:
        gain = np.where(swap[subjects], share[1] - share[0], share[0] - share[1])
        return float(np.mean([gain[of_class].mean() for of_class in classes]))

    swaps = [np.array(swapped) for swapped in product([False, True], repeat=6)]
    sizes = np.abs([difference(swap) for swap in swaps])
    assert found.uar_p_value == (sizes >= sizes[0] - 1e-9).mean()


def test_systems_tested_on_other_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="same clips"):
        paired_difference(
            counts([[2, 1], [0, 1]]), counts([[2, 0], [1, 1]]), num_resamples=9, seed=1
        )


def test_holm_agrees_with_a_hand_computed_example() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; none may fall.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
