import numpy as np
import pytest

from pipeline.datasets.sample_faces import render_frames, sample_clips
from pipeline.export.face_networks import write_face_networks
from pipeline.serving.onnx_faces import OnnxFaceDetector
from pipeline.video.faces import FaceDetector

SIZE = 40


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> OnnxFaceDetector:
    folder = tmp_path_factory.mktemp("networks")
    write_face_networks(folder)
    return OnnxFaceDetector(folder, SIZE, num_threads=1)


def faces(clip: int) -> np.ndarray:
    """A rendered person in four pictures (4, 256, 320, 3)."""
    clips = sample_clips(num_subjects=3, clips_per_emotion=1)
    return np.ascontiguousarray(render_frames(clips[clip], seed=1)[:40:10])


def test_it_finds_what_mtcnn_finds_with_torch(detector: OnnxFaceDetector) -> None:
    # Two people side by side, then one of them cut off by the edge, then nobody.
    both = np.concatenate([faces(0), faces(8)], axis=2)
    cut_off = np.concatenate([faces(0)[:, :, 130:], np.full((4, 256, 450, 3), 90, np.uint8)], 2)
    pictures = np.concatenate([both, cut_off, np.full((1, 256, 640, 3), 90, np.uint8)])
    expected = FaceDetector(SIZE).detect(pictures)
    found = detector.detect(pictures)
    assert [len(one.boxes) for one in expected[:4]] == [2] * 4
    assert len(expected[-1].boxes) == 0
    for one, other in zip(found, expected, strict=True):
        assert one.boxes.shape == other.boxes.shape
        # Both round to a hundredth of a pixel.
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.011)
        np.testing.assert_allclose(one.points, other.points, atol=0.021)
        np.testing.assert_allclose(one.scores, other.scores, atol=0.011)


def test_pictures_of_noise_and_faces_as_large_as_the_picture_are_the_same_too(
    detector: OnnxFaceDetector,
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 97, 131, 3), dtype=np.uint8)
    close = faces(4)[:2, 60:200, 90:230]
    for pictures in (noise, close):
        expected = FaceDetector(SIZE).detect(pictures)
        for one, other in zip(detector.detect(pictures), expected, strict=True):
            assert one.boxes.shape == other.boxes.shape
            np.testing.assert_allclose(one.boxes, other.boxes, atol=0.011)


def test_a_picture_too_small_for_any_face_is_refused(detector: OnnxFaceDetector) -> None:
    with pytest.raises(ValueError, match=r"no face of .* fits into a frame"):
        detector.detect(np.zeros((1, 30, 30, 3), np.uint8))
