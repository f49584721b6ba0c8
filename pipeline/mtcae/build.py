"""The model that a training starts with, from the numbers of a preset."""

from pathlib import Path

from pipeline.models.encoder import VideoMAEEncoder
from pipeline.models.start import start_encoder
from pipeline.mtcae.model import MTCAE


def build_model(
    *,
    arch: str,
    decoder: str,
    num_classes: int,
    weights: Path,
    frozen: bool,
    drop_path: float,
    checkpointing: bool,
    num_frames: int,
    image_size: int,
    patch_size: int,
    tubelet_size: int,
    encoder_dim: int,
    encoder_depth: int,
    encoder_heads: int,
    decoder_dim: int,
    decoder_heads: int,
    decoder_head_dim: int,
    decoder_layers: int,
    dropout: float,
    head_dropout: float,
) -> MTCAE:
    """A structure whose encoder starts from a checkpoint, or at random, and may be frozen.

    No checkpoint is read where its name is `from_scratch`. The other arguments are those of `MTCAE`
    and, for the encoder, of `VideoMAEEncoder`.

    Raises:
        ValueError: The encoder is to be frozen and there is no checkpoint, or it does not fit.
    """
    encoder = VideoMAEEncoder(
        dim=encoder_dim,
        depth=encoder_depth,
        num_heads=encoder_heads,
        image_size=image_size,
        num_frames=num_frames,
        patch_size=patch_size,
        tubelet_size=tubelet_size,
        drop_path=drop_path,
        checkpointing=checkpointing,
    )
    start_encoder(encoder, weights, frozen=frozen)
    return MTCAE(
        encoder,
        arch=arch,
        decoder=decoder,
        num_classes=num_classes,
        decoder_dim=decoder_dim,
        decoder_heads=decoder_heads,
        decoder_head_dim=decoder_head_dim,
        decoder_layers=decoder_layers,
        dropout=dropout,
        head_dropout=head_dropout,
    )
