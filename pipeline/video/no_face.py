"""Why a clip is refused for want of a face: what was found in its place, where, and what helps.

Shape letters: T frames, H x W pixels of a picture.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.common.frames import FaceSettings, FaceTrack
from pipeline.video.crops import shrink
from pipeline.video.faces import FaceDetector
from pipeline.video.tracks import main_face

# Smaller faces than the settings ask for are looked for in larger copies.
_LONGER_SIDE, _SMALLEST_FACE = 960, 20


def why_no_face(
    pictures: npt.NDArray[np.uint8],
    shots: Sequence[int],
    track: FaceTrack,
    scale: float,
    faces: FaceSettings,
) -> str:
    """A sentence for the person whose video it is.

    Args:
        pictures: (T, H, W, 3)
        shots: Which shot each of them is of.
        track: The main face, in pixels of the copies in which it was looked for.
        scale: Of these copies.
        faces: That the face does not satisfy.
    """
    if track.mask.any():
        advice = "cut the clip to where the face is seen, or lower faces.min_detected"
    else:
        copies, finer = shrink(pictures, _LONGER_SIDE)
        found = FaceDetector(_SMALLEST_FACE).detect(copies)
        small = main_face(found, shots, max_jump=faces.max_jump, max_gap=faces.max_gap)
        if not small.mask.any():
            return f"no face, not even a small one, in any of {len(pictures)} frames"
        track = FaceTrack(small.boxes * scale / finer, small.points, small.mask)
        advice = "cut the video closer to the face, or lower faces.min_face_size"
    num_shots = len(set(shots))
    parted = f", which are {num_shots} shots" if num_shots > 1 else ""
    height, width = (round(side * scale) for side in pictures.shape[1:3])
    boxes = track.boxes[track.mask]
    x, y = np.median(boxes[:, :2] + boxes[:, 2:], axis=0) / 2
    side = np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1))
    return (
        f"a face of {side:.0f} pixels, at {x / width:.0%} of the width and {y / height:.0%} of the "
        f"height of {width} x {height} pixels, in {track.mask.sum()} of {len(pictures)} frames"
        f"{parted}; "
        f"{faces.min_face_size} pixels in {faces.min_detected:.0%} of the frames are needed: "
        f"{advice}"
    )
