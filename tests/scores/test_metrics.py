import numpy as np
import pytest
import torch
import torchvision
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score

from pipeline.scores.metrics import (
    Array,
    box_iou,
    confusion,
    expected_calibration_error,
    interocular_error,
    landmark_error,
    macro_f1,
    recalls,
)

# Right are two of three clips of class 0, one of two of class 1 and one of one of class 2.
LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 0, 2])


def test_uar_is_the_mean_of_the_recalls_and_war_the_accuracy() -> None:
    scores = recalls(LABELS, PREDICTED, 3)
    assert scores.per_class == pytest.approx([2 / 3, 1 / 2, 1])
    assert scores.uar == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scores.war == pytest.approx(4 / 6)


def test_recalls_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(1)
    labels, predicted = random.integers(7, size=(2, 200))
    scores = recalls(labels, predicted, 7)
    assert scores.uar == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert scores.war == pytest.approx(accuracy_score(labels, predicted))
    # WAR is also the mean of the recalls weighted by the classes' clips.
    assert scores.war == pytest.approx(recall_score(labels, predicted, average="weighted"))


def test_a_class_without_a_clip_does_not_count() -> None:
    scores = recalls(LABELS, np.array([0, 0, 1, 1, 3, 2]), 4)
    assert scores.per_class[:3] == pytest.approx([2 / 3, 1 / 2, 1])
    assert np.isnan(scores.per_class[3])
    assert scores.uar == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)


def test_confusion_has_true_classes_as_rows_and_predicted_ones_as_columns() -> None:
    counts = confusion(LABELS, PREDICTED, 4)
    assert counts.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_macro_f1_is_the_mean_of_the_classes_harmonic_means() -> None:
    # Precisions 2/3, 1/2, 1 and recalls 2/3, 1/2, 1.
    assert macro_f1(LABELS, PREDICTED, 3) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    random = np.random.default_rng(1)
    labels, predicted = random.integers(7, size=(2, 200))
    assert macro_f1(labels, predicted, 7) == pytest.approx(
        f1_score(labels, predicted, average="macro")
    )


def test_macro_f1_leaves_out_a_class_that_is_only_predicted() -> None:
    # The clip given to class 3 lowers the recall of class 1: F1 is 4/5 of class 0,
    # 1/2 of class 1 and 1 of class 2.
    assert macro_f1(LABELS, np.array([0, 0, 1, 1, 3, 2]), 5) == pytest.approx(
        (2 * 2 / (2 + 3) + 2 * 1 / (2 + 2) + 1) / 3
    )


def test_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    # In (0.5, 0.75]: 0.6 and 0.7, one of them right. In (0.75, 1]: 0.8, 1 and 1, all right.
    confidence = np.array([0.6, 0.7, 0.8, 1, 1])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    error = expected_calibration_error(np.array([0, 1, 0, 0, 0]), probabilities, num_bins=4)
    assert error == pytest.approx((abs(1 - 1.3) + abs(3 - 2.8)) / 5)


def test_probabilities_that_come_true_have_no_calibration_error() -> None:
    probabilities = np.array([[0.75, 0.25]] * 4)
    assert expected_calibration_error(np.array([0, 0, 1, 0]), probabilities) == 0
    assert expected_calibration_error(np.array([1, 1]), np.array([[1.0, 0], [1, 0]])) == 1


def test_calibration_error_agrees_with_the_calibration_curve_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    probabilities = random.dirichlet(np.full(7, 0.3), 500)
    labels = random.integers(7, size=500)
    right, confidence = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    accuracy, mean_confidence = calibration_curve(right, confidence, n_bins=15)
    clips, _ = np.histogram(confidence, bins=15, range=(0, 1))
    expected = np.abs(accuracy - mean_confidence) @ clips[clips > 0] / len(labels)
    assert expected_calibration_error(labels, probabilities) == pytest.approx(expected, abs=1e-9)


def boxes(*clips: list[list[float]]) -> Array:
    return np.array(clips, np.float32)


