import json

import numpy as np
import pandas as pd
import pytest
from small import baselines

from pipeline.evaluation.comparison import compare_with_baselines
from pipeline.evaluation.page import markdown
from pipeline.evaluation.summary import (
    FoldScore,
    Scores,
    confusion_table,
    fold_table,
    per_class_table,
    score,
    score_experiment,
    subject_table,
)
from pipeline.mtcae.structures import Structure

CLASSES = ["angry", "sad"]


@pytest.fixture
def predictions() -> pd.DataFrame:
    """Fold 1: recalls 2/3 and 1, accuracy 3/4. Fold 2: recalls 0 and 1, accuracy 1/2.

    Every answer is given with a probability of 0.75.
    """
    return pd.DataFrame(
        {
            "fold": [1, 1, 1, 1, 2, 2],
            "clip": ["a0", "a1", "b0", "b1", "z0", "z1"],
            "subject": ["Ann", "Ann", "Bob", "Bob", "Zoë", "Zoë"],
            "actual": ["angry", "angry", "angry", "sad", "angry", "sad"],
            "predicted": ["angry", "angry", "sad", "sad", "sad", "sad"],
            "box_iou": [0.5, 0.6, 0.7, np.nan, 0.8, 0.9],
            "landmark_error": [0.1, 0.2, 0.3, np.nan, 0.1, 0.3],
            "probability_angry": [0.75, 0.75, 0.25, 0.25, 0.25, 0.25],
            "probability_sad": [0.25, 0.25, 0.75, 0.75, 0.75, 0.75],
        }
    )


@pytest.fixture
def without_boxes(predictions: pd.DataFrame) -> pd.DataFrame:
    """What stl predicts."""
    return predictions.assign(box_iou=np.nan, landmark_error=np.nan)


def page(predictions: pd.DataFrame, classes: list[str] = CLASSES) -> list[str]:
    text = markdown(
        "A title",
        predictions,
        classes,
        score_experiment(predictions, classes),
        compare_with_baselines(
            Structure("stl", "vit"), predictions, baselines(predictions, classes), classes
        ),
    )
    return text.splitlines()


