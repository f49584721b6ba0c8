import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from pipeline.common.frames import FaceTrack
from pipeline.evaluation.baselines import (
    ALIGNED_SIDE,
    aligned_face,
    linear_probabilities,
    majority_probabilities,
    predictions_of,
)

# Where the landmarks of an aligned face are, in pixels.
EYES_LEVEL, MOUTH_LEVEL = 0.46 * ALIGNED_SIDE, 0.82 * ALIGNED_SIDE


def drawn_face(
    x: float, y: float, scale: float, degrees: float
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A grey frame with white dots at five landmarks of a face, and the landmarks."""
    places = np.array([[-19, -18], [19, -18], [0, 0], [-15, 18], [15, 18]]) * scale
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = places @ turn + (x, y)
    picture = Image.new("RGB", (224, 224), (60, 60, 60))
    for px, py in points:
        ImageDraw.Draw(picture).ellipse([px - 5, py - 5, px + 5, py + 5], fill=(255, 255, 255))
    return np.asarray(picture), points.astype(np.float32)


def track(points: npt.NDArray[np.float32], mask: list[bool]) -> FaceTrack:
    boxes = np.zeros((len(points), 4), np.float32)
    return FaceTrack(boxes, points, np.array(mask))


@pytest.mark.parametrize(
    ("x", "y", "scale", "degrees"), [(112, 112, 1, 0), (80, 130, 1.6, 0), (115, 115, 1.2, 25)]
)
def test_landmarks_are_moved_into_place(x: float, y: float, scale: float, degrees: float) -> None:
    frame, points = drawn_face(x, y, scale, degrees)
    (face,) = aligned_face(frame[None], track(points[None], [True]))
    assert face.shape == (ALIGNED_SIDE, ALIGNED_SIDE)
    light = face - face.min()
    rows = np.arange(ALIGNED_SIDE) + 0.5
    upper, lower = light[: ALIGNED_SIDE * 11 // 20].copy(), light[ALIGNED_SIDE * 15 // 20 :]
    assert (upper.sum(axis=1) @ rows[: len(upper)]) / upper.sum() == pytest.approx(
        EYES_LEVEL, abs=0.6
    )
    assert (lower.sum(axis=1) @ rows[-len(lower) :]) / lower.sum() == pytest.approx(
        MOUTH_LEVEL, abs=0.6
    )
    assert (light.sum(axis=0) @ rows) / light.sum() == pytest.approx(ALIGNED_SIDE / 2, abs=0.3)


def test_a_frame_without_a_known_face_repeats_the_nearest_one() -> None:
    faces = [drawn_face(112, 112, scale, 0) for scale in (1, 1.2, 1.4, 1.6)]
    frames = np.stack([frame * (i + 1) // 4 for i, (frame, _) in enumerate(faces)])
    points = np.stack([points for _, points in faces])
    aligned = aligned_face(frames, track(points, [False, True, False, True]))
    assert (aligned[0] == aligned[1]).all()
    assert (aligned[2] == aligned[1]).all()
    assert not (aligned[3] == aligned[1]).all()


def test_the_linear_model_finds_what_a_line_separates_and_nothing_in_noise() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2
    faces = random.normal(size=(200, 2, 4, 4)).astype(np.float32)
    test = random.normal(size=(200, 2, 4, 4)).astype(np.float32)
    noise = linear_probabilities(faces, labels, test, 2).argmax(axis=1)
    assert (noise == labels).mean() == pytest.approx(0.5, abs=0.12)
    faces[:, 1, 2, 3] += 4 * labels
    test[:, 1, 2, 3] += 4 * labels
    found = linear_probabilities(faces, labels, test, 2).argmax(axis=1)
    assert (found == labels).mean() > 0.9


def test_a_class_without_a_training_clip_has_no_probability() -> None:
    random = np.random.default_rng(0)
    faces = random.normal(size=(20, 1, 4, 4)).astype(np.float32)
    probabilities = linear_probabilities(faces, np.arange(20) % 2 * 2, faces, 4)
    assert (probabilities[:, [1, 3]] == 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_the_majority_is_that_of_the_training_clips() -> None:
    probabilities = majority_probabilities(np.array([2, 2, 0]), 3, 4)
    np.testing.assert_allclose(probabilities, [[1 / 3, 0, 2 / 3, 0]] * 3)


def test_predictions_have_the_columns_of_a_structures() -> None:
    test = pd.DataFrame({"clip": ["b", "a"], "subject": ["B", "A"], "actual": ["sad", "happy"]})
    table = predictions_of(
        "linear model", 3, test, np.array([[0.2, 0.8], [0.3, 0.7]]), ["happy", "sad"]
    )
    assert table["clip"].tolist() == ["a", "b"]
    assert table["predicted"].tolist() == ["sad", "sad"]
    assert table["probability_sad"].tolist() == [0.7, 0.8]
    assert set(table["fold"]) == {3}
