"""How a fold is trained: a preset of `recipes` in params.yaml, and the model at its start."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.common.params import Section
from pipeline.feed.augment import AugmentSettings
from pipeline.feed.mix import MixSettings
from pipeline.models.start import EncoderTraining, build_encoder, why_tokens_vary
from pipeline.mtcae.loss import LossSettings
from pipeline.mtcae.model import MTCAE, ModelSize
from pipeline.mtcae.structures import Structure
from pipeline.training.loop import EngineSettings
from pipeline.training.optim import OptimizerSettings, ScheduleSettings


class EvaluationSettings(Section):
    """How the test clips are predicted.

    Attributes:
        optimistic: Also predict them after every epoch, for the score of the epoch that is best on
            them, as most of the field publishes it.
        crops: Windows of every frame over which the prediction is the mean; 1 is the whole frame.
            The samplings of `frames.segments` multiply them.
    """

    optimistic: bool
    crops: Annotated[int, Field(ge=1, le=20)]


class Recipe(Section):
    """The settings of all that takes part in a training."""

    encoder: EncoderTraining
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    augment: AugmentSettings
    mix: MixSettings
    engine: EngineSettings
    loss: LossSettings
    evaluation: EvaluationSettings

    def why_tokens_vary(self, segments: int) -> str:
        """Why no stored tokens serve this training; empty where they do."""
        changes = self.augment.changes + self.mix.changes
        return why_tokens_vary(self.encoder, changes, num_views=segments * self.evaluation.crops)


def build_model(
    structure: Structure,
    size: ModelSize,
    training: EncoderTraining,
    weights: Path | None,
    *,
    num_frames: int,
    num_classes: int,
) -> MTCAE:
    """The model that a training begins with.

    Raises:
        ValueError: The structure is none of the six, or the encoder cannot start so; see
            `build_encoder`.
    """
    encoder = build_encoder(size.encoder, num_frames, training, weights)
    return MTCAE(encoder, structure, size.decoder, num_classes=num_classes)
