"""Trained models on their own: from a video to people and their expressions over time.

    from pipeline.serving.predictor import load_model

    prediction = load_model("runs/fold1").predict("interview.mp4")
    prediction.table  # a row for each person and moment

Packed into every model that MLflow keeps (pipeline/tracking/packaging.py), and run there without
the rest of the project.

Shape letters: M models, P points of a window, S side of a stored frame, C classes.
"""

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.common.frames import FaceSettings, FaceTrack, FrameSettings
from pipeline.serving.answers import Answers, Moment, columns, summary
from pipeline.serving.face_models import NO_FACE_MODELS, FaceModels, Sighting
from pipeline.serving.models import open_model
from pipeline.serving.people import People
from pipeline.serving.places import Array, Places
from pipeline.serving.sight import Eye, Window
from pipeline.serving.windows import WindowChoice
from pipeline.store.strips import decode_strip, encode_strip
from pipeline.video.crops import Square, cut, face_squares

# People of one window that a model takes at once.
_BATCH = 8
# From one window to the next, as a share of a window.
_HOP = 0.25


class VideoPrediction(NamedTuple):
    """What was said of a video.

    Attributes:
        table: A row for each person and moment; `pipeline.serving.answers.columns` are in it.
        summary: The video's length, its windows, its people; for JSON.
    """

    table: pd.DataFrame
    summary: dict[str, Any]


