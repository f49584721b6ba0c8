"""VideoMAE: the masked autoencoder of clips.

Shape letters: B clips, N tokens, V visible, M masked (N = V + M), D encoder width, d decoder width,
P pixel values of a token.

Source: VideoMAE (arXiv 2203.12602), sections 3.3 and 4, and its code. Parameters carry the official
names.
"""

from __future__ import annotations

import torch
from einops import rearrange
from timm.models.beit import Block
from torch import Tensor, nn

from pipeline.common.params import Section
from pipeline.models.encoder import EncoderSize, VideoMAEEncoder, sinusoid_positions
from pipeline.models.vit import choose_tokens, init_linear, run_blocks
from pipeline.pretrain.autoencoder import DecoderSize, MaskedAutoencoder
from pipeline.pretrain.masks import tube_masking
from pipeline.pretrain.targets import PixelTargets, tubelet_targets


class VideoSize(Section):
    """A preset of models for method videomae."""

    encoder: EncoderSize
    decoder: DecoderSize


class VideoAutoencoder(MaskedAutoencoder):
    """Tubes are hidden; a narrow decoder sees the visible tokens and a mask token for each other.

    The decoder starts as the official one: Xavier uniform, a mask token cut off at one deviation.

    Args:
        encoder: With the weights that it starts from.
        size: Of the decoder.
        mask_ratio: Of the positions, over 0 and below 1.

    Raises:
        ValueError: The ratio hides nothing, or everything.
    """

    encoder: VideoMAEEncoder
    positions: Tensor
    not_decayed = frozenset({"mask_token"})

    def __init__(self, encoder: VideoMAEEncoder, size: DecoderSize, *, mask_ratio: float) -> None:
        num_slices = encoder.num_frames // encoder.size.tubelet_size
        masking = tube_masking(num_slices, encoder.num_tokens // num_slices, mask_ratio)
        super().__init__(encoder, masking)
        num_values = 3 * encoder.size.tubelet_size * encoder.size.patch_size**2
        self.encoder_to_decoder = nn.Linear(encoder.size.dim, size.dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.decoder = _Decoder(size, num_values)
        self.register_buffer(
            "positions", sinusoid_positions(encoder.num_tokens, size.dim), persistent=False
        )
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        self.decoder.apply(init_linear)

    def targets(self, inputs: Tensor) -> PixelTargets:
        size = self.encoder.size
        return tubelet_targets(inputs, size.tubelet_size, size.patch_size)

    def _decode(self, tokens: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        seen = self.encoder_to_decoder(tokens) + choose_tokens(self.positions, visible)
        hidden = self.mask_token + choose_tokens(self.positions, masked)
        x = torch.cat([seen, hidden], dim=1)
        x = run_blocks(self.decoder.blocks, x, checkpointing=self.encoder.checkpointing)
        predictions: Tensor = self.decoder.head(self.decoder.norm(x[:, visible.shape[1] :]))
        return predictions

    def _arrange(self, values: Tensor) -> Tensor:
        size = self.encoder.size
        side = size.image_size // size.patch_size
        return rearrange(
            values,
            "b (t h w) (s p q c) -> b (t s) c (h p) (w q)",
            h=side,
            w=side,
            s=size.tubelet_size,
            p=size.patch_size,
            q=size.patch_size,
        )


class _Decoder(nn.Module):
    """Blocks, norm and head."""

    def __init__(self, size: DecoderSize, num_values: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(size.dim, size.num_heads, qkv_bias=True, mlp_ratio=4.0) for _ in range(size.depth)
        )
        self.norm = nn.LayerNorm(size.dim, eps=1e-6)
        self.head = nn.Linear(size.dim, num_values)


def init_encoder(encoder: VideoMAEEncoder) -> None:
    """Random weights with which VideoMAE begins a pre-training.

    Fine-tuning from scratch has others, with which an encoder is built. A stem `conv` stays as it
    is.
    """
    encoder.apply(init_linear)
    for module in encoder.modules():
        if isinstance(module, nn.Conv3d):
            module.reset_parameters()
