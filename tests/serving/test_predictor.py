from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small import FRAMES
from small_predictor import CLASSES, HEIGHT, WIDTH, places, render_film, save_small_model

from pipeline.serving.predictor import Predictor, VideoPrediction, load_model
from pipeline.serving.windows import WindowChoice
from pipeline.video.container import UnusableVideo
from pipeline.video.film import Film

PROBABILITIES = [f"probability_{name}" for name in CLASSES]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("films") / "film.mp4"
    return render_film(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("runs") / "fold1"
    return save_small_model(folder)


@pytest.fixture(scope="module")
def prediction(film: Path, model: Path) -> VideoPrediction:
    return load_model(model).predict(film)


def test_people_are_followed_while_they_pass_and_leave_and_come_back(
    prediction: VideoPrediction,
) -> None:
    people = prediction.summary["people"]
    seen = sorted((person["first"], person["last"]) for person in people)
    # To a point of the film, 0.4 s.
    np.testing.assert_allclose(seen, [(0, 12), (0, 16), (20, 24)], atol=0.41)
    assert people[2]["first"] > 20


def test_nobody_has_a_label_where_nobody_is_seen(prediction: VideoPrediction) -> None:
    seconds = prediction.table["seconds"]
    assert not seconds.between(16.01, 19.99).any()
    assert len(seconds[seconds < 12]) == 60  # both, at all of 30 points


def test_faces_are_where_they_were_rendered(prediction: VideoPrediction) -> None:
    table = prediction.table
    x = (table["box_x"] + table["box_width"] / 2) * WIDTH
    y = (table["box_y"] + table["box_height"] / 2) * HEIGHT
    for row, middle in ((0, 90), (1, 270)):
        own = (table["seconds"] < 12) & (y.between(middle - 60, middle + 60))
        assert table["person"][own].nunique() == 1
        truth = np.array([places(seconds)[row] for seconds in table["seconds"][own]])
        # A face is not in the very middle of its portrait, but always at the same place of it.
        for found, true in zip((x[own], y[own]), truth.T, strict=True):
            assert (found - true).std() < 3
            assert abs((found - true).mean()) < 30
    # Eyes are above the mouth and inside of the box, the left one to the left.
    assert (table["left_eye_y"] < table["mouth_left_y"]).all()
    assert (table["left_eye_x"] < table["right_eye_x"]).all()
    assert (table["left_eye_x"] > table["box_x"]).all()


def test_windows_are_as_long_as_the_training_clips_and_overlap(prediction: VideoPrediction) -> None:
    assert prediction.summary["window_seconds"] == 1.6
    assert prediction.summary["windows"] == 57  # 60 points of 0.4 s, 4 in a window, one a hop
    table = prediction.table
    middle = table[table["seconds"].between(4, 8)]
    assert (middle["num_windows"] == 4).all()
    np.testing.assert_allclose(middle["window_end"] - middle["window_start"], 2.8, atol=0.002)
    np.testing.assert_allclose(table[PROBABILITIES].sum(axis=1), 1, atol=1e-5)


def test_models_answer_together_by_their_mean(film: Path, model: Path, tmp_path: Path) -> None:
    other = save_small_model(tmp_path / "fold2", seed=1)
    windows = WindowChoice(length=8, hop=6)
    alone = [load_model(path).predict(film, windows).table for path in (model, other)]
    together = load_model(model, other).predict(film, windows).table
    said = np.stack([table[PROBABILITIES] for table in alone])
    np.testing.assert_allclose(together[PROBABILITIES], said.mean(axis=0), atol=1e-6)
    spreads = together[[f"spread_{name}" for name in CLASSES]]
    np.testing.assert_allclose(spreads, said.std(axis=0), atol=1e-6)
    assert spreads.to_numpy().max() > 0.001


@pytest.mark.parametrize("changed", ["classes", "frames"])
def test_models_of_other_trainings_do_not_answer_together(
    model: Path, tmp_path: Path, changed: str
) -> None:
    frames = FRAMES.model_copy(update={"num_frames": 4, "size": 128}).model_dump()
    value: Any = {"classes": ["sad", "happy", "neutral"], "frames": frames}[changed]
    other = save_small_model(tmp_path / "other", **{changed: value})
    with pytest.raises(ValueError, match=f"cannot answer together: {changed}"):
        load_model(model, other)


def test_a_picture_is_a_moment_of_a_person(film: Path, model: Path, tmp_path: Path) -> None:
    shown = next(iter(Film(film, FRAMES).pictures(4))).picture
    upright = Image.fromarray(shown)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side, as phones store portraits
    path = tmp_path / "phone.jpg"
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    prediction = load_model(model).predict(path)
    table = prediction.table
    assert set(table["person"]) == {1, 2}
    assert prediction.summary["seconds"] == 0
    x = (table["box_x"] + table["box_width"] / 2).groupby(table["person"]).first() * WIDTH
    np.testing.assert_allclose(sorted(x), sorted(x for x, _ in places(3)), atol=30)
    assert (table["left_eye_y"] < table["mouth_left_y"]).all()


def test_a_model_of_whole_frames_answers_for_the_most_prominent_person(
    film: Path, tmp_path: Path
) -> None:
    frames = FRAMES.model_copy(update={"num_frames": 4, "size": 224, "crop": "none"}).model_dump()
    folder = save_small_model(tmp_path / "whole", frames=frames)
    table = load_model(folder).predict(film).table
    assert table["num_windows"].sum() <= 57 * 4  # one person in each of the windows
    x = (table["box_x"] + table["box_width"] / 2) * WIDTH
    nearest = [
        min(abs(x0 - found) for x0, _ in places(seconds))
        for seconds, found in zip(table["seconds"], x, strict=True)
    ]
    assert max(nearest) < 40


def test_what_is_no_video_is_refused_by_name(model: Path, tmp_path: Path) -> None:
    predictor: Predictor = load_model(model)
    for name in ("text.mp4", "text.jpg"):
        (tmp_path / name).write_text("not a video")
        with pytest.raises(UnusableVideo, match=f"{name}: not a readable"):
            predictor.predict(tmp_path / name)
        with pytest.raises(UnusableVideo, match=f"absent{name}: no such file"):
            predictor.predict(tmp_path / f"absent{name}")
