import math

import numpy as np
import pytest
from skimage.transform import SimilarityTransform

from pipeline.serving.aligned import ARCFACE, RENDERED, Points, aligned_square
from pipeline.video.crops import Square, cut, to_picture


@pytest.mark.parametrize("template", [ARCFACE, RENDERED])
def test_landmarks_that_fit_the_template_give_its_square_back(template: Points) -> None:
    square = Square(203.5, 99.25, 140.0, -23.0)
    points = np.zeros((5, 2))
    points[: len(template)] = to_picture(template, square)
    np.testing.assert_allclose(aligned_square(points, template), square, atol=1e-9)


def test_landmarks_that_do_not_fit_are_met_as_closely_as_scikit_image_does() -> None:
    points = 112 * ARCFACE + np.random.default_rng(0).normal(0, 6, (5, 2)) + 50
    square = aligned_square(points, ARCFACE)
    oracle = SimilarityTransform.from_estimate(ARCFACE, points)
    corners = np.array([(0, 0), (1, 0), (0.5, 0.5), (0.2, 0.9)])
    np.testing.assert_allclose(to_picture(corners, square), oracle(corners), atol=0.03)
    assert square.degrees == pytest.approx(math.degrees(oracle.rotation), abs=0.005)


def test_marks_of_a_turned_face_are_cut_out_where_the_template_has_them() -> None:
    points = to_picture(ARCFACE, Square(150.0, 120.0, 112.0, 30.0))
    picture = np.full((240, 320, 3), 100, np.uint8)
    for x, y in points.round().astype(int):
        picture[y - 1 : y + 1, x - 1 : x + 1] = 255
    face = cut(picture[None], [aligned_square(points, ARCFACE)], 112)[0, ..., 0].astype(int)
    for x, y in (112 * ARCFACE).round().astype(int):
        near = face[y - 5 : y + 5, x - 5 : x + 5]
        assert near.max() > 200
        near[:] = 100
    # And nothing of them is anywhere else.
    assert abs(face - 100).max() <= 1
