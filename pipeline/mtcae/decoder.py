"""The plug-and-play decoders between the encoder's tokens and the task heads.

Shape letters: B clips, M query tokens, N memory tokens, d decoder width, H heads, K head width.

Source: MTCAE-DFER (arXiv 2412.18988), section III and Algorithm 1. The paper leaves the head
width, the MLP and the dropout open; they follow the authors' released notebook
(docs/deviations.md).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from pipeline.common.params import Section
from pipeline.mtcae.keras_init import DenseOfHeads, init_as_keras

Probability = Annotated[float, Field(ge=0, le=1)]
Attention = Literal["auto", "fused", "written_out"]

# Widest heads that torch's flash and cuDNN kernels for GPUs take; beyond them its fused attention
# falls back to older, slower kernels.
_WIDEST_FUSED = 256


class DecoderSize(Section):
    """Size of the decoders and heads.

    Attributes:
        dim: Decoder width d.
        num_heads: Attention heads H of a ViT decoder.
        head_dim: Width K of one head; the authors take `dim`.
        num_layers: Layers of every decoder.
        dropout: On the encoder's tokens and in the decoders.
        head_dropout: In the task heads.
        norm_before_pool: The task heads norm every token and then take the mean, as the paper
            writes it, rather than the notebook's norm of the mean.
        attention: How attention is computed, which changes the last bits and the speed: by torch's
            `fused` kernels, or `written_out` as two matrix products and a softmax; `auto` writes it
            out on a GPU where heads are wider than 256.
    """

    dim: PositiveInt
    num_heads: PositiveInt
    head_dim: PositiveInt
    num_layers: PositiveInt
    dropout: Probability
    head_dropout: Probability
    norm_before_pool: bool
    attention: Attention


class CrossAttention(nn.Module):
    """Multi-head attention from queries (B, M, d) to a memory (B, N, d) -> (B, M, d).

    The inner width H * K need not be d: the authors' heads are each as wide as the decoder (d 512,
    3 heads of 512), which torch.nn.MultiheadAttention cannot express.

    Args:
        dim: Width d of queries, memory and output.
        num_heads: Number of heads H.
        head_dim: Width K of one head.
        dropout: Probability of dropping an attention weight.
        attention: See `DecoderSize`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        dropout: float,
        attention: Attention = "auto",
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.dropout = dropout
        self.attention = attention
        inner_dim = num_heads * head_dim
        self.query, self.key, self.value = (
            DenseOfHeads((dim, num_heads, head_dim), dim, inner_dim) for _ in range(3)
        )
        self.proj = DenseOfHeads((num_heads, head_dim, dim), inner_dim, dim)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        q, k, v = self.query(queries), self.key(memory), self.value(memory)  # (B, M or N, H * K)
        attend = self._written_out if self._writes_out(q) else self._fused
        output: Tensor = self.proj(attend(q, k, v))
        return output

    def _writes_out(self, q: Tensor) -> bool:
        if self.attention == "auto":
            return q.is_cuda and self.head_dim > _WIDEST_FUSED
        return self.attention == "written_out"

    def _fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        q, k, v = (self._split_heads(x) for x in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return attended.transpose(1, 2).flatten(2)

    def _split_heads(self, x: Tensor) -> Tensor:
        batch, num_tokens, _ = x.shape
        return x.view(batch, num_tokens, self.num_heads, -1).transpose(1, 2)  # (B, H, N, K)

    def _written_out(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One head after the other: for all at once, torch first copies q, k and v head by head."""
        attended = []
        scaled = q * self.head_dim**-0.5
        for queries, keys, values in zip(
            *(x.chunk(self.num_heads, dim=2) for x in (scaled, k, v)), strict=True
        ):
            scores = queries @ keys.mT
            # Sums are float32 inside of the kernel. Under autocast a GPU would also write the
            # weights, N numbers for every query, in float32, and dropout after it.
            weights = scores.softmax(dim=-1, dtype=scores.dtype)
            attended.append(F.dropout(weights, self.dropout, self.training) @ values)
        return torch.cat(attended, dim=2)


def mlp(dim: int, mlp_ratio: float, dropout: float) -> nn.Sequential:
    """Two dense layers with GELU and dropout after both, as in the notebook."""
    hidden_dim = int(dim * mlp_ratio)
    return nn.Sequential(
        nn.Linear(dim, hidden_dim),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_dim, dim),
        nn.GELU(),
        nn.Dropout(dropout),
    )


class CrossAttentionBlock(nn.Module):
    """One layer of Algorithm 1: queries (B, M, d), normed memory (B, N, d) -> (B, M, d)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        mlp_ratio: float,
        dropout: float,
        attention: Attention,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = CrossAttention(dim, num_heads, head_dim, dropout, attention)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = mlp(dim, mlp_ratio, dropout)

    def forward(self, y: Tensor, memory: Tensor) -> Tensor:
        z = y + self.attention(self.norm1(y), memory)
        output: Tensor = z + self.mlp(self.norm2(z))
        return output


class ViTDecoder(nn.Module):
    """Cross-attention decoder: queries (B, M, d), memory (B, N, d) -> (B, M, d).

    Queries never attend to one another, the memory is normed once and is the same for every layer,
    and the output is not normed. Weights start as in Keras: Glorot uniform, zero biases.

    Args:
        dim: Width d.
        num_heads: Heads per layer.
        head_dim: Width of one head, independent of `dim`; the authors take `dim`.
        num_layers: Number of layers.
        mlp_ratio: Hidden width of the MLP over `dim`.
        dropout: Dropout probability in attention and MLP.
        attention: See `DecoderSize`.

    Source: MTCAE-DFER, Algorithm 1.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        num_layers: int,
        mlp_ratio: float = 2.0,
        dropout: float = 0.3,
        attention: Attention = "auto",
    ) -> None:
        super().__init__()
        self.memory_norm = nn.LayerNorm(dim, eps=1e-6)
        self.layers = nn.ModuleList(
            CrossAttentionBlock(dim, num_heads, head_dim, mlp_ratio, dropout, attention)
            for _ in range(num_layers)
        )
        self.apply(init_as_keras)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        memory = self.memory_norm(memory)
        for layer in self.layers:
            queries = layer(queries, memory)
        return queries


class MLPDecoder(nn.Module):
    """The ViT decoder without its attention half: Y = Y + MLP(Norm(Y)), (B, M, d) -> (B, M, d).

    The paper's ablation does not define its MLP decoder; this reading changes one thing only.
    Arguments as in ViTDecoder.
    """

    def __init__(
        self, dim: int, num_layers: int, mlp_ratio: float = 2.0, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim, eps=1e-6), mlp(dim, mlp_ratio, dropout))
            for _ in range(num_layers)
        )
        self.apply(init_as_keras)

    def forward(self, queries: Tensor) -> Tensor:
        for layer in self.layers:
            queries = queries + layer(queries)
        return queries
