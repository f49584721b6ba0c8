"""Trained models as a film's faces are shown to them: saved by a training, or exported to ONNX.

Shape letters: B people, T pictures, N stored frames of a window, I side of a frame in pixels.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.common.frames import Frames
from pipeline.serving.onnx_faces import OnnxFaceDetector
from pipeline.serving.onnx_model import MODEL, OnnxModel, Said
from pipeline.video.tracks import Detections


class Detector(Protocol):
    """Finds faces."""

    def detect(self, pictures: Frames, /) -> list[Detections]:
        """Every face in pictures (T, H, W, 3)."""


class ServedModel(Protocol):
    """A model that answers as its test asked it, and what its training told about it.

    Attributes:
        metadata: Classes, data set, how frames were made; see `Description`.
        image_size: I.
    """

    metadata: dict[str, Any]
    image_size: int

    def ask(self, frames: npt.NDArray[np.uint8], /) -> Said:
        """What is said of RGB frames (B, N, I, I, 3)."""

    def detector(self, min_face_size: int, /) -> Detector:
        """What finds the faces for it, of at least so many pixels."""


class ExportedModel(OnnxModel):
    """A folder that `commands.export --to onnx` wrote: the model, and the networks of MTCNN."""

    def detector(self, min_face_size: int) -> OnnxFaceDetector:
        """See `ServedModel`."""
        return OnnxFaceDetector(self.folder, min_face_size, self.num_threads)


def open_model(path: Path, device: str, num_threads: int = 0) -> ServedModel:
    """A model in a folder, of a training or exported to ONNX, or in a safetensors file.

    Args:
        path: `runs/fold1`, `runs/fold1/model.safetensors`, or what `commands.export` wrote.
        device: Where a model of torch runs, such as `cpu` or `cuda`; ONNX runs on the CPU.
        num_threads: That ONNX takes; 0: as many as there are cores.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It cannot be read.
        ModuleNotFoundError: What it runs in is not installed.
    """
    if (path / MODEL).is_file():
        return ExportedModel(path, num_threads)
    # An exported model is used where there is no torch.
    from pipeline.serving.torch_model import TorchModel

    return TorchModel(path / "model.safetensors" if path.is_dir() else path, device)
