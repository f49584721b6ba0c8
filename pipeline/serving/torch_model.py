"""A model that a training saved, as a film's faces are shown to it.

Shape letters: B people, N stored frames of a window, I side of a frame in pixels, C classes.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.common.frames import FrameSettings
from pipeline.mtcae.saved import load_model
from pipeline.mtcae.view_mean import ViewMean
from pipeline.serving.onnx_model import Array, Said
from pipeline.video.faces import FaceDetector


class TorchModel:
    """What `save_model` wrote.

    Args:
        weights: model.safetensors, with model.json beside it.
        device: Where it runs, such as `cpu` or `cuda`.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It cannot be read.
    """

    def __init__(self, weights: Path, device: str) -> None:
        model, self.metadata = load_model(weights)
        self.image_size = model.encoder.size.image_size
        self.device = torch.device(device)
        # What its test asked; an exported model says the same.
        self.module = ViewMean(
            model,
            num_frames=model.encoder.num_frames,
            num_crops=self.metadata["recipes"]["evaluation"]["crops"],
        )
        self.module.to(self.device).eval()
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

    def detector(self, min_face_size: int) -> FaceDetector:
        """See `ServedModel`."""
        return FaceDetector(min_face_size)
