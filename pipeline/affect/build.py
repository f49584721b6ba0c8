"""EMMA and Masked CoTEX as a training begins with them: presets, starting weights, optimiser."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat
from torch.optim import AdamW

from pipeline.affect.choices import VAInput
from pipeline.affect.cotex import CoTEXSettings, MaskedCoTEX
from pipeline.affect.emma import EMMA, HeadSize
from pipeline.affect.labels import AUS
from pipeline.common.params import Section
from pipeline.models.checkpoints import load_image_encoder
from pipeline.models.image_encoder import ImageEncoder, ImageEncoderSize
from pipeline.training import optim


class ModelSize(Section):
    """A preset of `models`."""

    encoder: ImageEncoderSize
    heads: HeadSize


class EncoderTraining(Section):
    """What a recipe does with the encoders.

    Attributes:
        drop_path: Stochastic-depth rate of the last block; the blocks rise linearly from 0 to it.
        checkpointing: Recompute activations in the backward pass, to save memory.
    """

    drop_path: Annotated[float, Field(ge=0, le=1)]
    checkpointing: bool


class OptimizerSettings(optim.OptimizerSettings):
    """AdamW.

    Attributes:
        va_learning_rate: Of EMMA's head of valence and arousal, whatever the other rates are.
    """

    va_learning_rate: PositiveFloat


def build_emma(
    size: ModelSize,
    training: EncoderTraining,
    start: Path | None,
    *,
    num_classes: int,
    num_cnn_classes: int,
    va_input: VAInput,
) -> EMMA:
    """EMMA around an encoder from a checkpoint, or at random where there is none.

    Raises:
        ValueError: The checkpoint does not fit, or the CNN is missing that `va_input` needs.
    """
    return EMMA(
        _build_encoder(size.encoder, training, start),
        size.heads,
        num_classes=num_classes,
        num_aus=len(AUS),
        num_cnn_classes=num_cnn_classes,
        va_input=va_input,
    )


def build_cotex(
    size: ModelSize,
    training: EncoderTraining,
    start: Path | None,
    settings: CoTEXSettings,
    *,
    num_classes: int,
) -> MaskedCoTEX:
    """Views that start from one checkpoint, or each at random, with heads of their own.

    Raises:
        ValueError: The checkpoint does not fit, or masking leaves no patch.
    """
    encoders = [_build_encoder(size.encoder, training, start) for _ in range(settings.views)]
    return MaskedCoTEX(encoders, num_classes=num_classes, mask_rate=settings.mask_rate)


def make_optimizer(model: EMMA | MaskedCoTEX, settings: OptimizerSettings) -> AdamW:
    """AdamW with rates that fall towards the embedding; positions and class tokens do not decay."""
    spared = [
        name for name, _ in model.named_parameters() if name.endswith(("pos_embed", "cls_token"))
    ]
    return optim.adamw(
        model,
        settings,
        model.layers_from_output,
        not_decayed=spared,
        own_rates={"va_head.": settings.va_learning_rate},
    )


def _build_encoder(
    size: ImageEncoderSize, training: EncoderTraining, start: Path | None
) -> ImageEncoder:
    """With positions that are trained, as in MAE's fine-tuning."""
    encoder = ImageEncoder(size, drop_path=training.drop_path, checkpointing=training.checkpointing)
    if start:
        report = load_image_encoder(encoder, start)
        print(
            f"encoder: {len(report.matched)} weights from {start} ({report.family}); left aside: "
            f"{len(report.dropped)} known, unknown: {report.unexpected or 'none'}"
        )
    encoder.pos_embed.requires_grad_()
    return encoder
