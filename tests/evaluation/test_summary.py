import json
from statistics import mean, stdev

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.summary import FoldScore, Scores, score_experiment, training_confusions

CLASSES = ["angry", "sad"]


@pytest.fixture
def trainings(with_best_epochs: pd.DataFrame) -> list[pd.DataFrame]:
    """Two of the same clips in other folds and another order; the second errs in one clip, z1.

    First: UAR 5/6 and 1/2 in its folds, 3/4 pooled; WAR 3/4 and 1/2, 4/6 pooled. Second: its fold 1
    has Zoë's clips, with recalls 1 and 0, its fold 2 has the four others, all right. Pooled, it has
    recalls 1 and 1/2, and 5 of 6 clips.
    """
    second = with_best_epochs.assign(
        fold=[2, 2, 2, 2, 1, 1],
        predicted=["angry", "angry", "angry", "sad", "angry", "angry"],
        predicted_optimistic=with_best_epochs["actual"],
        box_iou=[0.9, 0.9, 0.9, np.nan, 0.9, 0.9],
        landmark_error=[0.5, 0.6, 1.9, np.nan, 0.5, 0.5],
        interocular_error=0.1,
        probability_angry=[1.0, 1, 1, 0, 1, 1],
        probability_sad=[0.0, 0, 0, 1, 0, 0],
    )
    return [with_best_epochs, second.iloc[::-1]]


def test_mean_over_folds_and_pooled_value_are_different_things(predictions: pd.DataFrame) -> None:
    # Pooled, half of the angry clips and all of the sad ones are right: four of six.
    summary = score_experiment([predictions], CLASSES).nested()
    assert summary == {
        "uar": {"mean": 0.666667, "std": round((5 / 6 - 1 / 2) / 2**0.5, 6), "pooled": 0.75},
        "war": {"mean": 0.625, "std": round(0.25 / 2**0.5, 6), "pooled": 0.666667},
        # Precision 1 and recall 1/2 for angry, the other way round for sad.
        "macro_f1": 0.666667,
        # 3/4 sure, and right in 4 of 6.
        "calibration_error": 0.083333,
        "box_iou": 0.7,
        "landmark_error": 0.2,
        "landmark_error_median": 0.2,
        "interocular_error": 0.5,
        "folds": 2,
        "clips": 6,
        "subjects": 3,
        "seeds": 1,
    }


def test_one_bad_clip_moves_the_mean_landmark_error_and_not_the_median(
    predictions: pd.DataFrame,
) -> None:
    worse = predictions.assign(landmark_error=[0.1, 0.2, 0.3, np.nan, 0.1, 9.3])
    scores = score_experiment([worse], CLASSES)
    assert scores.landmark_error == pytest.approx(2)
    assert scores.landmark_error_median == pytest.approx(0.2)


def test_a_single_fold_has_no_standard_deviation(predictions: pd.DataFrame) -> None:
    first = predictions[predictions["fold"] == 1]
    assert "std" not in score_experiment([first], CLASSES).nested()["uar"]


def test_few_subjects_have_no_interval(predictions: pd.DataFrame) -> None:
    ann = predictions[predictions["subject"] == "Ann"]
    assert score_experiment([ann], CLASSES).nested()["uar"] == {"mean": 1, "pooled": 1}


def test_enough_subjects_have_an_interval(predictions: pd.DataFrame) -> None:
    many = pd.concat(
        predictions.assign(**{name: predictions[name] + str(i) for name in ("subject", "clip")})
        for i in range(4)
    )
    uar = score_experiment([many], CLASSES).nested()["uar"]
    assert 0.5 < uar["pooled_low"] < uar["pooled"] == 0.75 < uar["pooled_high"] < 1


def test_a_structure_without_boxes_has_no_scores_for_them(without_boxes: pd.DataFrame) -> None:
    summary = score_experiment([without_boxes], CLASSES).nested()
    assert not {name for name in summary if name.startswith(("box", "landmark", "interocular"))}
    assert summary["uar"]["pooled"] == 0.75


