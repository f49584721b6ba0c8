"""The files of all models that look at a video together."""

from pathlib import Path
from typing import NamedTuple

import torch

from pipeline.serving.affect import AffectModels
from pipeline.serving.face_models import NO_FACE_MODELS
from pipeline.serving.predictor import Predictor


class ModelFiles(NamedTuple):
    """Where the models are.

    Attributes:
        weights: Of those that `Predictor` takes.
        affect: Folders of affect models; may be empty.
        affect_cnn: Folder of the CNN that these were trained with.
    """

    weights: list[Path]
    affect: list[Path]
    affect_cnn: Path

    def absolute(self) -> "ModelFiles":
        """For processes that may work in another folder."""
        return ModelFiles(
            [path.absolute() for path in self.weights],
            [path.absolute() for path in self.affect],
            self.affect_cnn.absolute(),
        )

    def paths(self) -> list[Path]:
        """All that is read."""
        return [*self.weights, *self.affect, *([self.affect_cnn] if self.affect else [])]

    def open(self, device: torch.device) -> Predictor:
        """The models, loaded.

        Raises:
            FileNotFoundError: See `Predictor` and `AffectModels`.
            ModuleNotFoundError: Likewise.
            ValueError: Likewise.
        """
        if not self.affect:
            return Predictor(self.weights, device, NO_FACE_MODELS)
        return Predictor(self.weights, device, AffectModels(self.affect, self.affect_cnn, device))
