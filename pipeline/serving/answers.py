"""What models say of the people in a video, as a table over time and in a few words.

Shape letters: M models, C classes, T frames of a window, K numbers of a single face.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.serving.face_models import NO_FACE_MODELS, FaceColumns

Array = npt.NDArray[np.float32]

POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
BOX = ("box_x", "box_y", "box_width", "box_height")
LANDMARKS = tuple(f"{point}_{axis}" for point in POINTS for axis in "xy")
# Seconds that are kept of a time.
_DECIMALS = 3


@dataclass
class Moment:
    """A person at a point of the film.

    Places are fractions of the whole picture, its width for x and its height for y.

    Attributes:
        seconds: After the first frame of the film.
        box: (4,) x, y of the top left corner, width, height, by the detector.
        points: (5, 2) by the detector.
        probabilities: Of each window over the moment, (M, C).
        model_boxes: Of each window (4,), as the models have it; none of models without box head.
        model_points: Of each window (5, 2).
        spans: First and last second of each window.
        face: (K,) what is said of the face alone, which is the same in every window.
    """

    seconds: float
    box: Array
    points: Array
    probabilities: list[Array] = field(default_factory=list)
    model_boxes: list[Array] = field(default_factory=list)
    model_points: list[Array] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)
    face: Array = field(default_factory=lambda: np.zeros(0, np.float32))


class Answers:
    """Collects what is said of every person at every point.

    Args:
        classes: C, in order.
        num_models: M.
        face_columns: What is said of single faces.
    """

    def __init__(
        self,
        classes: Sequence[str],
        num_models: int,
        face_columns: FaceColumns = NO_FACE_MODELS.columns,
    ) -> None:
        self.classes = list(classes)
        self.num_models = num_models
        self.face_columns = face_columns
        self._moments: dict[tuple[int, int], Moment] = {}
        # Of moments over which no window comes any more; the class by its number.
        self._rows: list[npt.NDArray[np.float64]] = []

    def at(self, point: int, person: int, moment: Moment) -> Moment:
        """The moment of a person at a point; the given one where there was none before."""
        return self._moments.setdefault((point, person), moment)

    def close(self, point: int) -> None:
        """Keep of the moments before a point their rows alone: an hour of film has many."""
        for key in sorted(key for key in self._moments if key[0] < point):
            self._rows.append(self._row(key[1], self._moments.pop(key)))

    def table(self) -> pd.DataFrame:
        """A row for each person and moment, by time; docs/predict.md describes the columns."""
        rows = [
            *self._rows,
            *(self._row(person, moment) for (_, person), moment in sorted(self._moments.items())),
        ]
        names = columns(self.classes, self.num_models, self.face_columns)
        if not rows:
            return pd.DataFrame([], columns=names)
        table = pd.DataFrame(np.stack(rows), columns=names)
        table["label"] = [self.classes[i] for i in table["label"].astype(int)]
        for name in self.face_columns.names[:1]:
            table[name] = [self.face_columns.classes[i] for i in table[name].astype(int)]
        return table.astype({"person": "int64", "num_windows": "int64"})

    def _row(self, person: int, moment: Moment) -> npt.NDArray[np.float64]:
        by_model = np.mean(moment.probabilities, axis=0)
        means = by_model.mean(axis=0)
        spreads = by_model.std(axis=0).tolist() if self.num_models > 1 else []
        if moment.model_boxes:
            said = [
                *np.mean(moment.model_boxes, axis=0),
                *np.mean(moment.model_points, axis=0).flatten(),
            ]
        else:
            said = [np.nan] * len(BOX + LANDMARKS)
        values = [
            round(moment.seconds, _DECIMALS),
            person,
            int(means.argmax()),
            *means.tolist(),
            *spreads,
            round(min(start for start, _ in moment.spans), _DECIMALS),
            round(max(end for _, end in moment.spans), _DECIMALS),
            len(moment.spans),
            *(float(value) for value in (*moment.box, *moment.points.flatten(), *said)),
            *moment.face.tolist(),
        ]
        return np.array(values, np.float64)


def columns(
    classes: Sequence[str],
    num_models: int,
    face_columns: FaceColumns = NO_FACE_MODELS.columns,
) -> list[str]:
    """Of a video's table, in order; the spread over models is told of several ones."""
    return [
        "seconds",
        "person",
        "label",
        *(f"probability_{name}" for name in classes),
        *(f"spread_{name}" for name in classes if num_models > 1),
        "window_start",
        "window_end",
        "num_windows",
        *BOX,
        *LANDMARKS,
        *(f"model_{name}" for name in (*BOX, *LANDMARKS)),
        *face_columns.names,
    ]


def summary(table: pd.DataFrame, classes: Sequence[str], *, step: float) -> list[dict[str, Any]]:
    """Of each person when it was seen, what it showed on the whole, and when it showed what.

    Args:
        table: Of one video.
        classes: In order.
        step: Seconds from one point of the film to the next; a longer pause ends a stretch.
    """
    people = []
    for number, rows in table.groupby("person"):
        means = rows[[f"probability_{name}" for name in classes]].mean()
        probabilities = dict(zip(classes, means.round(4).tolist(), strict=True))
        people.append(
            {
                "person": int(str(number)),
                "first": float(rows["seconds"].iloc[0]),
                "last": float(rows["seconds"].iloc[-1]),
                "moments": len(rows),
                "label": max(probabilities, key=probabilities.__getitem__),
                "probabilities": probabilities,
                "stretches": _stretches(rows, step),
            }
        )
    return people


def _stretches(rows: pd.DataFrame, step: float) -> list[dict[str, Any]]:
    """Runs of one label, in the order of time."""
    begins = (rows["label"] != rows["label"].shift()) | (rows["seconds"].diff() > 1.5 * step)
    return [
        {
            "start": float(run["seconds"].iloc[0]),
            "end": float(run["seconds"].iloc[-1]),
            "label": str(run["label"].iloc[0]),
        }
        for _, run in rows.groupby(begins.cumsum())
    ]