def test_a_system_without_probabilities_has_no_calibration_error(
    predictions: pd.DataFrame,
) -> None:
    some = predictions.drop(columns="probability_sad")
    summary = score_experiment([some], CLASSES).nested()
    assert "calibration_error" not in summary
    assert summary["macro_f1"] == 0.666667


def test_scores_of_several_trainings_are_means_with_the_deviation_between_them(
    trainings: list[pd.DataFrame],
) -> None:
    scores = score_experiment(trainings, CLASSES)
    # Over four folds: those of the first training, then those of the second.
    uars, wars = [5 / 6, 1 / 2, 1 / 2, 1], [3 / 4, 1 / 2, 1 / 2, 1]
    assert scores.uar.mean == pytest.approx(mean(uars))
    assert scores.uar.std == pytest.approx(stdev(uars))
    assert scores.war.mean == pytest.approx(mean(wars))
    assert scores.war.std == pytest.approx(stdev(wars))
    # 3/4 and 3/4, 4/6 and 5/6: n - 1 makes the deviation of two their difference over sqrt(2).
    assert scores.uar.pooled == pytest.approx(3 / 4)
    assert scores.uar.seed_std == pytest.approx(0)
    assert scores.war.pooled == pytest.approx(3 / 4)
    assert scores.war.seed_std == pytest.approx(1 / 6 / 2**0.5)
    # F1 of both classes 2/3; then 8/9 and 2/3.
    assert scores.macro_f1 == pytest.approx((2 / 3 + 7 / 9) / 2)
    # 3/4 sure where 2/3 are right; surely, where 5/6 are.
    assert scores.calibration_error == pytest.approx((1 / 12 + 1 / 6) / 2)
    assert scores.box_iou == pytest.approx((0.7 + 0.9) / 2)
    assert scores.landmark_error == pytest.approx((0.2 + 0.8) / 2)
    assert scores.landmark_error_median == pytest.approx((0.2 + 0.5) / 2)
    assert scores.interocular_error == pytest.approx((0.5 + 0.1) / 2)
    assert (scores.folds, scores.clips, scores.subjects, scores.seeds) == (2, 6, 3, 2)


def test_one_training_has_no_deviation_between_seeds(predictions: pd.DataFrame) -> None:
    scores = score_experiment([predictions], CLASSES)
    assert np.isnan([scores.uar.seed_std, scores.war.seed_std]).all()


def test_the_best_epochs_on_test_have_scores_of_their_own(
    with_best_epochs: pd.DataFrame,
) -> None:
    scores = score_experiment([with_best_epochs], CLASSES)
    # Folds 1 and 1/2 in both; pooled, recalls 1 and 1/2, and five of six clips.
    std = 1 / 2 / 2**0.5
    assert scores.uar_optimistic[:3] == pytest.approx((3 / 4, std, 3 / 4))
    assert scores.war_optimistic[:3] == pytest.approx((3 / 4, std, 5 / 6))
    # It is no result: neither an interval, nor a change of the other scores.
    assert np.isnan(scores.uar_optimistic[3:]).all()
    plain = score_experiment([with_best_epochs.drop(columns="predicted_optimistic")], CLASSES)
    assert scores.uar == pytest.approx(plain.uar, nan_ok=True)
    assert set(scores.nested()) - set(plain.nested()) == {"uar_optimistic", "war_optimistic"}


def test_the_best_epochs_on_test_are_averaged_over_trainings(
    trainings: list[pd.DataFrame],
) -> None:
    scores = score_experiment(trainings, CLASSES)
    # The second training is right of all.
    assert scores.uar_optimistic.mean == pytest.approx((1 + 1 / 2 + 1 + 1) / 4)
    assert scores.uar_optimistic.std == pytest.approx(stdev([1, 1 / 2, 1, 1]))
    assert scores.uar_optimistic.pooled == pytest.approx((3 / 4 + 1) / 2)
    assert scores.war_optimistic.pooled == pytest.approx((5 / 6 + 1) / 2)
    assert scores.war_optimistic.seed_std == pytest.approx(1 / 6 / 2**0.5)


