"""The files of all models that look at a video together."""

import sys
from pathlib import Path
from typing import NamedTuple

from pipeline.serving.face_models import NO_FACE_MODELS, FaceModels
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

    def open(self, device: str, num_threads: int = 0) -> Predictor:
        """The models, loaded.

        Args:
            device: Where they run, such as `cpu` or `cuda`.
            num_threads: On the CPU; 0: as many as there are cores.

        Raises:
            FileNotFoundError: See `Predictor` and `AffectModels`.
            ModuleNotFoundError: Likewise.
            ValueError: Likewise.
        """
        face_models: FaceModels = NO_FACE_MODELS
        if self.affect:
            # An exported model is used where there is no torch.
            from pipeline.serving.affect import AffectModels

            face_models = AffectModels(self.affect, self.affect_cnn, device)
        if num_threads and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(num_threads)
        return Predictor(self.weights, device, face_models, num_threads)
