"""Trained models as a film's faces are shown to them: saved by a training, or exported to ONNX.

Shape letters: B people, N stored frames of a window, I side of a frame in pixels, C classes.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.common.frames import FrameSettings
from pipeline.mtcae.saved import load_model
from pipeline.mtcae.view_mean import ViewMean
from pipeline.serving.onnx_model import MODEL, Array, OnnxModel, Said


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


class TorchModel:
    """What `save_model` wrote.

    Args:
        weights: model.safetensors, with model.json beside it.
        device: Where it runs.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It cannot be read.
    """

    def __init__(self, weights: Path, device: torch.device) -> None:
        model, self.metadata = load_model(weights)
        self.image_size = model.encoder.size.image_size
        self.device = device
        # What its test asked; an exported model says the same.
        self.module = ViewMean(
            model,
            num_frames=model.encoder.num_frames,
            num_crops=self.metadata["recipes"]["evaluation"]["crops"],
        )
        self.module.to(device).eval()
        frames = FrameSettings.model_validate(self.metadata["frames"])
        self.num_stored = frames.num_stored

    @torch.no_grad()
    def ask(self, frames: npt.NDArray[np.uint8], /) -> Said:
        """See `ServedModel`."""
        pixels = torch.from_numpy(frames).permute(0, 1, 4, 2, 3)
        said = self.module(pixels.to(self.device))

        def in_numpy(values: Tensor) -> Array:
            return values.float().cpu().numpy()

        return Said(
            in_numpy(said.logits.float().softmax(dim=1)),
            None if said.boxes is None else in_numpy(said.boxes),
            None if said.points is None else in_numpy(said.points),
        )


def open_model(path: Path, device: torch.device) -> ServedModel:
    """A model in a folder, of a training or exported to ONNX, or in a safetensors file.

    Args:
        path: `runs/fold1`, `runs/fold1/model.safetensors`, or what `commands.export` wrote.
        device: Where a model of torch runs; ONNX runs on the CPU.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It cannot be read.
        ModuleNotFoundError: It is an ONNX model, and onnxruntime is not installed.
    """
    if (path / MODEL).is_file():
        return OnnxModel(path)
    return TorchModel(path / "model.safetensors" if path.is_dir() else path, device)
