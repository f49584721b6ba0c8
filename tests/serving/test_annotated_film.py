from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small import FRAMES
from small_predictor import CLASSES, HEIGHT, RATE, SECONDS, WIDTH, places, render_film

from pipeline.serving.annotated_film import write_annotated_film
from pipeline.serving.answers import BOX, LANDMARKS, columns
from pipeline.serving.drawing import Drawing, Layers
from pipeline.video.film import Film

GREY = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
YELLOW = (255, 176, 0)
GREEN = (0, 255, 136)


def table_of(times: list[float], *, x: list[float], happy: list[float]) -> pd.DataFrame:
    """A person whose box is 0.1 wide and 0.2 high; the model has it 0.5 further to the right."""
    table = pd.DataFrame(0.0, index=range(len(times)), columns=columns(CLASSES, 1))
    table["seconds"], table["person"] = times, 1
    table["probability_happy"], table["probability_sad"] = happy, [1 - p for p in happy]
    table["box_x"], table["box_y"], table["box_width"], table["box_height"] = x, 0.3, 0.1, 0.2
    for name in (*BOX, *LANDMARKS):
        table[f"model_{name}"] = table[name]
    table["model_box_x"] += 0.5
    return table


def drawing(table: pd.DataFrame, *, model: bool = False) -> Drawing:
    layers = Layers(detector=not model, model=model)
    return Drawing(table, CLASSES, seconds=10, step=0.5, layers=layers)


def edges(picture: np.ndarray, colour: tuple[int, int, int]) -> list[int]:
    """Columns, in the upper edge of the box, that have that colour: the first and the last."""
    row = picture[round(0.3 * HEIGHT)]
    found = np.flatnonzero((row == colour).all(axis=1))
    return [int(found[0]), int(found[-1])] if len(found) else []


def test_a_box_moves_on_a_straight_line_between_two_moments() -> None:
    shown = drawing(table_of([1.0, 1.5], x=[0.2, 0.4], happy=[1, 1]))
    assert edges(shown.draw(GREY, 1.0), YELLOW) == pytest.approx([128, 192], abs=1)
    assert edges(shown.draw(GREY, 1.25), YELLOW) == pytest.approx([192, 256], abs=1)
    assert edges(shown.draw(GREY, 1.5), YELLOW) == pytest.approx([256, 320], abs=1)


def test_nothing_is_drawn_where_nobody_was_seen() -> None:
    shown = drawing(table_of([1.0, 5.0], x=[0.2, 0.2], happy=[1, 1]))
    for seconds, seen in ((0.3, False), (1.4, True), (3.0, False), (4.6, True), (9.0, False)):
        assert bool(edges(shown.draw(GREY, seconds), YELLOW)) is seen


def test_the_models_box_is_drawn_on_request_and_in_another_colour() -> None:
    table = table_of([1.0], x=[0.2], happy=[1])
    assert edges(drawing(table).draw(GREY, 1.0), GREEN) == []
    assert edges(drawing(table, model=True).draw(GREY, 1.0), YELLOW) == []
    found = edges(drawing(table, model=True).draw(GREY, 1.0), GREEN)
    assert found == pytest.approx([448, 512], abs=1)


def test_bars_are_as_long_as_the_probabilities() -> None:
    def yellow(happy: float) -> int:
        picture = drawing(table_of([1.0], x=[0.2], happy=[happy])).draw(GREY, 1.0)
        return int((picture[200:340] == YELLOW).all(axis=2).sum())

    # Of two bars one grows as the other shrinks; the text beside them is white.
    assert yellow(1.0) == pytest.approx(yellow(0.5), rel=0.1)
    assert yellow(0.5) > 300


def test_a_film_has_every_picture_of_the_video_with_the_box_where_the_face_is(
    tmp_path: Path,
) -> None:
    video = render_film(tmp_path / "film.mp4")
    times = [i / RATE for i in range(0, 160, 4)]
    centres = [places(seconds)[0][0] / WIDTH for seconds in times]
    table = table_of(times, x=[x - 0.05 for x in centres], happy=[1] * len(times))
    shown = Drawing(
        table, CLASSES, seconds=SECONDS, step=0.4, layers=Layers(detector=True, model=False)
    )
    out = tmp_path / "annotated.mp4"
    write_annotated_film(video, out, shown, FRAMES, num_threads=1, progress=False)
    film = Film(out, FRAMES)
    assert (film.num_frames, film.width, film.height) == (SECONDS * RATE, WIDTH, HEIGHT)
    assert film.seconds == pytest.approx(SECONDS)
    pictures = list(film.pictures(SECONDS * RATE))
    for number in (0, 50, 100):
        row = pictures[number].picture[round(0.3 * HEIGHT)].astype(int)
        close = np.flatnonzero(abs(row - YELLOW).max(axis=1) < 60)
        assert close.mean() == pytest.approx(places(number / RATE)[0][0], abs=15)
    assert not (abs(pictures[200].picture[:300].astype(int) - YELLOW).max(axis=2) < 60).any()
