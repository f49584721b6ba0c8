"""The image encoder of MAE: a plain ViT over patches, with a class token.

Shape letters: B pictures, H x W pixels, N patches (H/16 x W/16), V visible ones, D width.

Source: Masked Autoencoders Are Scalable Vision Learners (arXiv 2111.06377), section 4 and A.1.
Parameters carry the names of timm and of the official release, so that files load unrenamed.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import PositiveInt, model_validator
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from pipeline.common.params import Section
from pipeline.models.vit import PlainViT, choose_tokens, init_linear, require_heads, run_blocks


class ImageEncoderSize(Section):
    """Size of an image encoder.

    Attributes:
        image_size: Height and width of a picture in pixels; a multiple of `patch_size`.
        patch_size: Side of a patch in pixels.
        dim: Token width D; a multiple of 4.
        depth: Number of blocks.
        num_heads: Attention heads; divides `dim`.
    """

    image_size: PositiveInt
    patch_size: PositiveInt
    dim: PositiveInt
    depth: PositiveInt
    num_heads: PositiveInt

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        require_heads(self.dim, self.num_heads)
        return self


def sincos_positions(side: int, dim: int) -> Tensor:
    """Fixed 2-D position table (1, 1 + side * side, D): zeros for the class token, then row by row.

    The first half of the channels is the column's, the second the row's; in each half the sines
    come first, then the cosines, at angular frequencies 10000^(-4i / D).

    Raises:
        ValueError: D is no multiple of 4.

    Source: the official code of MAE.
    """
    if dim % 4:
        raise ValueError(f"positions of two axes, a sine and a cosine each: no width of {dim}")
    frequency = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    phase = torch.arange(side, dtype=torch.float64)[:, None] * frequency
    axis = torch.cat([phase.sin(), phase.cos()], dim=1)
    columns, rows = axis.repeat(side, 1), axis.repeat_interleave(side, dim=0)
    table = torch.cat([columns, rows], dim=1).float()
    return torch.cat([torch.zeros(1, dim), table])[None]


class PatchEmbedding(nn.Module):
    """Linear embedding of patches: (B, 3, H, W) -> (B, N, D), or (B, V, D) of the visible."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, pictures: Tensor, visible: Tensor | None = None) -> Tensor:
        # One matrix product, as in TubeletEmbedding, over those patches alone that are wanted.
        side = self.patch_size
        patches = rearrange(pictures, "b c (h p) (w q) -> b (h w) (c p q)", p=side, q=side)
        if visible is not None:
            patches = choose_tokens(patches, visible)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class ImageEncoder(PlainViT):
    """Patches, fixed positions, a class token in front, pre-norm blocks.

    Weights start as in MAE: Xavier uniform, zero biases, a normal class token of deviation 0.02.
    Whoever trains the positions too, as fine-tuning does, sets `pos_embed.requires_grad`.

    Args:
        size: Sizes.
        drop_path: Stochastic-depth rate of the last block; the blocks rise linearly from 0 to it.
        checkpointing: Recompute the blocks' activations in the backward pass, to save memory.

    Raises:
        ValueError: The picture's side is no multiple of the patch's, or the width none of 4.
    """

    def __init__(
        self, size: ImageEncoderSize, *, drop_path: float = 0.0, checkpointing: bool = False
    ) -> None:
        super().__init__()
        if size.image_size % size.patch_size:
            raise ValueError(
                f"a picture of {size.image_size} px does not divide into patches of "
                f"{size.patch_size} px"
            )
        self.size = size
        self.num_tokens = (size.image_size // size.patch_size) ** 2
        self.checkpointing = checkpointing
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.pos_embed = nn.Parameter(
            sincos_positions(size.image_size // size.patch_size, size.dim), requires_grad=False
        )
        self.patch_embed = PatchEmbedding(size.dim, size.patch_size)
        self.blocks = nn.ModuleList(
            Block(
                size.dim,
                size.num_heads,
                qkv_bias=True,
                drop_path=drop_path * i / max(size.depth - 1, 1),
            )
            for i in range(size.depth)
        )
        self.norm = nn.LayerNorm(size.dim, eps=1e-6)
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))
        self.apply(init_linear)

    def forward(self, pictures: Tensor, visible: Tensor | None = None) -> Tensor:
        """Final-norm tokens (B, 1 + N, D) of RGB pictures (B, 3, H, W); the class token is first.

        As in torchvision, uint8 pictures are from 0 to 255, floating ones from 0 to 1.

        Args:
            pictures: B of them.
            visible: (B, V) numbers of the patches that are computed, in that order, as if the
                pictures held no others: (B, 1 + V, D). None: all of them.

        Raises:
            ValueError: The pictures' size is not what the encoder was built for.
        """
        side = self.size.image_size
        if pictures.shape[1:] != (3, side, side):
            raise ValueError(
                f"pictures are {tuple(pictures.shape)}, this encoder takes (B, 3, {side}, {side})"
            )
        first, positions = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        if visible is not None:
            positions = choose_tokens(positions, visible)
        x = self.patch_embed(self.normalise(pictures), visible) + positions
        x = torch.cat([(self.cls_token + first).expand(len(x), -1, -1), x], dim=1)
        tokens: Tensor = self.norm(run_blocks(self.blocks, x, checkpointing=self.checkpointing))
        return tokens
