"""The one person that a clip is about, out of all the faces that were found in its frames.

Shape letters: T frames, K faces found in one frame.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from pipeline.common.frames import OTHER_SHOT, FaceTrack

Array = npt.NDArray[np.float32]


class Detections(NamedTuple):
    """A frame's faces.

    Boxes (K, 4) are pixel x1, y1, x2, y2, points (K, 5, 2) pixel x, y, scores (K,) in [0, 1].
    """

    boxes: Array
    points: Array
    scores: Array


class _Face(NamedTuple):
    """A detection: frame, row among the frame's detections, centre (2,) and size in pixels."""

    frame: int
    shot: int
    row: int
    centre: Array
    size: float
    score: float


def main_face(
    frames: Sequence[Detections], shots: Sequence[int], *, max_jump: float, max_gap: int
) -> FaceTrack:
    """Follow the most prominent person through a clip, never switching to somebody else.

    Faces of neighbouring frames are matched one to one into tracklets; tracklets that follow one
    another are joined where the later one starts, soon enough, at the place at which the earlier
    one ended. A match moves by at most `max_jump` face sizes and changes its size at most by a
    factor of two. The chain with the largest sum of score times face size (the square root of the
    box area) is the main face. Frames in which that person is not found are masked, also when
    others are visible. Nobody is followed from one shot into another: who stands there now may be
    anybody.

    Args:
        frames: The detections of each of the T frames.
        shots: Which shot each frame is of; the faces of those of `OTHER_SHOT` are passed over.
        max_jump: Largest movement of the centre between two sightings, in face sizes.
        max_gap: Most frames without a sighting after which a face at the same place still counts as
            the same person.
    """
    track = FaceTrack(
        np.zeros((len(frames), 4), np.float32),
        np.zeros((len(frames), 5, 2), np.float32),
        np.zeros(len(frames), bool),
    )
    faces = [
        [] if shot == OTHER_SHOT else _faces(t, shot, found)
        for t, (shot, found) in enumerate(zip(shots, frames, strict=True))
    ]
    for face in _best_chain(_tracklets(faces, max_jump), max_jump, max_gap):
        track.boxes[face.frame] = frames[face.frame].boxes[face.row]
        track.points[face.frame] = frames[face.frame].points[face.row]
        track.mask[face.frame] = True
    return track


def _faces(frame: int, shot: int, found: Detections) -> list[_Face]:
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    sizes = np.sqrt(np.prod(np.maximum(found.boxes[:, 2:] - found.boxes[:, :2], 1), axis=1))
    return [
        _Face(frame, shot, row, centres[row], float(sizes[row]), float(score))
        for row, score in enumerate(found.scores)
    ]


def _movement(one: _Face, other: _Face, max_jump: float) -> float:
    """Distance of the centres in face sizes; infinite where the two cannot be one person."""
    distance = float(np.linalg.norm(one.centre - other.centre)) * 2 / (one.size + other.size)
    same_size = max(one.size, other.size) <= 2 * min(one.size, other.size)
    possible = one.shot == other.shot and same_size and distance <= max_jump
    return distance if possible else np.inf


def _tracklets(frames: list[list[_Face]], max_jump: float) -> list[list[_Face]]:
    """Runs of matched faces over consecutive frames, in the order in which they begin."""
    tracklets: list[list[_Face]] = []
    for t, faces in enumerate(frames):
        open_tracklets = [tracklet for tracklet in tracklets if tracklet[-1].frame == t - 1]
        costs = np.array(
            [
                [_movement(tracklet[-1], face, max_jump) for face in faces]
                for tracklet in open_tracklets
            ]
        ).reshape(len(open_tracklets), len(faces))
        # A forbidden match must cost more than any number of allowed ones.
        forbidden = max_jump * (len(faces) + 1)
        matches = zip(*linear_sum_assignment(np.minimum(costs, forbidden)), strict=True)
        matched = {j: open_tracklets[i] for i, j in matches if np.isfinite(costs[i, j])}
        for j, face in enumerate(faces):
            if j in matched:
                matched[j].append(face)
            else:
                tracklets.append([face])
    return tracklets


def _best_chain(tracklets: list[list[_Face]], max_jump: float, max_gap: int) -> list[_Face]:
    """The faces of the heaviest chain of tracklets: a longest path from left to right."""
    totals: list[float] = []
    chains: list[list[_Face]] = []
    for i, tracklet in enumerate(tracklets):
        joinable = [
            j
            for j in range(i)
            if 1 <= tracklet[0].frame - chains[j][-1].frame <= max_gap + 1
            and np.isfinite(_movement(chains[j][-1], tracklet[0], max_jump))
        ]
        best = max(joinable, key=totals.__getitem__, default=None)
        weight = sum(face.score * face.size for face in tracklet)
        totals.append(weight + (totals[best] if best is not None else 0.0))
        chains.append([*(chains[best] if best is not None else []), *tracklet])
    return chains[int(np.argmax(totals))] if chains else []
