import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.tables import (
    OPTIMISTIC,
    class_indices,
    confusion_table,
    fold_table,
    per_class_table,
    score,
    subject_table,
)

CLASSES = ["angry", "sad"]


def test_a_score_counts_classes_by_the_order_of_the_list(predictions: pd.DataFrame) -> None:
    assert score(predictions, CLASSES).per_class == [0.5, 1]
    assert score(predictions, CLASSES[::-1]).per_class == [1, 0.5]


def test_a_score_of_the_best_epochs_on_test_is_of_their_answers(
    with_best_epochs: pd.DataFrame,
) -> None:
    assert score(with_best_epochs, CLASSES, OPTIMISTIC).per_class == [1, 0.5]


def test_every_fold_has_its_row(predictions: pd.DataFrame) -> None:
    table = fold_table(predictions, CLASSES)
    assert table["fold"].tolist() == [1, 2]
    assert table["clips"].tolist() == [4, 2]
    assert table["subjects"].tolist() == [2, 1]
    assert table["uar"].tolist() == pytest.approx([5 / 6, 1 / 2])
    assert table["war"].tolist() == pytest.approx([3 / 4, 1 / 2])
    assert table["box_iou"].tolist() == pytest.approx([0.6, 0.85])
    assert table["landmark_error"].tolist() == pytest.approx([0.2, 0.2])
    assert table["interocular_error"].tolist() == pytest.approx([0.4, 0.8])
    assert "uar_optimistic" not in table


def test_one_bad_clip_moves_the_mean_error_of_its_fold_and_not_the_median(
    predictions: pd.DataFrame,
) -> None:
    table = fold_table(predictions.assign(landmark_error=[0.1, 0.2, 9, np.nan, 0.1, 0.3]), CLASSES)
    assert table["landmark_error"].tolist() == pytest.approx([3.1, 0.2])
    assert table["landmark_error_median"].tolist() == pytest.approx([0.2, 0.2])


def test_a_fold_has_the_scores_of_its_best_epoch_on_test_where_there_is_one(
    with_best_epochs: pd.DataFrame,
) -> None:
    table = fold_table(with_best_epochs, CLASSES)
    assert table["uar_optimistic"].tolist() == [1, 0.5]
    assert table["war_optimistic"].tolist() == [1, 0.5]
    assert table["uar"].tolist() == pytest.approx([5 / 6, 1 / 2])


def test_subjects_are_listed_from_the_worst_to_the_best(predictions: pd.DataFrame) -> None:
    table = subject_table(predictions, CLASSES)
    assert table["subject"].tolist() == ["Bob", "Zoë", "Ann"]
    assert table["fold"].tolist() == [1, 2, 1]
    assert table["clips"].tolist() == [2, 2, 2]
    assert table["uar"].tolist() == [0.5, 0.5, 1]


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


def test_a_class_has_the_number_of_its_place_in_the_list(predictions: pd.DataFrame) -> None:
    assert class_indices(predictions["actual"], CLASSES[::-1]).tolist() == [1, 1, 1, 0, 1, 0]
