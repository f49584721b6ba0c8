"""Masked autoencoders: predict the hidden tokens of a sample from the visible ones.

Shape letters: B samples, N tokens, V visible, M masked (N = V + M), D encoder width, P pixel values
of a token.
"""

from __future__ import annotations

from pydantic import PositiveInt
from torch import Tensor, nn

from pipeline.common.params import Section
from pipeline.models.encoder import EncoderSize, VideoMAEEncoder
from pipeline.models.image_encoder import ImageEncoder, ImageEncoderSize
from pipeline.pretrain.masks import Masking
from pipeline.pretrain.targets import PixelTargets


class DecoderSize(Section):
    """Size of the decoder, which only pre-training needs.

    Attributes:
        dim: Token width.
        depth: Number of blocks.
        num_heads: Attention heads; divides `dim`.
    """

    dim: PositiveInt
    depth: PositiveInt
    num_heads: PositiveInt


class VideoSize(Section):
    """A preset of models for method videomae."""

    encoder: EncoderSize
    decoder: DecoderSize


class ImageSize(Section):
    """A preset of models for method mae."""

    encoder: ImageEncoderSize
    decoder: DecoderSize


class MaskedAutoencoder(nn.Module):
    """What both forms share; the error of every sample is computed where its pixels are.

    Attributes:
        encoder: What pre-training is for.
        masking: Of every sample.
    """

    encoder: VideoMAEEncoder | ImageEncoder
    masking: Masking
    not_decayed: frozenset[str]
    """Names of parameters of several axes that weight decay spares."""

    def forward(self, inputs: Tensor, masks: Tensor) -> Tensor:
        """(B,) mean squared error of each sample's masked tokens, in float32.

        Args:
            inputs: Clips (B, T, 3, H, W) or pictures (B, 3, H, W), uint8 or from 0 to 1.
            masks: (B, N) booleans, True where a token is hidden; as many in every sample as
                `masking` says.

        Raises:
            ValueError: Inputs or masks have another size than the encoder.
        """
        raise NotImplementedError

    def predict(self, inputs: Tensor, masks: Tensor) -> Tensor:
        """(B, M, P) normalised pixels of the masked tokens, in their order."""
        raise NotImplementedError

    def targets(self, inputs: Tensor) -> PixelTargets:
        """(B, N, P) of all tokens."""
        raise NotImplementedError

    def reconstruct(self, inputs: Tensor, masks: Tensor) -> Tensor:
        """The inputs from 0 to 1, with predictions in place of the pixels of masked tokens.

        A prediction says how the pixels of a token vary; mean and deviation are those of the truth.
        """
        raise NotImplementedError

    def hide(self, inputs: Tensor, masks: Tensor) -> Tensor:
        """The inputs from 0 to 1, grey (0.5) where tokens are masked."""
        raise NotImplementedError
