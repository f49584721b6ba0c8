import numpy as np

from pipeline.mtcae.predictions import Evaluation, predictions_table

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], np.float32)


def evaluation(boxes: np.ndarray | None) -> Evaluation:
    targets = np.tile(np.array([0.2, 0.2, 0.4, 0.4], np.float32), (2, 4, 1))
    points = np.random.default_rng(0).uniform(size=(2, 4, 5, 2)).astype(np.float32)
    return Evaluation(
        clips=["z", "a"],
        subjects=["Ann", "Ben"],
        labels=np.array([0, 1]),
        probabilities=PROBABILITIES,
        boxes=boxes,
        points=None if boxes is None else points,
        target_boxes=targets,
        target_points=points,
        mask=np.array([[True] * 4, [False] * 4]),
        losses={},
    )


def test_a_row_tells_truth_prediction_and_probabilities_of_its_clip() -> None:
    table = predictions_table(evaluation(None), fold=3, classes=["angry", "happy", "sad"])
    assert table["clip"].tolist() == ["a", "z"]
    columns = ["fold", "subject", "actual", "predicted"]
    assert list(table[columns].iloc[0]) == [
        3,
        "Ben",
        "happy",
        "sad",
    ]
    columns = ["probability_angry", "probability_happy", "probability_sad"]
    np.testing.assert_array_equal(table[columns].to_numpy(), PROBABILITIES[::-1])
    assert table["box_iou"].isna().all()


def test_boxes_and_points_are_scored_where_the_truth_is_known() -> None:
    half = np.tile(np.array([0.2, 0.2, 0.4, 0.2], np.float32), (2, 4, 1))
    table = predictions_table(evaluation(half), fold=1, classes=["angry", "happy", "sad"])
    np.testing.assert_allclose(table["box_iou"], [np.nan, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(table["landmark_error"], [np.nan, 0])
