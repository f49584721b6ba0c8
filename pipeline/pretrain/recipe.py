"""What is pre-trained and how: presets of models and recipes in pretrain/params.yaml."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from pipeline.common.params import Section
from pipeline.pretrain.autoencoder import MaskedAutoencoder
from pipeline.pretrain.crops import AugmentSettings
from pipeline.pretrain.image import ImageSize
from pipeline.pretrain.video import VideoSize
from pipeline.training import optim
from pipeline.training.loop import EngineSettings

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Section):
    """AdamW; biases and norms are not decayed.

    Attributes:
        rate_per_256: Learning rate for a batch of 256 samples; in proportion for others.
        betas: Decay of the moving averages of gradients and of their squares.
        weight_decay: Decoupled.
    """

    rate_per_256: PositiveFloat
    betas: tuple[Beta, Beta]
    weight_decay: NonNegativeFloat


class ScheduleSettings(Section):
    """Linear rise, then half a cosine to the floor.

    Attributes:
        warmup_epochs: Of the rise, from the floor.
        floor_per_256: Lowest rate for a batch of 256 samples; in proportion for others.
    """

    warmup_epochs: NonNegativeInt
    floor_per_256: NonNegativeFloat


class ModelSizes(Section):
    """A preset of `models`: one size for either method."""

    videomae: VideoSize
    mae: ImageSize


class Recipe(Section):
    """A preset of `recipes`.

    Attributes:
        mask_ratio: Of the positions of a slice (videomae) or of the patches (mae).
        checkpointing: Recompute activations in the backward pass, to save memory.
    """

    mask_ratio: Annotated[float, Field(gt=0, lt=1)]
    checkpointing: bool
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    augment: AugmentSettings
    engine: EngineSettings


def make_optimizer(
    model: MaskedAutoencoder, settings: OptimizerSettings, *, batch_size: int
) -> AdamW:
    """AdamW over all that is trained.

    Args:
        model: Not wrapped.
        settings: Rates.
        batch_size: Samples of a step, on all devices together.
    """
    plain = optim.OptimizerSettings(
        learning_rate=settings.rate_per_256 * batch_size / 256,
        weight_decay=settings.weight_decay,
        layer_decay=1.0,
    )
    return optim.adamw(model, plain, betas=settings.betas, not_decayed=model.not_decayed)


def make_schedule(
    settings: ScheduleSettings,
    optimizer: AdamW,
    *,
    batch_size: int,
    epochs: int,
    steps_per_epoch: int,
) -> LambdaLR:
    """The schedule of a recipe, stepped after every batch.

    Args:
        settings: Of the recipe.
        optimizer: Of `make_optimizer`.
        batch_size: Samples of a step, on all devices together.
        epochs: Of the training.
        steps_per_epoch: Steps of the optimiser.

    Raises:
        ValueError: The warm-up takes all epochs, or the floor is above the learning rate.
    """
    if settings.warmup_epochs >= epochs:
        raise ValueError(
            f"schedule.warmup_epochs is {settings.warmup_epochs} of {epochs} epochs: the full rate "
            "would never be reached"
        )
    plain = optim.ScheduleSettings(
        kind="cosine",
        warmup_epochs=settings.warmup_epochs,
        lowest_rate=settings.floor_per_256 * batch_size / 256,
        plateau_patience=1,
    )
    schedule = optim.make_schedule(plain, optimizer, epochs=epochs, steps_per_epoch=steps_per_epoch)
    assert isinstance(schedule, LambdaLR)
    return schedule
