"""What there is to see in a video: its pictures, window by window, and the faces in them.

Shape letters: P points of a window, H x W pixels of a picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pipeline.common.frames import FrameSettings
from pipeline.serving.models import Detector
from pipeline.serving.windows import WindowChoice, Windows, place_windows
from pipeline.video.crops import shrink
from pipeline.video.decode import read_pictures
from pipeline.video.film import Film
from pipeline.video.mtcnn import LONGER_SIDE
from pipeline.video.picture_file import is_picture, read_picture
from pipeline.video.pictures import Picture
from pipeline.video.tracks import Detections


@dataclass(frozen=True)
class Window:
    """P points of a film, one after the other.

    Attributes:
        first: The number of the first one in the film, from 0.
        span: First and last second of the window.
        seconds: (P,) when each picture is shown.
        shots: (P,) which shot each is of.
        pictures: (P, H, W, 3) uint8.
        found: The faces in copies of the pictures.
        scale: Of these copies.
    """

    first: int
    span: tuple[float, float]
    seconds: npt.NDArray[np.float64]
    shots: list[int]
    pictures: npt.NDArray[np.uint8]
    found: list[Detections]
    scale: float


class Sight(NamedTuple):
    """A video that was opened.

    Attributes:
        seconds: Its length; 0 of a picture.
        num_frames: As its packets have it.
        aspect: Width of the whole picture over its height.
        places: Where its windows are.
        windows: To be read once, in order; no more pictures are held than those of one.
    """

    seconds: float
    num_frames: int
    aspect: float
    places: Windows
    windows: Iterator[Window]


class Eye:
    """Looks at videos as the training clips were looked at.

    Args:
        frames: Which frames, how large, and what is cut away.
        detector: Finds the faces.
    """

    def __init__(self, frames: FrameSettings, detector: Detector) -> None:
        self.frames = frames
        self.detector = detector

    def look(self, path: Path, choice: WindowChoice, *, num_threads: int, progress: bool) -> Sight:
        """Open a video or a picture.

        Args:
            path: The file.
            choice: Which windows; a video of up to one and a half of them is read as a training
                clip is.
            num_threads: That decode it.
            progress: Whether to show a bar with the time that is left.

        Raises:
            UnusableVideo: It cannot be used; the message says why.
        """
        size = self.frames.num_stored
        if is_picture(path):
            picture, (width, height) = read_picture(path, self.frames)
            still = self._only_window(np.stack([picture] * size), np.zeros(size), [1] * size, 0.0)
            return Sight(0.0, 1, width / height, Windows(size, size, [0]), still)
        film = Film(path, self.frames, num_threads=num_threads)
        places = place_windows(film.seconds, choice, size)
        if len(places.starts) == 1:
            clip = read_pictures(path, self.frames)
            shots = clip.shots.tolist()
            windows = self._only_window(clip.pictures, clip.times, shots, film.seconds)
        else:
            windows = self._windows(film, places, progress)
        return Sight(film.seconds, film.num_frames, film.width / film.height, places, windows)

    def _only_window(
        self,
        pictures: npt.NDArray[np.uint8],
        times: npt.NDArray[np.float64],
        shots: list[int],
        end: float,
    ) -> Iterator[Window]:
        copies, scale = self._copies(pictures)
        yield Window(0, (0.0, end), times, shots, pictures, self.detector.detect(copies), scale)

    def _windows(self, film: Film, places: Windows, progress: bool) -> Iterator[Window]:
        step = film.seconds / places.num_points
        points = tqdm(
            film.pictures(places.num_points),
            total=places.num_points,
            desc=film.path.name,
            unit="point",
            disable=None if progress else True,
            leave=False,
        )
        starts = iter(places.starts)
        first, start, scale = 0, next(starts), 1.0
        seconds: list[float] = []
        shots: list[int] = []
        pictures: list[Picture] = []
        found: list[Detections] = []
        for number, point in enumerate(points, start=1):
            copies, scale = self._copies(point.picture[None])
            found += self.detector.detect(copies)
            seconds.append(point.seconds)
            shots.append(point.shot)
            pictures.append(point.picture)
            if number < start + places.size:
                continue
            for values in (seconds, shots, pictures, found):
                del values[: start - first]
            first = start
            span = (first * step, (first + places.size) * step)
            times, shown = np.array(seconds), np.stack(pictures)
            yield Window(first, span, times, [*shots], shown, [*found], scale)
            start = next(starts, places.num_points)

    def _copies(self, pictures: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], float]:
        """Pictures in which faces are looked for, and their scale."""
        return shrink(pictures, LONGER_SIDE) if self.frames.crop == "face" else (pictures, 1.0)
