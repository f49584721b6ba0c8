import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage.data import astronaut
from small import FACES, FRAMES

from pipeline.video.container import UnusableVideo
from pipeline.video.faces import FaceDetector
from pipeline.video.reader import FrameReader


def film(path: Path, pictures: list[npt.NDArray[np.uint8]]) -> Path:
    height, width, _ = pictures[0].shape
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo"]
    command += ["-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25", "-i", "pipe:"]
    command += ["-c:v", "libx264", "-qp", "10", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, input=b"".join(map(np.ndarray.tobytes, pictures)), check=True)
    return path


def picture(width: int, height: int, x: int, y: int, side: int) -> npt.NDArray[np.uint8]:
    """A grey picture with a portrait of `side` pixels, whose face is a third as wide, at x, y."""
    canvas = np.full((height, width, 3), 128, np.uint8)
    portrait = Image.fromarray(astronaut()[0:300, 80:380])  # type: ignore[no-untyped-call]
    canvas[y : y + side, x : x + side] = np.asarray(portrait.resize((side, side)))
    return canvas


def refusal(path: Path) -> str:
    with pytest.raises(UnusableVideo) as error:
        FrameReader(FRAMES, FACES).read(path)
    assert error.value.refusal.reason == "no_face"
    return error.value.refusal.message


@pytest.mark.parametrize(
    ("width", "height", "x", "y", "side"),
    [(240, 136, 0, 0, 130), (1280, 720, 760, 200, 500), (270, 480, 0, 210, 260)],
    ids=["off_the_centre_and_small", "off_the_centre_and_large", "low_in_a_portrait_film"],
)
def test_a_face_anywhere_fills_the_frame_as_the_margin_says(
    tmp_path: Path, width: int, height: int, x: int, y: int, side: int
) -> None:
    path = film(tmp_path / "film.mp4", [picture(width, height, x, y, side)] * 16)
    frames = FrameReader(FRAMES, FACES).read(path).pictures
    assert frames.shape == (16, 224, 224, 3)
    boxes = FaceDetector(40).detect(frames[:1])[0].boxes
    assert len(boxes) == 1
    assert (boxes[0, 3] - boxes[0, 1]) == pytest.approx(224 / 1.3, rel=0.1)
    np.testing.assert_allclose((boxes[0, :2] + boxes[0, 2:]) / 2, 112, atol=12)


def test_a_face_is_cut_out_of_the_picture_and_not_out_of_a_small_copy(tmp_path: Path) -> None:
    large = picture(1600, 900, 700, 0, 900)
    small = np.asarray(Image.fromarray(large).resize((400, 224)))

    def sharpness(path: Path) -> float:
        frame = FrameReader(FRAMES, FACES).read(path).pictures[0].astype(float).mean(axis=2)
        return float(np.abs(np.diff(frame, axis=1)).mean())

    fine = sharpness(film(tmp_path / "large.mp4", [large] * 2))
    coarse = sharpness(film(tmp_path / "small.mp4", [small] * 2))
    assert fine > 1.2 * coarse


def test_the_frames_follow_a_face_that_moves(tmp_path: Path) -> None:
    moving = [picture(640, 360, 20 * t, 30, 300) for t in range(16)]
    frames = FrameReader(FRAMES, FACES).read(film(tmp_path / "film.mp4", moving)).pictures
    boxes = np.array([found.boxes[0] for found in FaceDetector(40).detect(frames)])
    centres = (boxes[:, 0] + boxes[:, 2]) / 2
    assert np.ptp(centres[2:-2]) < 8  # pixels, of 224; in the film the face goes through 300 of 640


def test_after_a_cut_the_square_stays_and_the_next_person_is_not_followed(tmp_path: Path) -> None:
    one = picture(640, 360, 100, 30, 300)
    other = np.roll(picture(640, 360, 90, 20, 330)[:, ::-1], -220, axis=1)
    reader = FrameReader(FRAMES, FACES)
    video = reader.read(film(tmp_path / "cut.mp4", [one] * 10 + [other] * 6))
    assert video.shots.tolist() == [0] * 10 + [-1] * 6
    whole = reader.read(film(tmp_path / "whole.mp4", [one] * 16)).pictures.astype(float)
    assert np.abs(video.pictures[:10] - whole[:10]).mean() < 1
    # The other face, which is 75 pixels further to the left, is at the edge of the square.
    found = FaceDetector(40).detect(video.pictures[10:])
    centres = [box[[0, 2]].mean() for frame in found for box in frame.boxes]
    assert all(centre < 56 for centre in centres)


def test_the_same_video_gives_the_same_frames(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", [picture(640, 360, 20 * t, 30, 300) for t in range(16)])
    reader = FrameReader(FRAMES, FACES)
    assert (reader.read(path).pictures == reader.read(path).pictures).all()


def test_a_refusal_says_how_small_the_face_is_and_where(tmp_path: Path) -> None:
    path = film(tmp_path / "far.mp4", [picture(960, 540, 700, 60, 110)] * 16)
    message = refusal(path)
    assert message.startswith("far.mp4: a face of ")
    # 110 pixels of 960 are 55 of the 480 of the copy; the face is a third to a half of that.
    assert 15 < int(message.split("a face of ")[1].split()[0]) < 30
    assert "of the width" in message
    assert "in 16 of 16 frames" in message
    assert "lower faces.min_face_size" in message


def test_a_face_in_too_few_frames_is_refused_with_their_number(tmp_path: Path) -> None:
    blank = np.full((360, 640, 3), 128, np.uint8)
    shown = [picture(640, 360, 100, 30, 300)] * 3 + [blank] * 13
    message = refusal(film(tmp_path / "brief.mp4", shown))
    assert "in 3 of 16 frames" in message
    assert "30% of the frames are needed" in message


def test_a_video_without_anybody_says_so(tmp_path: Path) -> None:
    path = film(tmp_path / "wall.mp4", [np.full((360, 640, 3), 128, np.uint8)] * 16)
    assert refusal(path) == "wall.mp4: no face, not even a small one, in any of 16 frames"
