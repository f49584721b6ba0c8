"""Every face in a clip's frames, by MTCNN.

Detection runs on the CPU, one thread per process: it comes out the same on every run, which a GPU
does not promise, and at less than a tenth of a second a clip the CPU is fast enough
(docs/performance.md).

Shape letters: T frames, S side of a square frame in pixels.
"""

import numpy as np
import torch
from facenet_pytorch import MTCNN

from pipeline.common.frames import Frames
from pipeline.video.mtcnn import Pyramid, detections
from pipeline.video.tracks import Detections


class FaceDetector:
    """MTCNN with the weights that ship with facenet-pytorch."""

    def __init__(self, min_face_size: int) -> None:
        self.pyramid = Pyramid.of(min_face_size)
        smallest, step = self.pyramid
        mtcnn = MTCNN(keep_all=True, min_face_size=smallest, factor=step, device="cpu")
        # On a CPU the networks are fastest with channels last, and scaling and cropping, as
        # `detect` has it, with channels first: together half the time, for the same faces.
        self.mtcnn = mtcnn.to(memory_format=torch.channels_last)

    def detect(self, frames: Frames) -> list[Detections]:
        """Find every face of at least `min_face_size` pixels in frames (T, S, S, 3).

        Raises:
            ValueError: No such face fits into a frame.
        """
        self.pyramid.check(frames.shape[1])
        planes = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
        found = self.mtcnn.detect(planes.permute(0, 2, 3, 1), landmarks=True)
        return [_detections(*frame) for frame in zip(*found, strict=True)]


def _detections(boxes: object, scores: object, points: object) -> Detections:
    """MTCNN's answer for a frame, which is None where it found nothing, as arrays."""
    if boxes is None:
        return Detections(*(np.zeros(shape, np.float32) for shape in ((0, 4), (0, 5, 2), (0,))))
    return detections(np.asarray(boxes), np.asarray(points), np.asarray(scores))
