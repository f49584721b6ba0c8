"""What the video and the image encoder have in common: normalised pixels, and blocks over tokens.

Shape letters: B samples, N tokens, V tokens that are kept, D width.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PlainViT(nn.Module):
    """Base of the encoders: the normalisation that belongs to their weights, and freezing.

    Attributes:
        mean: Per-channel mean of RGB in [0, 1] that the weights expect to be subtracted; of
            ImageNet, until weights of another kind are loaded.
        std: Per-channel deviation that they expect to be divided by.
    """

    # Persistent: the normalisation belongs to the weights and is saved with them.
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.frozen = False
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels (..., 3, H, W) as the weights expect them; uint8 from 0 to 255, or 0 to 1."""
        fractions = pixels if pixels.is_floating_point() else pixels / 255
        return (fractions - self.mean) / self.std

    def freeze(self) -> None:
        """Fix the weights: no gradients, and evaluation mode whatever mode the parent is put in."""
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and not self.frozen)


def require_heads(dim: int, num_heads: int) -> None:
    """Raise ValueError where a token cannot be divided among attention heads."""
    if dim % num_heads:
        raise ValueError(f"{num_heads} heads do not divide a width of {dim}")


def run_blocks(blocks: nn.ModuleList, x: Tensor, *context: Tensor, checkpointing: bool) -> Tensor:
    """Tokens (B, N, D) through all blocks.

    Args:
        blocks: One after the other.
        x: Tokens.
        context: What every block gets besides the tokens.
        checkpointing: Recompute the blocks' activations in the backward pass, to save memory.
    """
    for block in blocks:
        if checkpointing and torch.is_grad_enabled():
            x = checkpoint(block, x, *context, use_reentrant=False)
        else:
            x = block(x, *context)
    return x


def choose_tokens(tokens: Tensor, numbers: Tensor) -> Tensor:
    """The tokens (B, V, D) of those numbers (B, V) among (B, N, D), or (1, N, D) of all samples."""
    expanded = tokens.expand(len(numbers), -1, -1)
    return expanded.gather(1, numbers[..., None].expand(-1, -1, tokens.shape[-1]))


def init_linear(module: nn.Module) -> None:
    """Xavier uniform weights and zero biases, where the module is linear."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
