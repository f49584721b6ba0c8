"""What is to be predicted of a hidden token: its pixels, normalised by themselves.

Shape letters: B samples, T frames, H x W pixels, N tokens, K values of a token that are normalised
together, C such groups in a token (its channels, or 1), P = K C.
"""

from typing import NamedTuple

from einops import rearrange
from torch import Tensor


class PixelTargets(NamedTuple):
    """Normalised pixels, and what undoes the normalisation.

    Attributes:
        values: (B, N, P).
        mean: (B, N, 1, C) of the pixels.
        deviation: (B, N, 1, C), by which they were divided.
    """

    values: Tensor
    mean: Tensor
    deviation: Tensor

    def pixels(self, values: Tensor) -> Tensor:
        """Values (B, N, P) that are predicted, as pixels."""
        grouped = rearrange(values, "b n (k c) -> b n k c", c=self.mean.shape[3])
        return (grouped * self.deviation + self.mean).flatten(2)


def tubelet_targets(frames: Tensor, tubelet_size: int, patch_size: int) -> PixelTargets:
    """Of clips (B, T, 3, H, W): each channel of a tubelet is normalised by itself.

    Values come in the order frame, row, column, channel. They are divided by their unbiased
    deviation, to which 1e-6 is added.

    Source: the official code of VideoMAE.
    """
    pixels = rearrange(
        fractions(frames),
        "b (t s) c (h p) (w q) -> b (t h w) (s p q) c",
        s=tubelet_size,
        p=patch_size,
        q=patch_size,
    )
    mean, deviation = pixels.mean(2, keepdim=True), pixels.std(2, keepdim=True) + 1e-6
    return PixelTargets(((pixels - mean) / deviation).flatten(2), mean, deviation)


def patch_targets(pictures: Tensor, patch_size: int) -> PixelTargets:
    """Of pictures (B, 3, H, W) as the encoder takes them: a patch's channels normalised together.

    Values come in the order row, column, channel. They are divided by the root of their unbiased
    variance, to which 1e-6 is added.

    Source: MAE (arXiv 2111.06377), section 4.1, and its code.
    """
    pixels = rearrange(pictures, "b c (h p) (w q) -> b (h w) (p q c) 1", p=patch_size, q=patch_size)
    mean, deviation = pixels.mean(2, keepdim=True), (pixels.var(2, keepdim=True) + 1e-6).sqrt()
    return PixelTargets(((pixels - mean) / deviation).flatten(2), mean, deviation)


def fractions(pixels: Tensor) -> Tensor:
    """Pixels from 0 to 1, in float32."""
    return pixels.float() if pixels.is_floating_point() else pixels / 255
