"""The encoders of V-JEPA and V-JEPA 2: plain ViTs over tubelets that know the three axes of a clip.

V-JEPA adds fixed positions to the tokens. V-JEPA 2 adds nothing: its attention turns queries and
keys by angles that grow with a token's place (rotary positions), so that the bias on the keys,
which is without effect elsewhere, counts.

Shape letters: B clips, T frames, H x W pixels, N tokens, D width, h width of a head.

Source: V-JEPA (arXiv 2404.08471), V-JEPA 2 (arXiv 2506.09985), section 2.1, and their official
code. Parameters carry the official names, so that files load unrenamed.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from pipeline.models.encoder import (
    TubeletEmbedding,
    ViTSize,
    init_weights,
    require_frames,
    token_grid,
)
from pipeline.models.vit import PlainViT, run_blocks


class JepaSize(ViTSize):
    """Size of an encoder of V-JEPA or V-JEPA 2.

    Attributes:
        positions: `sincos_3d`, of V-JEPA, or `rotary`, of V-JEPA 2.
    """

    positions: Literal["sincos_3d", "rotary"]


def sincos_3d_positions(slices: int, side: int, dim: int) -> Tensor:
    """Fixed position table (1, slices * side * side, D), slice by slice, row by row.

    A third of the channels is the slice's, a third the row's, a third the column's; in each third
    the sines come first, then the cosines, at angular frequencies 10000^(-j / J) with J sines. A
    third is rounded up to an even number, and what is too many is cut off at the end.

    Source: the official code of V-JEPA, with `uniform_power`, as its released models have it.
    """
    num_sines = -(-dim // 6)
    frequency = 10000.0 ** (-torch.arange(num_sines, dtype=torch.float64) / num_sines)
    axes = []
    for places in _places(slices, side):
        phase = places[:, None] * frequency
        axes += [phase.sin(), phase.cos()]
    return torch.cat(axes, dim=1)[None, :, :dim].float()


def rotation(slices: int, side: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (N, h) of the angles by which a head's channels are turned.

    The first channels turn with the slice, the next with the row, then the column; what a third of
    h leaves over stays as it is. Channels 2i and 2i + 1 are turned together, but each by its own
    angle: channel c of an axis with J pairs has the frequency 10000^(-(c mod J) / J). The official
    code calls that a mistake which the released weights have learnt to live with.
    """
    num_pairs = head_dim // 3 // 2
    frequency = 10000.0 ** (-torch.arange(num_pairs, dtype=torch.float64) / num_pairs)
    angles = [places[:, None] * frequency.repeat(2) for places in _places(slices, side)]
    still = torch.zeros(len(angles[0]), head_dim - 6 * num_pairs, dtype=torch.float64)
    angle = torch.cat([*angles, still], dim=1)
    return angle.cos().float(), angle.sin().float()


def _places(slices: int, side: int) -> tuple[Tensor, ...]:
    """For every token, slice by slice and row by row, its slice, row and column: (N,) each."""
    numbers = [torch.arange(count, dtype=torch.float64) for count in (slices, side, side)]
    return tuple(grid.flatten() for grid in torch.meshgrid(*numbers, indexing="ij"))


class RotaryAttention(nn.Module):
    """Self-attention whose queries and keys (B, heads, N, h) are turned by their places."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        fused: Tensor = self.qkv(x)
        parts = fused.reshape(*fused.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind()
        q, k = (_turn(part, cosines, sines).to(v.dtype) for part in (q, k))
        attended = F.scaled_dot_product_attention(q, k, v)
        tokens: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return tokens


def _turn(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    even, odd = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    return x * cosines + torch.stack((-odd, even), dim=-1).flatten(-2) * sines


class RotaryBlock(nn.Module):
    """A pre-norm block whose attention is rotary."""

    def __init__(self, dim: int, num_heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = RotaryAttention(dim, num_heads)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        x = x + self.drop_path1(self.attn(self.norm1(x), cosines, sines))
        tokens: Tensor = x + self.drop_path2(self.mlp(self.norm2(x)))
        return tokens


class JepaEncoder(PlainViT):
    """Tubelets, joint space-time attention, no class token, pre-norm blocks with a full bias.

    Args:
        size: Sizes, and which positions.
        num_frames: Frames T of a clip; a multiple of the tubelet's.
        drop_path: Stochastic-depth rate of the last block; the blocks rise linearly from 0 to it.
        checkpointing: Recompute the blocks' activations in the backward pass, to save memory.

    Raises:
        ValueError: The frames' side or number is no multiple of the tubelet's, or a head is odd.
    """

    pos_embed: Tensor
    cosines: Tensor
    sines: Tensor

    def __init__(
        self,
        size: JepaSize,
        *,
        num_frames: int,
        drop_path: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        slices, side = token_grid(size, num_frames)
        if size.dim % (2 * size.num_heads):
            raise ValueError(f"{size.num_heads} heads of {size.dim} channels have no even width")
        self.size = size
        self.num_frames = num_frames
        self.num_tokens = slices * side**2
        self.checkpointing = checkpointing
        self.patch_embed = TubeletEmbedding(size.dim, size.patch_size, size.tubelet_size)
        rates = [drop_path * i / max(size.depth - 1, 1) for i in range(size.depth)]
        if size.positions == "rotary":
            angles = rotation(slices, side, size.dim // size.num_heads)
            for name, table in zip(("cosines", "sines"), angles, strict=True):
                self.register_buffer(name, table, persistent=False)
            self.blocks = nn.ModuleList(
                RotaryBlock(size.dim, size.num_heads, rate) for rate in rates
            )
        else:
            # Persistent, as in the official files: it tells them from those of V-JEPA 2.
            self.register_buffer("pos_embed", sincos_3d_positions(slices, side, size.dim))
            self.blocks = nn.ModuleList(
                Block(size.dim, size.num_heads, qkv_bias=True, drop_path=rate) for rate in rates
            )
        self.norm = nn.LayerNorm(size.dim, eps=1e-6)
        self.apply(init_weights)

    def forward(self, frames: Tensor) -> Tensor:
        """Final-norm tokens (B, N, D) of RGB frames (B, T, 3, H, W).

        As in torchvision, uint8 frames are from 0 to 255, floating ones from 0 to 1.

        Raises:
            ValueError: The frames' number or size is not what the encoder was built for.
        """
        require_frames(frames, self.num_frames, self.size.image_size)
        x = self.patch_embed(self.normalise(frames))
        if self.size.positions == "rotary":
            angles = (self.cosines, self.sines)
            x = run_blocks(self.blocks, x, *angles, checkpointing=self.checkpointing)
        else:
            x = run_blocks(self.blocks, x + self.pos_embed, checkpointing=self.checkpointing)
        tokens: Tensor = self.norm(x)
        return tokens
