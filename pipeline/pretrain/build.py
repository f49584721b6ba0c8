"""The masked autoencoder that a pre-training begins with."""

from pathlib import Path

from pipeline.pretrain.autoencoder import ImageSize, MaskedAutoencoder, VideoSize


def build_video_autoencoder(
    size: VideoSize,
    *,
    num_frames: int,
    mask_ratio: float,
    checkpointing: bool,
    start: Path | None,
) -> MaskedAutoencoder:
    """A VideoMAE, at random but for what a checkpoint holds.

    Args:
        size: Sizes.
        num_frames: Of a clip.
        mask_ratio: Of `tube_masking`.
        checkpointing: Recompute activations in the backward pass, to save memory.
        start: Encoder weights of any known family. None: random ones.

    Raises:
        ValueError: The ratio hides nothing or everything, or the checkpoint does not fit.
    """
    raise NotImplementedError


def build_image_autoencoder(
    size: ImageSize, *, mask_ratio: float, checkpointing: bool, start: Path | None
) -> MaskedAutoencoder:
    """An image MAE; see `build_video_autoencoder`."""
    raise NotImplementedError
