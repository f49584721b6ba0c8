import math

import numpy as np
import pytest

from pipeline.serving.places import Places
from pipeline.video.crops import Square, cut, to_picture


def test_a_point_in_a_turned_square_is_found_where_it_was_cut_out() -> None:
    picture = np.zeros((1, 200, 300, 3), np.uint8)
    picture[0, 58:63, 158:163] = 255
    square = Square(150, 80, 120, 20.0)
    frame = cut(picture, [square], 240)[0, :, :, 0].astype(float)
    rows, columns = np.indices(frame.shape) + 0.5
    seen = np.array([(columns * frame).sum(), (rows * frame).sum()]) / frame.sum() / 240
    np.testing.assert_allclose(to_picture(seen, square), [160.5, 60.5], atol=0.3)


def test_a_box_of_the_model_keeps_its_size_in_a_turned_square() -> None:
    places = Places(300, 200, "face", 1.5)
    for degrees in (0.0, 30.0):
        square = Square(150, 80, 120, degrees)
        box = places.box_of_model(np.array([0.25, 0.25, 0.5, 0.5], np.float32), square)
        np.testing.assert_allclose(box, [0.4, 0.25, 0.2, 0.3], atol=1e-6)
    # Off the middle, it is turned around it: 30 pixels to the right are to the right and below.
    turned = places.points_of_model(np.array([0.75, 0.5], np.float32), Square(150, 80, 120, 30))
    expected = [(150 + 30 * math.cos(math.pi / 6)) / 300, (80 + 15) / 200]
    np.testing.assert_allclose(turned, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("aspect", "middle_left", "corner"),
    [(2.0, [0.25, 0.5], [0.75, 1.0]), (0.5, [0.0, 0.5], [1.0, 0.75])],
)
def test_places_in_the_central_square_are_told_of_the_whole_picture(
    aspect: float, middle_left: list[float], corner: list[float]
) -> None:
    places = Places(64, 64, "square", aspect)
    np.testing.assert_allclose(places.points(np.array([0, 32])), middle_left)
    np.testing.assert_allclose(places.points(np.array([64, 64])), corner)
    np.testing.assert_allclose(Places(64, 64, "none", aspect).points(np.array([64, 16])), [1, 0.25])
