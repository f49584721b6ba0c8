"""A video as it is collected: whether it can be read, and the spans that clips are drawn from.

A span is the whole video or, where faces are wanted, a stretch in which one face is followed.

Shape letters: K looks for a face.
"""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt

from pipeline.common.files import is_lfs_pointer
from pipeline.common.frames import FaceSettings, FaceTrack
from pipeline.common.params import Section
from pipeline.pretrain.seek import VideoTrack, missing, read_moments
from pipeline.video.container import Deadline, UnusableVideo
from pipeline.video.crops import face_squares, shrink
from pipeline.video.faces import FaceDetector
from pipeline.video.mtcnn import LONGER_SIDE
from pipeline.video.pictures import same_size
from pipeline.video.streams import find_stream
from pipeline.video.tracks import main_face

# Frames of a video without times that are decoded at most to reach one of them.
_MOST_UNTIMED = 3_000
# Frames that must decode, in the middle of a video.
_TRIED = 16
# Looks for one face after which the next may be another one; pictures that are in memory at once.
_LOOKS = 32


class FaceSearch(Section):
    """What of a video is taken.

    Attributes:
        crop: `whole` pictures, or a square around the `face`.
        margin: Side of the square over the longer side of the face's box.
        step: Frames from one look for the face to the next; between them it moves evenly.
        faces: How faces are found and followed; `max_gap` counts looks.
    """

    crop: Literal["whole", "face"]
    margin: Annotated[float, Field(ge=1, le=4)]
    step: PositiveInt
    faces: FaceSettings


class FoundSpan(NamedTuple):
    """Successive frames of a video.

    Attributes:
        first: Number of the first frame.
        num_frames: How many.
        squares: (K, 4) around the face in every `FaceSearch.step`-th frame; none of whole pictures.
    """

    first: int
    num_frames: int
    squares: npt.NDArray[np.float32]


class FoundVideo(NamedTuple):
    """A video that can be read.

    Attributes:
        track: Which stream.
        points: When each frame is first shown, ascending.
        tick: Seconds of a unit of these.
        spans: At least one.
    """

    track: VideoTrack
    points: npt.NDArray[np.int64]
    tick: float
    spans: list[FoundSpan]


def look_at(path: Path, search: FaceSearch, detector: FaceDetector | None) -> FoundVideo:
    """Count a video's frames, try some of them, and find its faces where they are wanted.

    Args:
        path: The file.
        search: What of it is taken.
        detector: Of faces, where they are wanted.

    Raises:
        UnusableVideo: It cannot be read, or shows no face.
    """
    if not path.is_file():
        raise missing(path)
    if is_lfs_pointer(path):
        raise UnusableVideo("lfs_pointer", f"{path.name}: a Git LFS pointer; run `git lfs pull`")
    stream = find_stream(path, Deadline(path))
    points = np.array(stream.timeline.points, np.int64)
    if not len(points):
        raise UnusableVideo("no_frames", f"{path.name}: no frame can be decoded")
    if not stream.is_timed and len(points) > _MOST_UNTIMED:
        raise UnusableVideo(
            "no_times",
            f"{path.name}: does not say when each of its {len(points):,} frames is shown, so that "
            "all before a clip would be decoded to reach it; convert it: ffmpeg -i FILE FILE.mp4",
        )
    track = VideoTrack(stream.number, stream.is_timed, stream.pixel_aspect)
    tried = points[max(0, (len(points) - _TRIED) // 2) :][:_TRIED]
    read_moments(path, track, tried.tolist())
    spans = [FoundSpan(0, len(points), np.empty((0, 4), np.float32))]
    if detector:
        spans = _face_spans(path, track, points, search, detector)
    return FoundVideo(track, points, float(stream.timeline.tick), spans)


def _face_spans(
    path: Path,
    track: VideoTrack,
    points: npt.NDArray[np.int64],
    search: FaceSearch,
    detector: FaceDetector,
) -> list[FoundSpan]:
    looks = np.arange(0, len(points), search.step)
    spans: list[FoundSpan] = []
    for begin in range(0, len(looks), _LOOKS):
        part = looks[begin : begin + _LOOKS]
        try:
            pictures = same_size(read_moments(path, track, points[part].tolist()))
        except UnusableVideo:
            continue  # No clip is drawn from where the video is damaged.
        copies, scale = shrink(pictures, LONGER_SIDE)
        # Only every `step`-th frame is decoded, and so cuts are not known.
        shots = [0] * len(part)
        jump, gap = search.faces.max_jump, search.faces.max_gap
        face = main_face(detector.detect(copies), shots, max_jump=jump, max_gap=gap)
        seen = np.flatnonzero(face.mask)
        if len(seen) < 2:
            continue
        first, end = int(seen[0]), int(seen[-1]) + 1
        followed = FaceTrack(
            face.boxes[first:end] / np.float32(scale),
            face.points[first:end] / np.float32(scale),
            face.mask[first:end],
        )
        if search.faces.enough(followed):
            squares = face_squares(followed, margin=search.margin, level=False)
            spans.append(
                FoundSpan(
                    int(part[first]),
                    (len(squares) - 1) * search.step + 1,
                    np.array(squares, np.float32),
                )
            )
    if not spans:
        raise UnusableVideo(
            "no_face", f"{path.name}: no face can be followed in any of {len(looks)} looks"
        )
    return spans
