from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small import baselines

from pipeline.evaluation.comparison import System, beside_linear, compare
from pipeline.evaluation.others import read_other
from pipeline.evaluation.summary import score_experiment

CLASSES = ["angry", "sad"]
PROBABILITIES = ["probability_angry", "probability_sad"]


def write(path: Path, rows: Mapping[str, Any] | pd.DataFrame) -> Path:
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture
def theirs(predictions: pd.DataFrame) -> dict[str, Any]:
    """Clips in another order; all are right but b0 and z1."""
    return {
        "clip": ["z1", "z0", "b1", "b0", "a1", "a0"],
        "predicted": ["angry", "angry", "sad", "sad", "angry", "angry"],
    }


def test_predicted_classes_are_put_beside_our_folds_and_truth(
    predictions: pd.DataFrame, theirs: dict[str, Any], tmp_path: Path
) -> None:
    found = read_other(write(tmp_path / "a.csv", theirs), predictions, CLASSES)
    ours = predictions[["fold", "clip", "subject", "actual"]]
    pd.testing.assert_frame_equal(found[list(ours)], ours)
    assert found["predicted"].tolist() == ["angry", "angry", "sad", "sad", "angry", "angry"]
    assert not set(PROBABILITIES) & set(found)
    summary = score_experiment([found], CLASSES).nested()
    # Three of four angry clips, one of two sad ones.
    assert summary["uar"]["pooled"] == (3 / 4 + 1 / 2) / 2
    assert summary["war"]["pooled"] == round(4 / 6, 6)
    assert not {"calibration_error", "box_iou", "landmark_error"} & set(summary)


def test_classes_are_read_as_those_of_a_users_table(
    predictions: pd.DataFrame, theirs: dict[str, Any], tmp_path: Path
) -> None:
    words = {"angry": " Anger", "sad": "SADNESS "}
    theirs["predicted"] = [words[name] for name in theirs["predicted"]]
    theirs["actual"] = ["Sad", "anger", "sadness", "Angry", "angry", "ANGER"]
    found = read_other(write(tmp_path / "a.csv", theirs), predictions, CLASSES)
    assert found["predicted"].tolist() == ["angry", "angry", "sad", "sad", "angry", "angry"]


def test_the_most_probable_class_is_predicted_where_no_class_is_given(
    predictions: pd.DataFrame, tmp_path: Path
) -> None:
    rows = {
        "clip": predictions["clip"],
        # In another order than that of the classes.
        "probability_sad": [0.1, 0.2, 0.9, 0.6, 0.45, 0.3],
        "probability_angry": [0.9, 0.8, 0.1, 0.4, 0.55, 0.7],
    }
    found = read_other(write(tmp_path / "a.csv", rows), predictions, CLASSES)
    assert found["predicted"].tolist() == ["angry", "angry", "sad", "sad", "angry", "angry"]
    assert found["probability_angry"].tolist() == [0.9, 0.8, 0.1, 0.4, 0.55, 0.7]
    summary = score_experiment([found], CLASSES).nested()
    # Each clip has a bin of its own, but for the two at 0.9, of which one is right.
    gaps = [2 * 0.9 - 1, 1 - 0.8, 1 - 0.6, 1 - 0.55, 0.7]
    assert summary["calibration_error"] == pytest.approx(sum(gaps) / 6, abs=1e-6)


def test_a_predicted_class_comes_before_the_most_probable_one(
    predictions: pd.DataFrame, tmp_path: Path
) -> None:
    rows = {"clip": predictions["clip"], "predicted": "sad"}
    rows |= dict(zip(PROBABILITIES, (0.9, 0.1), strict=True))
    found = read_other(write(tmp_path / "a.csv", rows), predictions, CLASSES)
    assert set(found["predicted"]) == {"sad"}
    assert set(found["probability_angry"]) == {0.9}


def test_clips_that_were_not_tested_are_left_out(
    predictions: pd.DataFrame, theirs: dict[str, Any], tmp_path: Path
) -> None:
    more = {"clip": [*theirs["clip"], "y9"], "predicted": [*theirs["predicted"], "sad"]}
    found = read_other(write(tmp_path / "a.csv", more), predictions, CLASSES)
    assert found["clip"].tolist() == predictions["clip"].tolist()


