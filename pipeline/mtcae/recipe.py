"""How a fold is trained: a preset of `recipes` in params.yaml, and the model at its start."""

from pathlib import Path

from pipeline.common.params import Section
from pipeline.feed.augment import AugmentSettings
from pipeline.feed.mix import MixSettings
from pipeline.models.start import EncoderTraining, build_encoder
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
    """

    optimistic: bool


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
