"""The VideoMAE encoder: a plain ViT over tubelets of 16 frames.

Shape letters: B clips, T frames, H x W pixels, N tokens (T/2 x H/16 x W/16), D encoder width.

Source: VideoMAE (arXiv 2203.12602), sections 3.3 and 4; MTCAE-DFER (arXiv 2412.18988), section III.
Parameters carry the names of the official VideoMAE release, so that its checkpoints load unrenamed.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import PositiveInt, model_validator
from timm.models.beit import Block
from torch import Tensor, nn

from pipeline.common.params import Section
from pipeline.models.vit import PlainViT, choose_tokens, require_heads, run_blocks


class ViTSize(Section):
    """What the sizes of all video encoders have.

    Attributes:
        image_size: Height and width of a frame in pixels; a multiple of `patch_size`.
        patch_size: Side of a tubelet in pixels.
        tubelet_size: Length of a tubelet in frames.
        dim: Token width D.
        depth: Number of blocks.
        num_heads: Attention heads; divides `dim`.
    """

    image_size: PositiveInt
    patch_size: PositiveInt
    tubelet_size: PositiveInt
    dim: PositiveInt
    depth: PositiveInt
    num_heads: PositiveInt

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        require_heads(self.dim, self.num_heads)
        return self


class EncoderSize(ViTSize):
    """Size of an encoder.

    Attributes:
        stem: How a tubelet becomes a token: `linear`, as in VideoMAE and every public checkpoint,
            or `conv`, which learns from few clips.
    """

    stem: Literal["linear", "conv"]


def token_grid(size: ViTSize, num_frames: int) -> tuple[int, int]:
    """Slices of a clip, and tubelets along a side of a slice.

    Raises:
        ValueError: The frames' side or number is no multiple of the tubelet's.
    """
    if size.image_size % size.patch_size or num_frames % size.tubelet_size:
        raise ValueError(
            f"{num_frames} frames of {size.image_size} px do not divide into tubelets of "
            f"{size.tubelet_size} frames x {size.patch_size} px"
        )
    return num_frames // size.tubelet_size, size.image_size // size.patch_size


def require_frames(frames: Tensor, num_frames: int, image_size: int) -> None:
    """Make sure that frames are (B, T, 3, I, I) of an encoder's T and I."""
    expected = (num_frames, 3, image_size, image_size)
    if frames.shape[1:] != expected:
        raise ValueError(f"frames are {tuple(frames.shape)}, this encoder takes (B, *{expected})")


def sinusoid_positions(num_tokens: int, dim: int) -> Tensor:
    """Fixed 1-D position table (1, N, D): sines in the even channels, cosines in the odd ones.

    Channels 2i and 2i + 1 turn at the angular frequency 10000^(-2i / D). Tokens are counted frame
    by frame, row by row.

    Source: Attention Is All You Need (arXiv 1706.03762), section 3.5.
    """
    # float64: a phase near 1568 radians keeps only four decimals in float32.
    position = torch.arange(num_tokens, dtype=torch.float64)[:, None]
    frequency = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    phase = position * frequency
    return torch.stack((phase.sin(), phase.cos()), dim=-1).flatten(1)[None].float()


