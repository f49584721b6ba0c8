"""How the encoder of a training begins, and what it does in it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.common.files import sha256_of
from pipeline.common.params import Section
from pipeline.models.checkpoints import load_encoder
from pipeline.models.encoder import EncoderSize
from pipeline.models.jepa import JepaSize
from pipeline.models.video_encoders import VideoEncoder, new_video_encoder
from pipeline.store.tokens import Origin


class EncoderTraining(Section):
    """What a recipe does with the encoder.

    Attributes:
        mode: `full`: it is trained; `frozen`: it stays as its checkpoint is.
        drop_path: Stochastic-depth rate of the last block; the blocks rise linearly from 0 to it.
        checkpointing: Recompute activations in the backward pass, to save memory.
    """

    mode: Literal["full", "frozen"]
    drop_path: Annotated[float, Field(ge=0, le=1)]
    checkpointing: bool


def require_weights(training: EncoderTraining, weights: Path | None) -> None:
    """Make sure that an encoder which stays as it is has something to be.

    Raises:
        ValueError: It is to be frozen and there is no checkpoint.
    """
    if training.mode == "frozen" and not weights:
        raise ValueError(
            "a frozen encoder without weights would stay random: name a checkpoint in "
            "encoder.weights (docs/checkpoints.md), or take a recipe with `encoder.mode: full`"
        )


def build_encoder(
    size: EncoderSize | JepaSize,
    num_frames: int,
    training: EncoderTraining,
    weights: Path | None,
) -> VideoEncoder:
    """An encoder filled from a checkpoint, or at random where there is none.

    Raises:
        ValueError: It is to be frozen and there is no checkpoint, or the checkpoint does not fit.
    """
    require_weights(training, weights)
    encoder = new_video_encoder(
        size,
        num_frames=num_frames,
        drop_path=training.drop_path,
        checkpointing=training.checkpointing,
    )
    if weights:
        report = load_encoder(encoder, weights)
        print(
            f"encoder: {len(report.matched)} weights from {weights} ({report.family}); left "
            f"aside: {len(report.dropped)} known, unknown: {report.unexpected or 'none'}"
        )
    if training.mode == "frozen":
        encoder.freeze()
    return encoder


def why_tokens_vary(training: EncoderTraining, changes: list[str], *, num_views: int) -> str:
    """Why an encoder says more than one thing of a clip; empty where it does not.

    Args:
        training: Of the encoder.
        changes: What may change the frames of a clip, in words.
        num_views: Of a clip, in its test.
    """
    if training.mode != "frozen":
        return "the encoder is trained"
    if num_views > 1:
        return f"the test takes the mean over {num_views} views"
    return f"the frames are augmented: {', '.join(changes)}" if changes else ""


def token_origin(encoder: VideoEncoder, weights: Path | None, precision: str) -> Origin:
    """The origin of tokens that an encoder with this checkpoint computes."""
    described = {
        **encoder.size.model_dump(),
        "num_frames": encoder.num_frames,
        "mean": encoder.mean.flatten().tolist(),
        "std": encoder.std.flatten().tolist(),
    }
    return Origin(described, sha256_of(weights) if weights else "", precision)
