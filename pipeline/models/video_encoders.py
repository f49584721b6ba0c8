"""The kinds of video encoders, and their sizes as params.yaml has them."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from pipeline.models.encoder import EncoderSize, VideoMAEEncoder
from pipeline.models.jepa import JepaEncoder, JepaSize

VideoEncoder = VideoMAEEncoder | JepaEncoder
ENCODER_KINDS = ("videomae", "v_jepa")


def _kind(size: Any) -> str:
    """A size that says what its positions are is a V-JEPA's; VideoMAE's are always the same."""
    names = size if isinstance(size, dict) else type(size).model_fields
    return ENCODER_KINDS[1 if "positions" in names else 0]


VideoEncoderSize = Annotated[
    Annotated[EncoderSize, Tag(ENCODER_KINDS[0])] | Annotated[JepaSize, Tag(ENCODER_KINDS[1])],
    Discriminator(_kind),
]


def new_video_encoder(
    size: EncoderSize | JepaSize,
    *,
    num_frames: int,
    drop_path: float = 0.0,
    checkpointing: bool = False,
) -> VideoEncoder:
    """An encoder of this size with random weights.

    Raises:
        ValueError: The frames do not divide into the tubelets, or the width into the heads.
    """
    if isinstance(size, JepaSize):
        return JepaEncoder(
            size, num_frames=num_frames, drop_path=drop_path, checkpointing=checkpointing
        )
    return VideoMAEEncoder(
        size, num_frames=num_frames, drop_path=drop_path, checkpointing=checkpointing
    )