class TubeletEmbedding(nn.Module):
    """Linear embedding of tubelets: (B, T, 3, H, W) -> (B, N, D), or (B, V, D) of the visible."""

    def __init__(self, dim: int, patch_size: int, tubelet_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.tubelet_size = tubelet_size
        kernel = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(3, dim, kernel_size=kernel, stride=kernel)

    def forward(self, frames: Tensor, visible: Tensor | None = None) -> Tensor:
        # Tubelets do not overlap, so the convolution is one matrix product over reshaped pixels:
        # the same numbers, and in bf16 on a CPU 1.7 times as fast. The weights keep the Conv3d
        # layout.
        b, t, c, h, w = frames.shape
        p, s = self.patch_size, self.tubelet_size
        tubelets = frames.reshape(b, t // s, s, c, h // p, p, w // p, p)
        tubelets = tubelets.permute(0, 1, 4, 6, 3, 2, 5, 7).reshape(b, -1, c * s * p * p)
        if visible is not None:
            tubelets = choose_tokens(tubelets, visible)
        return F.linear(tubelets, self.proj.weight.flatten(1), self.proj.bias)


class ConvStem(nn.Module):
    """Convolutions in place of the linear embedding: (B, T, 3, H, W) -> (B, N, D) or (B, V, D).

    The frames of a tubelet are the channels of one picture, which 3 x 3 convolutions of stride 2
    halve until a pixel is a token. Each is followed by a norm over the whole picture, so that a
    token begins about as large as its position. Where some tubelets are hidden, their pixels are
    zero, because the convolutions and norms of the others would see them.

    Raises:
        ValueError: The patch size is no power of two above 1.

    Source: Early Convolutions Help Transformers See Better (arXiv 2106.14881), section 4.
    """

    def __init__(self, dim: int, patch_size: int, tubelet_size: int) -> None:
        num_halvings = patch_size.bit_length() - 1
        if patch_size != 2**num_halvings or patch_size < 2:
            raise ValueError(f"a stem `conv` halves the frame: no patch_size of {patch_size} px")
        widths = [dim * (i + 1) // num_halvings for i in range(num_halvings)]
        layers: list[nn.Module] = []
        for channels, width in zip([3 * tubelet_size, *widths[:-1]], widths, strict=True):
            convolution = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
            layers += [convolution, nn.GroupNorm(1, width), nn.GELU()]
        super().__init__()
        self.layers = nn.Sequential(*layers[:-1])  # no GELU after the last norm
        self.patch_size = patch_size
        self.tubelet_size = tubelet_size

    def forward(self, frames: Tensor, visible: Tensor | None = None) -> Tensor:
        b, t, c, h, w = frames.shape
        if visible is not None:
            frames = frames * self._seen(visible, t, h, w)
        pictures = frames.reshape(b * t // self.tubelet_size, self.tubelet_size * c, h, w)
        tokens: Tensor = self.layers(pictures).flatten(2).mT  # a tubelet's, row by row
        tokens = tokens.reshape(b, -1, tokens.shape[-1])
        return tokens if visible is None else choose_tokens(tokens, visible)

    def _seen(self, visible: Tensor, t: int, h: int, w: int) -> Tensor:
        """(B, T, 1, H, W): 1 for the pixels of the visible tubelets, 0 for the others."""
        p, s = self.patch_size, self.tubelet_size
        grid = (t // s, 1, h // p, w // p)
        seen = torch.zeros(len(visible), math.prod(grid), device=visible.device)
        seen = seen.scatter(1, visible, 1.0).reshape(-1, *grid)
        for axis, length in ((1, s), (3, p), (4, p)):
            seen = seen.repeat_interleave(length, dim=axis)
        return seen


class VideoMAEEncoder(PlainViT):
    """Tubelets, fixed positions, joint space-time attention, no class token, pre-norm blocks.

    Weights start as in VideoMAE: truncated normal with deviation 0.02, zero biases; those of a
    stem `conv` as He et al. have it.

    Args:
        size: Sizes.
        num_frames: Frames T of a clip; a multiple of the tubelet's.
        drop_path: Stochastic-depth rate of the last block; the blocks rise linearly from 0 to it.
        checkpointing: Recompute the blocks' activations in the backward pass, to save memory.

    Raises:
        ValueError: The frames' side or number is no multiple of the tubelet's.
    """

    positions: Tensor

    def __init__(
        self,
        size: EncoderSize,
        *,
        num_frames: int,
        drop_path: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        slices, side = token_grid(size, num_frames)
        self.size = size
        self.num_frames = num_frames
        self.num_tokens = slices * side**2
        self.checkpointing = checkpointing
        self.register_buffer(
            "positions", sinusoid_positions(self.num_tokens, size.dim), persistent=False
        )

        embedding = ConvStem if size.stem == "conv" else TubeletEmbedding
        self.patch_embed: nn.Module = embedding(size.dim, size.patch_size, size.tubelet_size)
        # timm's BEiT block is VideoMAE's: biases on q and v, none on k, an epsilon of 1e-6.
        self.blocks = nn.ModuleList(
            Block(
                size.dim,
                size.num_heads,
                qkv_bias=True,
                mlp_ratio=4.0,
                drop_path=drop_path * i / max(size.depth - 1, 1),
            )
            for i in range(size.depth)
        )
        self.norm = nn.LayerNorm(size.dim, eps=1e-6)
        self.apply(init_weights)

    def forward(self, frames: Tensor, visible: Tensor | None = None) -> Tensor:
        """Final-norm tokens (B, N, D) of RGB frames (B, T, 3, H, W).

        As in torchvision, uint8 frames are from 0 to 255, floating ones from 0 to 1.

        Args:
            frames: Of B clips.
            visible: (B, V) numbers of the tokens that are computed, in that order, as if the clips
                held no others: (B, V, D). None: all of them.

        Raises:
            ValueError: The frames' number or size is not what the encoder was built for.
        """
        require_frames(frames, self.num_frames, self.size.image_size)
        positions = self.positions
        if visible is not None:
            positions = choose_tokens(positions, visible)
        x = self.patch_embed(self.normalise(frames), visible) + positions
        tokens: Tensor = self.norm(run_blocks(self.blocks, x, checkpointing=self.checkpointing))
        return tokens


def init_weights(module: nn.Module) -> None:
    """Start a layer as VideoMAE does; a convolution over pictures as He et al. have it."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