def test_a_name_that_looks_like_a_number_stays_as_it_is(tmp_path: Path) -> None:
    tested = pd.DataFrame(
        {"fold": 1, "clip": ["001", "1"], "subject": "Ann", "actual": ["sad", "angry"]}
    )
    path = tmp_path / "a.csv"
    path.write_text("clip,predicted\n1,angry\n001,sad\n", encoding="utf-8")
    assert read_other(path, tested, CLASSES)["predicted"].tolist() == ["sad", "angry"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip": None}, "has the columns predicted; it needs `clip`, and `predicted` or all of"),
        (
            {"predicted": None, "probability_sad": 0.5},
            "has the columns clip, probability_sad; .* all of probability_angry, probability_sad",
        ),
        ({"clip": ["z1", "z0", "b1", "b0", "z0", "a0"]}, "has z0 more than once"),
        (
            {"clip": ["z1", "z0", "b1", "B0", "A1", "a0"]},
            "lacks 2 of the 6 clips that were tested, such as a1: their names are those in data/",
        ),
        (
            {"actual": ["angry", "angry", "angry", "angry", "angry", "angry"]},
            "says another class of 2 clips, such as b1",
        ),
        (
            {"predicted": ["angry", "angry", "sad", "fear", "angry", "angry"]},
            "'fear' is none of angry, sad",
        ),
        (
            {"actual": ["sad", "angry", "sad", "calm", "angry", "angry"]},
            "'calm' is none of angry, sad",
        ),
        (
            {"predicted": ["angry", "angry", "sad", None, "angry", "angry"]},
            "nan is none of angry, sad",
        ),
    ],
)
def test_a_table_that_cannot_be_compared_is_refused(
    changes: dict[str, Any],
    message: str,
    predictions: pd.DataFrame,
    theirs: dict[str, Any],
    tmp_path: Path,
) -> None:
    rows = {name: value for name, value in (theirs | changes).items() if value is not None}
    path = write(tmp_path / "a.csv", rows)
    with pytest.raises(ValueError, match=message) as refusal:
        read_other(path, predictions, CLASSES)
    assert str(path) in str(refusal.value)


def test_a_clip_without_its_probabilities_is_refused(
    predictions: pd.DataFrame, tmp_path: Path
) -> None:
    rows = predictions[["clip", *PROBABILITIES]].copy()
    rows.loc[2, "probability_angry"] = np.nan
    path = write(tmp_path / "a.csv", rows)
    with pytest.raises(ValueError, match="b0"):
        read_other(path, predictions, CLASSES)


def test_a_table_of_ours_as_csv_is_read_as_it_is(predictions: pd.DataFrame, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", predictions)
    found = read_other(path, predictions, CLASSES)
    assert found["predicted"].tolist() == predictions["predicted"].tolist()
    assert found["fold"].tolist() == predictions["fold"].tolist()


def test_another_system_is_a_row_beside_ours_with_its_paired_difference(
    predictions: pd.DataFrame, theirs: dict[str, Any], tmp_path: Path
) -> None:
    found = read_other(write(tmp_path / "theirs.csv", theirs), predictions, CLASSES)
    cascade = System("cascaded vit", "exp", [predictions], [1], 1000, 90.0)
    # A linear model that takes everything for angry.
    linear = baselines(predictions, CLASSES).assign(predicted="angry")
    table = compare(
        [cascade, System("theirs", "theirs.csv", [found])], CLASSES, "sample", {1: linear}
    )
    assert table["structure"][:2].tolist() == ["cascaded vit", "theirs"]
    row = table.iloc[1]
    assert row["experiment"] == "theirs.csv"
    assert row["uar_pooled"] == pytest.approx(5 / 8)
    # Theirs has z0 besides, which is 1/4 of angry, and lacks z1, which is 1/2 of sad.
    assert row["uar_difference"] == pytest.approx((1 / 4 - 1 / 2) / 2)
    assert row["war_difference"] == pytest.approx(0)
    # All of it is Zoë's: to swap her predictions gives a difference of the same size.
    assert row["uar_p"] == row["war_p"] == 1
    assert row["linear_difference"] == pytest.approx(5 / 8 - 1 / 2)
    assert np.isnan([row["box_iou"], row["num_parameters"], row["training_seconds"]]).all()
    assert [line for line in beside_linear(table) if "theirs" in line and "+12.5 points" in line]
    alone = compare([cascade], CLASSES, "sample", {1: linear})
    pd.testing.assert_frame_equal(
        table[[*alone]].drop(index=1).reset_index(drop=True), alone, check_dtype=False
    )
