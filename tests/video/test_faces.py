import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from pipeline.common.frames import Frames
from pipeline.video.faces import FaceDetector
from pipeline.video.tracks import Detections

SIZE = 224
# Eyes, nose and mouth corners of the cropped portrait, marked by hand, as fractions of the crop.
MARKS = np.array([(370, 302), (500, 309), (433, 375), (378, 425), (488, 427)]) / 900


@pytest.fixture(scope="module")
def portrait() -> Frames:
    picture = astronaut()[:300, 80:380]  # type: ignore[no-untyped-call]
    return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def found(portrait: Frames) -> list[Detections]:
    """Faces in one batch: a blank frame, the portrait, its mirror image, a blank frame."""
    blank = np.full_like(portrait, 128)
    return FaceDetector(min_face_size=40).detect(
        np.stack([blank, portrait, portrait[:, ::-1], blank])
    )


def test_frames_too_small_for_a_face_are_an_error_that_says_so(portrait: Frames) -> None:
    with pytest.raises(ValueError, match=r"fits into a frame of 32 pixels; .* frames\.size"):
        FaceDetector(min_face_size=40).detect(portrait[None, :32, :32])


def test_each_frame_of_a_batch_keeps_its_own_faces(found: list[Detections]) -> None:
    assert [frame.boxes.shape for frame in found] == [(0, 4), (1, 4), (1, 4), (0, 4)]
    assert [frame.points.shape for frame in found] == [(0, 5, 2), (1, 5, 2), (1, 5, 2), (0, 5, 2)]
    assert [frame.scores.shape for frame in found] == [(0,), (1,), (1,), (0,)]
    assert {array.dtype for frame in found for array in frame} == {np.dtype(np.float32)}


def test_a_real_face_is_found_where_it_is(found: list[Detections]) -> None:
    x1, y1, x2, y2 = found[1].boxes[0]
    marks = MARKS * SIZE
    np.testing.assert_allclose(found[1].points[0], marks, atol=6)
    assert (marks > [x1, y1]).all()
    assert (marks < [x2, y2]).all()
    assert found[1].scores[0] > 0.99


def test_landmarks_are_eyes_nose_and_mouth_from_left_to_right(found: list[Detections]) -> None:
    for frame in found[1:3]:
        x1, y1, x2, y2 = frame.boxes[0]
        left_eye, right_eye, nose, left_mouth, right_mouth = frame.points[0]
        assert x1 < left_eye[0] < nose[0] < right_eye[0] < x2
        assert left_mouth[0] < right_mouth[0]
        assert y1 < min(left_eye[1], right_eye[1])
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
        assert max(left_mouth[1], right_mouth[1]) < y2


def test_a_mirrored_face_has_mirrored_landmarks(found: list[Detections]) -> None:
    mirrored = found[1].points[0, [1, 0, 2, 4, 3]] * [-1, 1] + [SIZE, 0]
    np.testing.assert_allclose(found[2].points[0], mirrored, atol=3)


def test_a_face_below_the_smallest_size_is_not_looked_for(portrait: Frames) -> None:
    assert len(FaceDetector(min_face_size=224).detect(portrait[None])[0].boxes) == 0


def test_detection_gives_the_same_numbers_again(portrait: Frames, found: list[Detections]) -> None:
    again = FaceDetector(min_face_size=40).detect(portrait[None])[0]
    np.testing.assert_array_equal(again.points, found[1].points)
