"""What was said of a video, drawn into its pictures.

Shape letters: H x W pixels of a picture, C classes.
"""

import bisect
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from pipeline.serving.answers import BOX, LANDMARKS
from pipeline.video.pictures import Picture

# Of people, by number, and over again; told apart also by those who do not see red and green.
_COLOURS = ["#ffb000", "#648fff", "#dc267f", "#33bbee", "#fe6100", "#785ef0", "#ffffff"]
_MODEL = "#00ff88"
# Of the axis of time, in pixels, with a row for each of the first people.
_ROW, _MAX_ROWS = 8, 6


class Layers(NamedTuple):
    """Whose boxes and landmarks are drawn: the detector's, the model's."""

    detector: bool
    model: bool


class Drawing:
    """Draws a video's table into the video.

    Between two moments a face moves on a straight line.

    Args:
        table: Of one video.
        classes: C, in order.
        seconds: Length of the video.
        step: Seconds from one point of the film to the next; over a longer pause nothing is drawn.
        layers: What is drawn beside number, label and probabilities.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        classes: Sequence[str],
        *,
        seconds: float,
        step: float,
        layers: Layers,
    ) -> None:
        self.classes = list(classes)
        self.seconds = max(seconds, 1e-3)
        self.step = step
        self.layers = layers
        self._axis: Image.Image | None = None
        self.people = {int(str(number)): rows for number, rows in table.groupby("person")}
        self.times = {number: rows["seconds"].tolist() for number, rows in self.people.items()}
        self.places = {
            number: rows[[*BOX, *LANDMARKS]].to_numpy() for number, rows in self.people.items()
        }
        self.said_places = {
            number: rows[[f"model_{name}" for name in (*BOX, *LANDMARKS)]].to_numpy()
            for number, rows in self.people.items()
        }
        self.probabilities = {
            number: rows[[f"probability_{name}" for name in self.classes]].to_numpy()
            for number, rows in self.people.items()
        }

    def draw(self, picture: Picture, seconds: float) -> Picture:
        """The picture that is shown at a time, with everybody who is then seen."""
        image = Image.fromarray(picture)
        canvas = ImageDraw.Draw(image)
        font = ImageFont.load_default(max(11, image.height // 40))
        for number in self.people:
            shares = self._shares(number, seconds)
            if shares:
                self._draw_person(canvas, font, image.size, number, shares)
        self._draw_axis(image, seconds)
        return np.asarray(image)

    def _shares(self, number: int, seconds: float) -> list[tuple[int, float]]:
        """A person's moments that count at a time, and how much; none where nobody is seen."""
        times = self.times[number]
        after = bisect.bisect_left(times, seconds)
        if 0 < after < len(times) and times[after] - times[after - 1] <= 1.5 * self.step:
            share = (seconds - times[after - 1]) / (times[after] - times[after - 1])
            return [(after - 1, 1 - share), (after, share)]
        near = range(max(0, after - 1), min(len(times), after + 1))
        nearest = min(near, key=lambda i: abs(times[i] - seconds))
        return [] if abs(times[nearest] - seconds) > self.step else [(nearest, 1.0)]

    def _draw_person(
        self,
        canvas: ImageDraw.ImageDraw,
        font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
        size: tuple[int, int],
        number: int,
        shares: list[tuple[int, float]],
    ) -> None:
        colour = _COLOURS[(number - 1) % len(_COLOURS)]
        place = _mean(self.places[number], shares)
        if self.layers.detector:
            _draw_place(canvas, size, place, colour)
        said = _mean(self.said_places[number], shares)
        if self.layers.model and not np.isnan(said).any():
            _draw_place(canvas, size, said, _MODEL)
        probabilities = _mean(self.probabilities[number], shares)
        line = font.getbbox("Ag")[3] + 2
        left = min(max(0, place[0] * size[0]), size[0] - 9 * line)
        below = (place[1] + place[3]) * size[1] + 2
        top = min(below, size[1] - (len(self.classes) + 1) * line - _MAX_ROWS * _ROW)
        _write(canvas, font, (left, top), f"person {number}", colour)
        for i in np.argsort(-probabilities, kind="stable"):
            top += line
            width = 4 * line * probabilities[i]
            canvas.rectangle((left, top + 1, left + 4 * line, top + line - 2), outline="black")
            canvas.rectangle((left, top + 1, left + width, top + line - 2), fill=colour)
            words = f"{self.classes[i]} {probabilities[i]:.2f}"
            _write(canvas, font, (left + 4 * line + 3, top), words, "white")

    def _draw_axis(self, image: Image.Image, seconds: float) -> None:
        """When the first people are seen, and where the film is now."""
        if self._axis is None or self._axis.width != image.width:
            self._axis = self._whole_axis(image.width)
        image.paste(self._axis, (0, image.height - self._axis.height))
        now = seconds / self.seconds * image.width
        top = image.height - self._axis.height - 3
        ImageDraw.Draw(image).rectangle((now - 1, top, now + 1, image.height), fill="white")

    def _whole_axis(self, width: int) -> Image.Image:
        """A row for each of the first people: the same in every picture."""
        numbers = list(self.people)[:_MAX_ROWS]
        axis = Image.new("RGB", (width, _ROW * len(numbers) + 2))
        canvas = ImageDraw.Draw(axis)
        for row, number in enumerate(numbers):
            y = row * _ROW
            canvas.rectangle((0, y, width, y + _ROW - 2), fill="#202020")
            length = max(1.0, self.step / self.seconds * width)
            colour = _COLOURS[(number - 1) % len(_COLOURS)]
            for time in self.times[number]:
                x = time / self.seconds * width
                canvas.rectangle((x - length / 2, y, x + length / 2, y + _ROW - 2), fill=colour)
        return axis


def _mean(
    rows: npt.NDArray[np.float64], shares: Sequence[tuple[int, float]]
) -> npt.NDArray[np.float64]:
    """Of some rows, by their shares."""
    return np.asarray(sum(share * rows[i] for i, share in shares))


def _draw_place(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    place: npt.NDArray[np.float64],
    colour: str,
) -> None:
    """A box and five points, given as fractions of the picture."""
    scaled = place.reshape(-1, 2) * size
    corner, extent, *points = scaled.tolist()
    # What a model says is unbounded, a width below 0 included.
    (left, right), (top, bottom) = (
        sorted((start, start + length)) for start, length in zip(corner, extent, strict=True)
    )
    canvas.rectangle((left, top, right, bottom), outline=colour, width=2)
    for x, y in points:
        canvas.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)


def _write(
    canvas: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    place: tuple[float, float],
    words: str,
    colour: str,
) -> None:
    canvas.text(place, words, colour, font, stroke_width=2, stroke_fill="black")
