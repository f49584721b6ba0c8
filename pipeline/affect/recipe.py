"""How an affect model is trained: a preset of `recipes`, and the model and task at its start."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from pipeline.affect.build import (
    EncoderTraining,
    ModelSize,
    OptimizerSettings,
    build_cotex,
    build_emma,
)
from pipeline.affect.choices import System, VAInput
from pipeline.affect.cnn import ScoreSource
from pipeline.affect.cotex import CoTEXSettings, MaskedCoTEX
from pipeline.affect.emma import EMMA
from pipeline.affect.feed import AugmentSettings, Pictures
from pipeline.affect.losses import LossSettings, positive_weights
from pipeline.affect.task import CoTEXTask, EMMATask
from pipeline.common.params import Section
from pipeline.store.batch import Batch
from pipeline.training.loop import EngineSettings
from pipeline.training.optim import ScheduleSettings
from pipeline.training.task import Task


class ModelPreset(ModelSize):
    """A preset of `models`.

    Attributes:
        stored_side: Of the decoded pictures, in pixels; augmentation cuts out of these.
    """

    stored_side: PositiveInt


class AnswerSettings(Section):
    """How probabilities become answers; what is tuned is tuned on the validation groups.

    Attributes:
        thresholds: Of action units: one `half`, or `tuned`.
        smoothing: Candidates for the frames on either side over which a mean is taken; (0,) is off.
    """

    thresholds: Literal["half", "tuned"]
    smoothing: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]


class Recipe(Section):
    """A preset of `recipes`.

    Attributes:
        cnn_scores: Of the whole picture, `once` for all epochs, or of what the ViT sees of it in
            this `view`, as in the paper.
    """

    encoder: EncoderTraining
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    augment: AugmentSettings
    engine: EngineSettings
    loss: LossSettings
    cnn_scores: Literal["once", "view"]
    answers: AnswerSettings


class Start(NamedTuple):
    """What a training begins with, on this device.

    Attributes:
        size: Of encoder and heads.
        recipe: How it is trained.
        cotex: Views and masks of CoTEX.
        prior: The encoders' weights; None for random ones.
        cnn: Scores.
        seed: Of drop path.
    """

    size: ModelPreset
    recipe: Recipe
    cotex: CoTEXSettings
    prior: Path | None
    cnn: ScoreSource
    seed: int


def views_of(system: System, settings: CoTEXSettings) -> CoTEXSettings:
    """Of system `single`: one view, which agrees with itself.

    Raises:
        ValueError: System `cotex` is to have one view.
    """
    if system == "single":
        return settings.model_copy(update={"views": 1, "js_weight": 0.0})
    if settings.views == 1:
        raise ValueError("system: cotex has two views, and cotex.views is 1; take system: single")
    return settings


def build(system: System, va_input: VAInput, start: Start, num_classes: int) -> EMMA | MaskedCoTEX:
    """The model.

    Raises:
        ValueError: The prior does not fit, or the choices do not go together.
    """
    if system == "emma":
        return build_emma(
            start.size,
            start.recipe.encoder,
            start.prior,
            num_classes=num_classes,
            num_cnn_classes=len(start.cnn.classes),
            va_input=va_input,
        )
    settings = views_of(system, start.cotex)
    return build_cotex(
        start.size, start.recipe.encoder, start.prior, settings, num_classes=num_classes
    )


class AffectTask(Task[Batch, Any], Protocol):
    """That of either system."""

    def answer(self, module: nn.Module) -> Callable[[Batch], tuple[Tensor, ...]]:
        """How the model is asked about a batch."""
        ...


def make_task(
    system: System, start: Start, training: Pictures, validation: Iterable[Batch]
) -> AffectTask:
    """Losses and validation.

    Args:
        system: Which.
        start: Recipe and scores.
        training: Pictures, whose action units say how positives are weighted.
        validation: This device's share.
    """
    num_classes = len(training.stored.card.classes)
    if system == "emma":
        return EMMATask(
            start.recipe.loss,
            positive_weights(start.recipe.loss, training.targets["aus"]),
            start.cnn,
            num_classes=num_classes,
            seed=start.seed,
            validation=validation,
        )
    js_weight = views_of(system, start.cotex).js_weight
    return CoTEXTask(js_weight, num_classes=num_classes, validation=validation)
