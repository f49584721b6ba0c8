"""Every face in a clip's frames, by MTCNN.

Detection runs on the CPU, one thread per process: it comes out the same on every run, which a GPU
does not promise, and at less than a tenth of a second a clip the CPU is fast enough
(docs/performance.md).

Shape letters: T frames, S side of a square frame in pixels.
"""

import math

import numpy as np
import torch
from facenet_pytorch import MTCNN

from pipeline.common.frames import Frames
from pipeline.video.tracks import Detections

# Coordinates are kept to a hundredth of a pixel; finer digits differ from one processor to the
# next.
_DECIMALS = 2
# MTCNN's own smallest face, in pixels, and the step from one scale of the picture to the next.
_DEFAULT_FACE, _STEP = 20, 0.709


class FaceDetector:
    """MTCNN with the weights that ship with facenet-pytorch."""

    def __init__(self, min_face_size: int) -> None:
        # A box depends a little on the scales at which MTCNN looks. Leaving out the finest ones of
        # its default, instead of starting at others, gives the default's boxes.
        left_out = math.floor(math.log(min_face_size / _DEFAULT_FACE, 1 / _STEP))
        smallest = _DEFAULT_FACE / _STEP**left_out
        self.smallest_frame = math.ceil(smallest)
        mtcnn = MTCNN(keep_all=True, min_face_size=smallest, factor=_STEP, device="cpu")
        # On a CPU the networks are fastest with channels last, and scaling and cropping, as
        # `detect` has it, with channels first: together half the time, for the same faces.
        self.mtcnn = mtcnn.to(memory_format=torch.channels_last)

    def detect(self, frames: Frames) -> list[Detections]:
        """Find every face of at least `min_face_size` pixels in frames (T, S, S, 3).

        Raises:
            ValueError: No such face fits into a frame.
        """
        if frames.shape[1] < self.smallest_frame:
            raise ValueError(
                f"no face of faces.min_face_size fits into a frame of {frames.shape[1]} pixels; "
                "lower it, or raise frames.size"
            )
        planes = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
        found = self.mtcnn.detect(planes.permute(0, 2, 3, 1), landmarks=True)
        return [_detections(*frame) for frame in zip(*found, strict=True)]


def _detections(boxes: object, scores: object, points: object) -> Detections:
    """MTCNN's answer for a frame, which is None where it found nothing, as arrays."""
    if boxes is None:
        return Detections(*(np.zeros(shape, np.float32) for shape in ((0, 4), (0, 5, 2), (0,))))
    arrays = (np.asarray(values, dtype=np.float32) for values in (boxes, points, scores))
    return Detections(*(array.round(_DECIMALS) for array in arrays))