def cells(lines: list[str], first: str) -> list[str]:
    """The cells of the table row that begins with `first`."""
    (row,) = [line for line in lines if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_score_counts_classes_by_the_order_of_the_list(predictions: pd.DataFrame) -> None:
    assert score(predictions, CLASSES).per_class == [0.5, 1]
    assert score(predictions, CLASSES[::-1]).per_class == [1, 0.5]


def test_every_fold_has_its_row(predictions: pd.DataFrame) -> None:
    table = fold_table(predictions, CLASSES)
    assert table["fold"].tolist() == [1, 2]
    assert table["clips"].tolist() == [4, 2]
    assert table["subjects"].tolist() == [2, 1]
    assert table["uar"].tolist() == pytest.approx([5 / 6, 1 / 2])
    assert table["war"].tolist() == pytest.approx([3 / 4, 1 / 2])
    assert table["box_iou"].tolist() == pytest.approx([0.6, 0.85])
    assert table["landmark_error"].tolist() == pytest.approx([0.2, 0.2])


def test_mean_over_folds_and_pooled_value_are_different_things(predictions: pd.DataFrame) -> None:
    # Pooled, half of the angry clips and all of the sad ones are right: four of six.
    summary = score_experiment(predictions, CLASSES).nested()
    assert summary == {
        "uar": {"mean": 0.666667, "std": round((5 / 6 - 1 / 2) / 2**0.5, 6), "pooled": 0.75},
        "war": {"mean": 0.625, "std": round(0.25 / 2**0.5, 6), "pooled": 0.666667},
        # Precision 1 and recall 1/2 for angry, the other way round for sad.
        "macro_f1": 0.666667,
        # 3/4 sure, and right in 4 of 6.
        "calibration_error": 0.083333,
        "box_iou": 0.7,
        "landmark_error": 0.2,
        "folds": 2,
        "clips": 6,
    }


def test_a_single_fold_has_no_standard_deviation(predictions: pd.DataFrame) -> None:
    first = predictions[predictions["fold"] == 1]
    assert "std" not in score_experiment(first, CLASSES).nested()["uar"]
    assert cells(page(first), "std")[3:5] == ["-", "-"]


def test_few_subjects_have_no_interval_and_the_page_says_why(predictions: pd.DataFrame) -> None:
    ann = predictions[predictions["subject"] == "Ann"]
    assert score_experiment(ann, CLASSES).nested()["uar"] == {"mean": 1, "pooled": 1}
    assert cells(page(ann), "pooled, 95 % from")[3:5] == ["-", "-"]
    assert "No interval: it takes 10 subjects, and here are 1." in page(ann)


def test_enough_subjects_have_an_interval(predictions: pd.DataFrame) -> None:
    many = pd.concat(
        predictions.assign(**{name: predictions[name] + str(i) for name in ("subject", "clip")})
        for i in range(4)
    )
    uar = score_experiment(many, CLASSES).nested()["uar"]
    assert 0.5 < uar["low"] < uar["pooled"] == 0.75 < uar["high"] < 1
    assert not [line for line in page(many) if "No interval" in line]


def test_classes_without_a_clip_are_named_on_the_page(predictions: pd.DataFrame) -> None:
    more = predictions.assign(probability_fear=0.0, probability_happy=0.0)
    lines = page(more, [*CLASSES, "fear", "happy"])
    assert (
        "No clip of fear, happy was tested: UAR is over the 2 other classes, and chance is that of "
        "these." in lines
    )
    assert cells(lines, "chance")[1] == "50.00%"


def test_the_page_shows_what_needs_no_network(predictions: pd.DataFrame) -> None:
    lines = page(predictions)
    assert cells(lines, "linear model")[1:] == ["100.00%", "100.00%"]
    assert cells(lines, "majority class")[1:] == ["50.00%", "66.67%"]
    assert [line for line in lines if line.startswith("**stl does not beat the linear model**")]


def test_subjects_are_listed_from_the_worst_to_the_best(predictions: pd.DataFrame) -> None:
    table = subject_table(predictions, CLASSES)
    assert table["subject"].tolist() == ["Bob", "Zoë", "Ann"]
    assert table["fold"].tolist() == [1, 2, 1]
    assert table["clips"].tolist() == [2, 2, 2]
    assert table["uar"].tolist() == [0.5, 0.5, 1]


def test_a_structure_without_boxes_has_no_scores_for_them(without_boxes: pd.DataFrame) -> None:
    summary = score_experiment(without_boxes, CLASSES).nested()
    assert "box_iou" not in summary
    assert "landmark_error" not in summary
    assert summary["uar"]["pooled"] == 0.75
    assert cells(page(without_boxes), "1") == ["1", "4", "2", "83.33%", "75.00%", "-", "-"]


def test_a_summary_is_json(predictions: pd.DataFrame) -> None:
    summary = score_experiment(predictions, CLASSES).nested()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


NAN = float("nan")
SCORES = Scores(
    uar=FoldScore(mean=1.23456789, std=NAN, pooled=0.5, low=NAN, high=float("inf")),
    war=FoldScore(mean=0.1, std=0.2, pooled=0.3, low=0.4, high=0.5),
    macro_f1=0.25,
    calibration_error=float("inf"),
    box_iou=NAN,
    landmark_error=0.12345678,
    folds=1,
    clips=2,
)


def test_numbers_that_are_not_finite_are_left_out_at_every_depth() -> None:
    assert SCORES.nested() == {
        "uar": {"mean": 1.234568, "pooled": 0.5},
        "war": {"mean": 0.1, "std": 0.2, "pooled": 0.3, "low": 0.4, "high": 0.5},
        "macro_f1": 0.25,
        "landmark_error": 0.123457,
        "folds": 1,
        "clips": 2,
    }


def test_flat_scores_have_a_name_each_and_are_all_there_as_they_are() -> None:
    assert SCORES.flat() == pytest.approx(
        {
            "uar_mean": 1.23456789,
            "uar_std": NAN,
            "uar_pooled": 0.5,
            "uar_low": NAN,
            "uar_high": float("inf"),
            "war_mean": 0.1,
            "war_std": 0.2,
            "war_pooled": 0.3,
            "war_low": 0.4,
            "war_high": 0.5,
            "macro_f1": 0.25,
            "calibration_error": float("inf"),
            "box_iou": NAN,
            "landmark_error": 0.12345678,
            "folds": 1,
            "clips": 2,
        },
        rel=0,
        abs=0,
        nan_ok=True,
    )


def test_recall_per_class_is_over_all_folds(predictions: pd.DataFrame) -> None:
    assert per_class_table(predictions, CLASSES).to_dict("list") == {
        "class": CLASSES,
        "clips": [4, 2],
        "recall": [0.5, 1.0],
    }


def test_confusion_counts_all_folds_with_true_classes_as_rows(predictions: pd.DataFrame) -> None:
    table = confusion_table(predictions, CLASSES)
    assert table.loc["angry"].to_dict() == {"angry": 2, "sad": 2}
    assert table.loc["sad"].to_dict() == {"angry": 0, "sad": 2}


def test_the_page_has_a_row_for_each_fold_and_percentages(predictions: pd.DataFrame) -> None:
    lines = page(predictions)
    assert lines[0] == "# A title"
    assert cells(lines, "1") == ["1", "4", "2", "83.33%", "75.00%", "0.600", "0.200"]
    assert cells(lines, "2") == ["2", "2", "1", "50.00%", "50.00%", "0.850", "0.200"]
    assert cells(lines, "mean")[3:5] == ["66.67%", "62.50%"]
    assert cells(lines, "std")[3:5] == ["23.57%", "17.68%"]
    assert cells(lines, "pooled")[3:5] == ["75.00%", "66.67%"]
    assert "| angry | 4 | 50.00% |" in lines
    assert "| angry | 2 (50%) | 2 (50%) |" in lines
    assert "Macro-F1 66.67%, expected calibration error 8.33%." in lines


def test_every_row_of_a_table_has_as_many_cells_as_its_head(predictions: pd.DataFrame) -> None:
    widths = [line.count("|") for line in page(predictions) if line.startswith("|")]
    assert widths == [8] * 9 + [4] * 6 + [4] * 4 + [4] * 4