class Predictor:
    """Models that answer together, each as its test asked it.

    Args:
        weights: Of each model what `save_model` wrote, model.safetensors, or its folder; or the
            folder of one that was exported to ONNX.
        device: Where the models run, such as `cpu` or `cuda`; faces are found on the CPU, and
            there ONNX runs.
        face_models: Asked about the face of each person and moment as well.
        num_threads: Of ONNX; 0: as many as there are cores.

    Attributes:
        untested: Why nobody knows how good a model among them is, as it was trained on everybody;
            empty where each was tested.

    Raises:
        FileNotFoundError: A model is not there.
        ModuleNotFoundError: What a model runs in is not installed: onnxruntime, or torch.
        ValueError: No model, one that cannot be read, or models that were trained on other classes
            or on frames that were read in another way; or models of faces beside models of
            whole frames, whose pictures are stretched.
    """

    def __init__(
        self,
        weights: Sequence[Path],
        device: str,
        face_models: FaceModels = NO_FACE_MODELS,
        num_threads: int = 0,
    ) -> None:
        if not weights:
            raise ValueError("no model to predict with")
        self.models = [open_model(path, device, num_threads) for path in weights]
        described = self.models[0].metadata
        for key in ("classes", "frames", "faces"):
            for path, model in zip(weights, self.models, strict=True):
                if model.metadata[key] != described[key]:
                    raise ValueError(
                        f"{weights[0]} and {path} cannot answer together: {key} of their trainings "
                        "are not the same"
                    )
        self.classes: list[str] = described["classes"]
        seconds = [model.metadata["clip_seconds"] for model in self.models]
        self.clip_seconds = float(np.median(seconds))
        self.frames = FrameSettings.model_validate(described["frames"])
        self.faces = FaceSettings.model_validate(described["faces"])
        if face_models.columns.names and self.frames.crop == "none":
            raise ValueError(
                f"{weights[0]} was trained with frames.crop: none, on stretched pictures, in which "
                "the faces are not those that a model of single faces knows"
            )
        self.face_models = face_models
        self.eye = Eye(self.frames, self.models[0].detector(self.faces.min_face_size))
        told = [model.metadata for model in self.models]
        self.untested = next((one["untested"] for one in told if "untested" in one), "")

    def columns(self) -> list[str]:
        """Of the table of a video."""
        return columns(self.classes, len(self.models), self.face_models.columns)

    def windows(self, length: float | None = None, hop: float | None = None) -> WindowChoice:
        """Windows of `length` seconds that start `hop` seconds after one another.

        By default they are as long as the training clips, in the median, and start a quarter of
        their length after one another.

        Raises:
            ValueError: They do not overlap, or the training clips declared no length.
        """
        length = self.clip_seconds if length is None else length
        if not length:
            raise ValueError(
                "the clips that the model was trained on declared no length: choose one"
            )
        return WindowChoice(length, _HOP * length if hop is None else hop)

    def predict(
        self,
        video: str | PathLike[str],
        windows: WindowChoice | None = None,
        *,
        num_threads: int = 1,
        progress: bool = False,
    ) -> VideoPrediction:
        """Everybody in a video or picture, over time.

        Args:
            video: The file.
            windows: Over which a model looks; by default those of `windows`.
            num_threads: That decode the video and cut faces out of it.
            progress: Whether to show a bar with the time that is left.

        Raises:
            UnusableVideo: The video cannot be used; the message says why.
        """
        path = Path(video)
        choice = windows or self.windows()
        sight = self.eye.look(path, choice, num_threads=num_threads, progress=progress)
        people = People(self.faces)
        answers = Answers(self.classes, len(self.models), self.face_models.columns)
        with ThreadPoolExecutor(num_threads) as threads:
            for window in sight.windows:
                answers.close(window.first)
                self._answer(window, people, sight.aspect, answers, threads)
        table = answers.table()
        step = sight.seconds / sight.places.num_points
        return VideoPrediction(
            table,
            {
                "video": path.name,
                "seconds": round(sight.seconds, 3),
                "frames": sight.num_frames,
                "window_seconds": round(step * sight.places.size, 3),
                "step_seconds": round(step, 6),
                "windows": len(sight.places.starts),
                "models": len(self.models),
                "untested": self.untested,
                "people": summary(table, self.classes, step=step),
            },
        )

    def _answer(
        self, window: Window, people: People, aspect: float, answers: Answers, threads: Executor
    ) -> None:
        """Ask the models about everybody in a window."""
        found = people.follow(window.first, window.found, window.shots)
        if self.frames.crop != "face":
            # Such a model sees the whole frame, and was trained on its most prominent person.
            found = found[:1]
        height, width = window.pictures.shape[1:3]
        places = Places(width, height, self.frames.crop, aspect)
        tracks = [_enlarged(person.track, window.scale) for person in found]
        squares = [self._squares(track) for track in tracks]
        strips = [self._strip(window.pictures, one, threads) for one in squares]
        said = [
            answer
            for start in range(0, len(strips), _BATCH)
            for answer in self._ask(strips[start : start + _BATCH])
        ]
        new: list[tuple[Moment, Sighting]] = []
        for person, track, own, answer in zip(found, tracks, squares, said, strict=True):
            for i in np.flatnonzero(person.own):
                moment = answers.at(
                    window.first + int(i),
                    person.number,
                    Moment(
                        float(window.seconds[i]),
                        places.box(track.boxes[i]),
                        places.points(track.points[i]),
                    ),
                )
                if not moment.spans:
                    new.append((moment, Sighting(window.pictures[i], track.points[i])))
                moment.probabilities.append(answer.probabilities)
                moment.spans.append(window.span)
                if answer.boxes is not None and answer.points is not None:
                    moment.model_boxes.append(places.box_of_model(answer.boxes[i], own[i]))
                    moment.model_points.append(places.points_of_model(answer.points[i], own[i]))
        rows = self.face_models.ask([sighting for _, sighting in new])
        for (moment, _), row in zip(new, rows, strict=True):
            moment.face = row

    def _squares(self, track: FaceTrack) -> list[Square]:
        """What a model sees of each picture."""
        if self.frames.crop == "face":
            return face_squares(track, margin=self.frames.margin, level=self.frames.level)
        size = self.frames.size
        return [Square(size / 2, size / 2, size, 0.0)] * len(track.mask)

    def _strip(
        self, pictures: npt.NDArray[np.uint8], squares: Sequence[Square], threads: Executor
    ) -> bytes:
        frames = pictures
        if self.frames.crop == "face":
            frames = np.concatenate(list(threads.map(self._cut, pictures[:, None], squares)))
        # In training every clip has been a JPEG, which leaves its traces.
        return encode_strip(frames, self.frames.jpeg_quality)

    def _cut(self, picture: npt.NDArray[np.uint8], square: Square) -> npt.NDArray[np.uint8]:
        """A frame (1, S, S, 3) of a picture (1, H, W, 3)."""
        return cut(picture, [square], self.frames.size)

    def _ask(self, strips: Sequence[bytes]) -> "list[_Answer]":
        """What the models say of each of some people."""
        probabilities, boxes, points = [], [], []
        for model in self.models:
            frames = np.stack([decode_strip(strip, model.image_size) for strip in strips])
            said = model.ask(frames)
            probabilities.append(said.probabilities)
            if said.boxes is not None and said.points is not None:
                boxes.append(said.boxes)
                points.append(said.points)
        by_person = np.stack(probabilities, axis=1)
        mean_boxes = np.mean(boxes, axis=0) if boxes else None
        mean_points = np.mean(points, axis=0) if points else None
        return [
            _Answer(
                by_person[i],
                None if mean_boxes is None else mean_boxes[i],
                None if mean_points is None else mean_points[i],
            )
            for i in range(len(strips))
        ]


class _Answer(NamedTuple):
    """Of one person in one window: (M, C), and the models' means of (P, 4) and (P, 5, 2)."""

    probabilities: Array
    boxes: Array | None
    points: Array | None


def _enlarged(track: FaceTrack, scale: float) -> FaceTrack:
    return FaceTrack(track.boxes / scale, track.points / scale, track.mask)


def load_model(
    *weights: str | PathLike[str],
    device: str = "cpu",
    face_models: FaceModels = NO_FACE_MODELS,
) -> Predictor:
    """A model, or several of one experiment that answer together; see `Predictor`."""
    return Predictor([Path(path) for path in weights], device, face_models)
