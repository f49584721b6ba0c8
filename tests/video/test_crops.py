import math

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.common.frames import FaceTrack
from pipeline.video.crops import Square, cut, face_squares, shrink


def track(boxes: list[list[float] | None], eyes: tuple[float, float] = (10, 0)) -> FaceTrack:
    """A face in boxes x1, y1, x2, y2, whose right eye is `eyes` pixels away from the left one."""
    points = np.zeros((len(boxes), 5, 2), np.float32)
    points[:, 1] = eyes
    mask = np.array([box is not None for box in boxes])
    known = np.array([box or [0, 0, 0, 0] for box in boxes], np.float32)
    return FaceTrack(known, points * mask[:, None, None], mask)


def picture_with_dot(x: int, y: int) -> npt.NDArray[np.uint8]:
    picture = np.zeros((1, 120, 200, 3), np.uint8)
    picture[0, y - 2 : y + 3, x - 2 : x + 3] = 255
    return picture


def centre_of_light(frame: npt.NDArray[np.uint8]) -> tuple[float, float]:
    weights = frame[..., 0].astype(float)
    rows, columns = np.indices(weights.shape) + 0.5
    return (
        float((columns * weights).sum() / weights.sum()),
        float((rows * weights).sum() / weights.sum()),
    )


def place_in_square(
    places: npt.NDArray[np.float64], square: Square, size: int
) -> npt.NDArray[np.float64]:
    """Where points (K, 2) of a picture lie in the frame cut from it: by a rotation and a scale."""
    turn = math.radians(-square.degrees)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    centred: npt.NDArray[np.float64] = places - np.array([square.x, square.y])
    return np.asarray(centred @ rotation.T * (size / square.side) + size / 2)


def test_a_square_has_the_faces_centre_and_the_margin_times_its_longer_side() -> None:
    squares = face_squares(track([[10, 20, 50, 80]] * 4), margin=1.5, level=False)
    assert squares == [Square(30, 50, 90, 0)] * 4


def test_frames_without_a_sighting_lie_between_their_neighbours() -> None:
    boxes: list[list[float] | None] = [None] * 7
    boxes[1], boxes[5] = [0, 0, 40, 40], [80, 0, 120, 40]
    centres = [square.x for square in face_squares(track(boxes), margin=1, level=False)]
    assert centres == sorted(centres)
    assert centres[3] == pytest.approx(60)
    assert centres[0] == pytest.approx(20, abs=5)
    assert centres[6] == pytest.approx(100, abs=5)


def test_a_trembling_face_gives_a_steady_square() -> None:
    boxes: list[list[float] | None] = [[10 + (-1) ** t, 20, 50 + (-1) ** t, 80] for t in range(16)]
    centres = [square.x for square in face_squares(track(boxes), margin=1, level=False)]
    assert np.std(centres) < 0.2  # of the boxes it is 1


def test_a_square_turns_with_the_line_between_the_eyes_if_it_is_to_be_level() -> None:
    tilted = track([[10, 20, 50, 80]] * 4, eyes=(10, 10))
    assert [square.degrees for square in face_squares(tilted, margin=1, level=True)] == [45] * 4
    assert [square.degrees for square in face_squares(tilted, margin=1, level=False)] == [0] * 4


@pytest.mark.parametrize("degrees", [0, 30, -75])
def test_a_point_of_the_picture_is_where_place_in_square_says(degrees: float) -> None:
    square = Square(100.3, 61.7, 80, degrees)
    frame = cut(picture_with_dot(120, 70), [square], 64)[0]
    assert frame.shape == (64, 64, 3)
    expected = place_in_square(np.array([[120.5, 70.5]]), square, 64)[0]
    np.testing.assert_allclose(centre_of_light(frame), expected, atol=0.5)


def test_the_eyes_of_a_levelled_face_are_level() -> None:
    left, right = np.array([[90.0, 50.0], [110.0, 70.0]])
    square = Square(100, 60, 80, degrees=45)
    eyes = place_in_square(np.stack([left, right]), square, 64)
    assert eyes[0, 1] == pytest.approx(eyes[1, 1])
    assert eyes[0, 0] < eyes[1, 0]


def test_beyond_the_edge_of_a_picture_its_last_pixels_go_on() -> None:
    picture = np.zeros((1, 40, 40, 3), np.uint8)
    picture[:, :, :20] = 200
    frame = cut(picture, [Square(0, 20, 40, 0)], 40)[0]
    assert (frame[:, :39] == 200).all()


def test_copies_are_no_longer_than_asked_for_and_keep_their_shape() -> None:
    copies, scale = shrink(np.zeros((2, 100, 300, 3), np.uint8), 150)
    assert (copies.shape, scale) == ((2, 50, 150, 3), 0.5)
    same, scale = shrink(copies, 150)
    assert same is copies
    assert scale == 1


def test_a_square_whose_edge_is_the_picture_edge_but_for_rounding_is_cut_out() -> None:
    # Its upper edge is 27.38 - 50.76 / 2 = 2 pixels from the top, by rounding a little less.
    rows = np.arange(100, dtype=np.uint8)
    pictures = np.broadcast_to(rows[:, None, None], (1, 100, 400, 3))
    frame = cut(pictures, [Square(266.38, 27.38, 50.76, 0.0)], 64)[0]
    seen = 2 + (np.arange(64) + 0.5) * 50.76 / 64 - 0.5
    np.testing.assert_allclose(frame[2:-2, 0, 0], seen[2:-2], atol=0.6)
