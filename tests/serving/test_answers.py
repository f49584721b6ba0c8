import numpy as np
import pandas as pd

from pipeline.serving.answers import Answers, Moment, summary

CLASSES = ["happy", "sad"]


def moment(seconds: float) -> Moment:
    return Moment(seconds, np.full(4, 0.5, np.float32), np.full((5, 2), 0.25, np.float32))


def test_a_moment_has_the_mean_of_its_windows_and_the_spread_over_models() -> None:
    answers = Answers(CLASSES, num_models=2)
    for start, first, second in ((0.0, 0.9, 0.5), (1.0, 0.7, 0.1)):
        at = answers.at(3, 1, moment(1.5))
        at.probabilities.append(np.array([[first, 1 - first], [second, 1 - second]], np.float32))
        at.model_boxes.append(np.full(4, start, np.float32))
        at.model_points.append(np.full((5, 2), start, np.float32))
        at.spans.append((start, start + 3))
    (row,) = answers.table().to_dict("records")
    # The models' means over windows are 0.8 and 0.3.
    np.testing.assert_allclose(row["probability_happy"], 0.55, rtol=1e-6)
    np.testing.assert_allclose(row["spread_happy"], 0.25, rtol=1e-6)
    assert (row["seconds"], row["person"], row["label"]) == (1.5, 1, "happy")
    assert (row["window_start"], row["window_end"], row["num_windows"]) == (0.0, 4.0, 2)
    assert (row["box_width"], row["nose_y"], row["model_box_x"]) == (0.5, 0.25, 0.5)


def test_rows_are_in_the_order_of_time_and_a_model_without_boxes_has_none() -> None:
    answers = Answers(CLASSES, num_models=1)
    for point, person in ((7, 1), (2, 2), (2, 1)):
        at = answers.at(point, person, moment(point / 2))
        at.probabilities.append(np.array([[0.2, 0.8]], np.float32))
        at.spans.append((0, 4))
    table = answers.table()
    assert list(zip(table["seconds"], table["person"], strict=True)) == [(1, 1), (1, 2), (3.5, 1)]
    assert table["model_nose_x"].isna().all()
    assert not any(str(name).startswith("spread") for name in table)


def test_a_closed_moment_has_the_same_row_and_holds_nothing_more() -> None:
    tables = []
    for close in (False, True):
        answers = Answers(CLASSES, num_models=1)
        for point, person in ((0, 2), (0, 1), (1, 1), (2, 1)):
            if close:
                answers.close(point)
            at = answers.at(point, person, moment(point / 3))
            at.probabilities += [np.array([[0.2 + point / 7, 0.8 - point / 7]], np.float32)] * 3
            at.spans.append((point, point + 4))
        assert len(answers._moments) == (1 if close else 4)
        tables.append(answers.table())
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)
    assert tables[0]["person"].tolist() == [1, 2, 1, 1]
    assert tables[0]["label"].tolist() == ["sad", "sad", "sad", "sad"]


def test_a_video_without_anybody_has_an_empty_table_with_all_columns() -> None:
    table = Answers(CLASSES, num_models=1).table()
    assert len(table) == 0
    assert {"seconds", "person", "label", "probability_sad"} <= set(table)
    assert summary(table, CLASSES, step=0.1) == []


def test_stretches_end_where_the_label_changes_and_where_nobody_is_seen() -> None:
    labels = ["sad", "sad", "happy", "happy", "happy"]
    happy = [0.1, 0.2, 0.9, 0.9, 0.9]
    table = pd.DataFrame(
        {
            "seconds": [0.0, 0.5, 1.0, 1.5, 4.0],
            "person": 1,
            "label": labels,
            "probability_happy": happy,
            "probability_sad": [1 - share for share in happy],
        }
    )
    (person,) = summary(table, CLASSES, step=0.5)
    assert person["stretches"] == [
        {"start": 0.0, "end": 0.5, "label": "sad"},
        {"start": 1.0, "end": 1.5, "label": "happy"},
        {"start": 4.0, "end": 4.0, "label": "happy"},
    ]
    assert (person["label"], person["moments"], person["last"]) == ("happy", 5, 4.0)
    assert person["probabilities"] == {"happy": 0.6, "sad": 0.4}