def test_where_one_training_lacks_the_best_epochs_on_test_there_is_no_score_of_them(
    trainings: list[pd.DataFrame],
) -> None:
    for i in (0, 1):
        some = [*trainings]
        some[i] = some[i].drop(columns="predicted_optimistic")
        scores = score_experiment(some, CLASSES)
        assert np.isnan([*scores.uar_optimistic, *scores.war_optimistic]).all()
        assert scores.war.pooled == pytest.approx(3 / 4)


def test_trainings_on_other_clips_are_refused(predictions: pd.DataFrame) -> None:
    renamed = predictions.assign(clip=[*predictions["clip"][:-1], "other"])
    for unlike in (predictions.iloc[1:], renamed):
        with pytest.raises(ValueError, match="seeds were not tested on the same clips"):
            score_experiment([predictions, unlike], CLASSES)


def test_confusions_of_trainings_are_by_subject_whatever_the_order_of_the_clips(
    trainings: list[pd.DataFrame],
) -> None:
    ann, zoe = [[2, 0], [0, 0]], [[1, 0], [1, 0]]
    assert training_confusions(trainings, CLASSES).tolist() == [
        [ann, [[0, 1], [0, 1]], [[0, 1], [0, 1]]],
        [ann, [[1, 0], [0, 1]], zoe],
    ]


def test_a_summary_is_json(predictions: pd.DataFrame) -> None:
    summary = score_experiment([predictions], CLASSES).nested()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


NAN = float("nan")
SCORES = Scores(
    uar=FoldScore(mean=1.23456789, pooled=0.5, pooled_high=float("inf")),
    war=FoldScore(
        mean=0.1, std=0.2, pooled=0.3, pooled_low=0.4, pooled_high=0.5, seed_std=0.6000001
    ),
    uar_optimistic=FoldScore(),
    war_optimistic=FoldScore(mean=0.7),
    macro_f1=0.25,
    calibration_error=float("inf"),
    box_iou=NAN,
    landmark_error=0.12345678,
    landmark_error_median=0.11,
    interocular_error=NAN,
    folds=1,
    clips=2,
    subjects=3,
    seeds=4,
)


def test_numbers_that_are_not_finite_are_left_out_at_every_depth() -> None:
    assert SCORES.nested() == {
        "uar": {"mean": 1.234568, "pooled": 0.5},
        "war": {
            "mean": 0.1,
            "std": 0.2,
            "pooled": 0.3,
            "pooled_low": 0.4,
            "pooled_high": 0.5,
            "seed_std": 0.6,
        },
        "war_optimistic": {"mean": 0.7},
        "macro_f1": 0.25,
        "landmark_error": 0.123457,
        "landmark_error_median": 0.11,
        "folds": 1,
        "clips": 2,
        "subjects": 3,
        "seeds": 4,
    }


def test_flat_scores_have_a_name_each_and_are_all_there_as_they_are() -> None:
    assert SCORES.flat() == pytest.approx(
        {
            "uar_mean": 1.23456789,
            "uar_std": NAN,
            "uar_pooled": 0.5,
            "uar_pooled_low": NAN,
            "uar_pooled_high": float("inf"),
            "uar_seed_std": NAN,
            "war_mean": 0.1,
            "war_std": 0.2,
            "war_pooled": 0.3,
            "war_pooled_low": 0.4,
            "war_pooled_high": 0.5,
            "war_seed_std": 0.6000001,
            **{f"uar_optimistic_{name}": NAN for name in FoldScore._fields},
            **{f"war_optimistic_{name}": NAN for name in FoldScore._fields},
            "war_optimistic_mean": 0.7,
            "macro_f1": 0.25,
            "calibration_error": float("inf"),
            "box_iou": NAN,
            "landmark_error": 0.12345678,
            "landmark_error_median": 0.11,
            "interocular_error": NAN,
            "folds": 1,
            "clips": 2,
            "subjects": 3,
            "seeds": 4,
        },
        rel=0,
        abs=0,
        nan_ok=True,
    )
