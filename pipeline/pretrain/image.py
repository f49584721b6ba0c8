"""Image MAE: the masked autoencoder of pictures.

Shape letters: B pictures, N patches, V visible, M masked (N = V + M), D encoder width, d decoder
width, P pixel values of a patch.

Source: Masked Autoencoders Are Scalable Vision Learners (arXiv 2111.06377), section 3 and A.1, and
its code. Parameters beside the encoder's carry the official names.
"""

from __future__ import annotations

import torch
from einops import rearrange
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from pipeline.common.params import Section
from pipeline.models.image_encoder import ImageEncoder, ImageEncoderSize, sincos_positions
from pipeline.models.vit import choose_tokens, init_linear, run_blocks
from pipeline.pretrain.autoencoder import DecoderSize, MaskedAutoencoder
from pipeline.pretrain.masks import random_masking
from pipeline.pretrain.targets import PixelTargets, patch_targets


class ImageSize(Section):
    """A preset of models for method mae."""

    encoder: ImageEncoderSize
    decoder: DecoderSize


class ImageAutoencoder(MaskedAutoencoder):
    """Random patches are hidden; the decoder sees class token, visible tokens and mask tokens.

    The decoder starts as the official one: Xavier uniform, a normal mask token of deviation 0.02.

    Args:
        encoder: With the weights that it starts from.
        size: Of the decoder.
        mask_ratio: Of the patches, over 0 and below 1.

    Raises:
        ValueError: The ratio hides nothing, or everything; or the decoder's width is no multiple
            of 4.
    """

    encoder: ImageEncoder
    # The official code decays the class token and the mask token.
    not_decayed = frozenset[str]()

    def __init__(self, encoder: ImageEncoder, size: DecoderSize, *, mask_ratio: float) -> None:
        super().__init__(encoder, random_masking(encoder.num_tokens, mask_ratio))
        patch, side = encoder.size.patch_size, encoder.size.image_size // encoder.size.patch_size
        self.decoder_embed = nn.Linear(encoder.size.dim, size.dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.decoder_pos_embed = nn.Parameter(sincos_positions(side, size.dim), requires_grad=False)
        self.decoder_blocks = nn.ModuleList(
            Block(size.dim, size.num_heads, qkv_bias=True) for _ in range(size.depth)
        )
        self.decoder_norm = nn.LayerNorm(size.dim, eps=1e-6)
        self.decoder_pred = nn.Linear(size.dim, 3 * patch**2)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            module.apply(init_linear)

    def targets(self, inputs: Tensor) -> PixelTargets:
        # Channels are normalised together, so it matters what they were divided by before.
        return patch_targets(self.encoder.normalise(inputs), self.encoder.size.patch_size)

    def _decode(self, tokens: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        embedded = self.decoder_embed(tokens)
        # The class token has no position: zeros.
        positions = self.decoder_pos_embed[:, 1:]
        seen = embedded[:, 1:] + choose_tokens(positions, visible)
        hidden = self.mask_token + choose_tokens(positions, masked)
        x = torch.cat([embedded[:, :1], seen, hidden], dim=1)
        x = run_blocks(self.decoder_blocks, x, checkpointing=self.encoder.checkpointing)
        predictions: Tensor = self.decoder_pred(self.decoder_norm(x[:, tokens.shape[1] :]))
        return predictions

    def _arrange(self, values: Tensor) -> Tensor:
        patch = self.encoder.size.patch_size
        side = self.encoder.size.image_size // patch
        return rearrange(
            values, "b (h w) (p q c) -> b c (h p) (w q)", h=side, w=side, p=patch, q=patch
        )

    def _assemble(self, pixels: Tensor) -> Tensor:
        return self._arrange(pixels) * self.encoder.std + self.encoder.mean
