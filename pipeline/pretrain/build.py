"""The masked autoencoder that a pre-training begins with."""

from collections.abc import Callable
from pathlib import Path

from pipeline.models.checkpoints import LoadReport, load_encoder, load_image_encoder
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.models.image_encoder import ImageEncoder
from pipeline.pretrain.autoencoder import MaskedAutoencoder
from pipeline.pretrain.files import is_official, read_official
from pipeline.pretrain.image import ImageAutoencoder, ImageSize
from pipeline.pretrain.video import VideoAutoencoder, VideoSize, init_encoder


def build_video_autoencoder(
    size: VideoSize,
    *,
    num_frames: int,
    mask_ratio: float,
    checkpointing: bool,
    start: Path | None,
) -> VideoAutoencoder:
    """A VideoMAE, at random but for what a checkpoint holds.

    Args:
        size: Sizes.
        num_frames: Of a clip.
        mask_ratio: Of `tube_masking`.
        checkpointing: Recompute activations in the backward pass, to save memory.
        start: Weights of any known family; one that holds this decoder as well starts it too. None:
            random ones.

    Raises:
        ValueError: The ratio hides nothing or everything, or the checkpoint does not fit.
    """
    encoder = VideoMAEEncoder(size.encoder, num_frames=num_frames, checkpointing=checkpointing)
    init_encoder(encoder)
    model = VideoAutoencoder(encoder, size.decoder, mask_ratio=mask_ratio)
    if start:
        _load(model, start, lambda path: load_encoder(encoder, path))
    return model


def build_image_autoencoder(
    size: ImageSize, *, mask_ratio: float, checkpointing: bool, start: Path | None
) -> ImageAutoencoder:
    """An image MAE; see `build_video_autoencoder`."""
    encoder = ImageEncoder(size.encoder, checkpointing=checkpointing)
    model = ImageAutoencoder(encoder, size.decoder, mask_ratio=mask_ratio)
    if start:
        _load(model, start, lambda path: load_image_encoder(encoder, path))
    return model


def _load(
    model: MaskedAutoencoder, start: Path, into_encoder: Callable[[Path], LoadReport]
) -> None:
    """Fill the model, or its encoder alone, and say which."""
    if is_official(start, model):
        read_official(start, model)
        print(f"encoder and decoder: all weights from {start}")
        return
    report = into_encoder(start)
    print(
        f"encoder: {len(report.matched)} weights from {start} ({report.family}); left aside: "
        f"{len(report.dropped)} known, unknown: {report.unexpected or 'none'}"
    )