def test_box_overlap_is_the_mean_over_the_known_frames() -> None:
    predicted = boxes([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2]])
    # The same box, half of it, a quarter of it, and one beside it.
    targets = boxes([[0, 0, 2, 2], [1, 0, 2, 2], [0, 0, 1, 1], [2, 0, 2, 2]])
    known = np.array([[True, True, True, True]])
    assert box_iou(predicted, targets, known)[0] == pytest.approx((1 + 2 / 6 + 1 / 4 + 0) / 4)
    assert box_iou(predicted, targets, known & [True, True, False, False])[0] == pytest.approx(
        2 / 3
    )


def test_a_box_of_negative_size_overlaps_nothing() -> None:
    predicted = boxes([[0.5, 0.5, -0.4, 0.4]], [[0.5, 0.5, 0.4, -0.4]], [[0.5, 0.5, -0.4, -0.4]])
    targets = boxes(*[[[0.1, 0.1, 0.8, 0.8]]] * 3)
    assert box_iou(predicted, targets, np.ones((3, 1), bool)).tolist() == [0, 0, 0]


def test_a_clip_without_a_known_frame_has_no_overlap_and_no_error() -> None:
    zeros, mask = np.zeros((2, 3, 5, 2), np.float32), np.array([[False] * 3, [True] * 3])
    assert np.isnan(
        box_iou(zeros[..., 0, [0, 1, 0, 1]], zeros[..., 0, [0, 1, 0, 1]], mask)
    ).tolist() == [
        True,
        False,
    ]
    known = np.ones((2, 3, 4), np.float32)
    assert np.isnan(landmark_error(zeros, zeros, known, mask)).tolist() == [True, False]


def corners(clips: Array) -> torch.Tensor:
    """(N, 4) x1, y1, x2, y2 of the first frames."""
    start, size = clips[:, 0, :2], clips[:, 0, 2:]
    return torch.from_numpy(np.hstack([start, start + size]))


def test_box_overlap_agrees_with_torchvision() -> None:
    predicted, targets = np.random.default_rng(1).random((2, 50, 1, 4), np.float32)
    overlaps = torchvision.ops.box_iou(corners(predicted), corners(targets))
    found = box_iou(predicted, targets, np.ones((50, 1), bool))
    np.testing.assert_allclose(found, overlaps.diagonal(), atol=1e-6)


FACE = np.array([[0, 0], [2, 0], [1, 1], [0, 2], [2, 2]], np.float32)


def test_landmark_errors_are_mean_distances_over_the_size_of_the_box_or_that_of_the_eyes() -> None:
    targets = np.stack([FACE, 3 * FACE, FACE])[None]
    points = targets.copy()
    points[0, 0, :, 1] += 1  # Every landmark is off by 1, half the distance of the eyes ...
    points[0, 1, 4] += [3, 4]  # ... one of the five is off by 5, where the eyes are 6 apart ...
    points[0, 2] += 100  # ... and this frame is unknown.
    mask = np.array([[True, True, False]])
    # Boxes of the size 4 and 12.
    faces = boxes([[-1, -3, 2, 8], [-3, -9, 18, 8], [0, 0, 1, 1]])
    found = landmark_error(points, targets, faces, mask)
    assert found[0] == pytest.approx((1 / 4 + 5 / 5 / 12) / 2)
    found = interocular_error(points, targets, faces, mask)
    assert found[0] == pytest.approx((1 / 2 + 5 / 5 / 6) / 2)


def test_a_profile_does_not_blow_up_the_landmark_errors() -> None:
    # The eyes of the second face are a hundredth of a pixel apart: by them the error would be 100.
    profile = FACE.copy()
    profile[1, 0] = 0.01
    targets = np.stack([FACE, profile])[None]
    points = targets + np.array([0, 1], np.float32)
    faces, mask = boxes([[0, 0, 4, 4]] * 2), np.array([[True, True]])
    assert landmark_error(points, targets, faces, mask)[0] == pytest.approx(1 / 4)
    assert interocular_error(points, targets, faces, mask)[0] == pytest.approx(1 / 2)
    only_profiles = interocular_error(points[:, 1:], targets[:, 1:], faces[:, 1:], mask[:, 1:])
    assert np.isnan(only_profiles).tolist() == [True]
