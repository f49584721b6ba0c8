"""Small autoencoders for tests, and pictures and clips in which there is something to learn."""

import math

import torch
from small import video_encoder
from torch import Tensor, nn

from pipeline.models.image_encoder import ImageEncoder, ImageEncoderSize
from pipeline.pretrain.autoencoder import DecoderSize, MaskedAutoencoder
from pipeline.pretrain.image import ImageAutoencoder
from pipeline.pretrain.video import VideoAutoencoder
from pipeline.store.batch import Batch

DECODER = DecoderSize(dim=12, depth=1, num_heads=2)
DIM, DEPTH, HEADS, SIDE, FRAMES = 24, 2, 2, 32, 4


def video_autoencoder(
    *,
    mask_ratio: float = 0.5,
    checkpointing: bool = False,
    patch_size: int = 16,
    stem: str = "linear",
) -> VideoAutoencoder:
    """2 slices of 4 tokens."""
    torch.manual_seed(0)
    encoder = video_encoder(
        dim=DIM,
        depth=DEPTH,
        num_heads=HEADS,
        image_size=SIDE,
        patch_size=patch_size,
        num_frames=FRAMES,
        stem="conv" if stem == "conv" else "linear",
        checkpointing=checkpointing,
    )
    return VideoAutoencoder(encoder, DECODER, mask_ratio=mask_ratio)


def image_encoder(
    *, image_size: int = SIDE, patch_size: int = 8, dim: int = DIM, checkpointing: bool = False
) -> ImageEncoder:
    """16 patches."""
    size = ImageEncoderSize(
        image_size=image_size, patch_size=patch_size, dim=dim, depth=DEPTH, num_heads=HEADS
    )
    return ImageEncoder(size, checkpointing=checkpointing)


def image_autoencoder(
    *, mask_ratio: float = 0.75, checkpointing: bool = False, patch_size: int = 8
) -> ImageAutoencoder:
    """4 of 16 patches are visible."""
    torch.manual_seed(0)
    encoder = image_encoder(checkpointing=checkpointing, patch_size=patch_size)
    return ImageAutoencoder(encoder, DECODER, mask_ratio=mask_ratio)


def head_of(model: MaskedAutoencoder) -> nn.Linear:
    """What predicts pixels."""
    head = model.decoder.head if isinstance(model, VideoAutoencoder) else model.decoder_pred
    assert isinstance(head, nn.Linear)
    return head


def pictures(num_pictures: int, side: int = SIDE) -> Tensor:
    """Waves (N, 3, H, W) as long as a patch, of another phase in each picture and colour, uint8.

    One patch tells what all others look like.
    """
    across = torch.arange(side) * 2 * math.pi / 8
    phases = torch.arange(num_pictures)[:, None] + torch.arange(3)
    waves = (across + phases[..., None]).sin() + torch.linspace(0, 0.5, side)[:, None, None, None]
    return ((waves.permute(1, 2, 0, 3) + 1) * 100).byte()


def clips(num_clips: int) -> Tensor:
    """Waves that move: (N, T, 3, H, W), uint8."""
    wide = pictures(num_clips, SIDE + FRAMES)
    return torch.stack([wide[..., t : t + SIDE, t : t + SIDE] for t in range(FRAMES)], dim=1)


def batch(inputs: Tensor) -> Batch:
    """Without masks."""
    names = [f"sample{i}" for i in range(len(inputs))]
    return Batch(
        ids=names, groups=[f"group of {name}" for name in names], inputs=inputs, targets={}
    )
