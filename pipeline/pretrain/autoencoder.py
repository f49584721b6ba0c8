"""Masked autoencoders: predict the hidden tokens of a sample from the visible ones.

Shape letters: B samples, N tokens, V visible, M masked (N = V + M), D encoder width, d decoder
width, P pixel values of a token.
"""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from pipeline.common.params import Section
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.models.image_encoder import ImageEncoder
from pipeline.models.vit import choose_tokens
from pipeline.pretrain.masks import Masking
from pipeline.pretrain.targets import PixelTargets, fractions


class DecoderSize(Section):
    """Size of the decoder, which only pre-training needs.

    Attributes:
        dim: Token width d.
        depth: Number of blocks.
        num_heads: Attention heads; divides `dim`.
    """

    dim: PositiveInt
    depth: PositiveInt
    num_heads: PositiveInt


class MaskedAutoencoder(nn.Module):
    """What both forms share; a subclass has the decoder and knows what a token's pixels are.

    Args:
        encoder: What pre-training is for.
        masking: Of every sample.

    Attributes:
        not_decayed: Names of parameters of several axes that weight decay spares all the same.
    """

    not_decayed: frozenset[str]

    def __init__(self, encoder: VideoMAEEncoder | ImageEncoder, masking: Masking) -> None:
        super().__init__()
        self.encoder = encoder
        self.masking = masking

    def forward(self, inputs: Tensor, masks: Tensor) -> Tensor:
        """(B,) mean squared error of each sample's masked tokens, in float32.

        Args:
            inputs: Clips (B, T, 3, H, W) or pictures (B, 3, H, W), uint8 or from 0 to 1.
            masks: (B, N) booleans, True where a token is hidden; as many in every sample as
                `masking` says, which is not checked: a GPU would wait for it.

        Raises:
            ValueError: Inputs or masks have another size than the encoder.
        """
        predictions = self.predict(inputs, masks).float()
        truth = choose_tokens(self.targets(inputs).values, self._split(masks)[1])
        return (predictions - truth).square().mean((1, 2))

    def predict(self, inputs: Tensor, masks: Tensor) -> Tensor:
        """(B, M, P) normalised pixels of the masked tokens, in their order."""
        visible, masked = self._split(masks)
        return self._decode(self.encoder(inputs, visible), visible, masked)

    def targets(self, inputs: Tensor) -> PixelTargets:
        """(B, N, P) of all tokens."""
        raise NotImplementedError

    @torch.no_grad()
    def reconstruct(self, inputs: Tensor, masks: Tensor) -> Tensor:
        """The inputs from 0 to 1, with predictions in place of the pixels of masked tokens.

        A prediction says how the pixels of a token vary; mean and deviation are those of the truth.
        """
        truth = self.targets(inputs)
        places = self._split(masks)[1][..., None].expand(-1, -1, truth.values.shape[2])
        values = truth.values.scatter(1, places, self.predict(inputs, masks).float())
        predicted = self._assemble(truth.pixels(values)).clamp(0, 1)
        return torch.where(self._are_hidden(truth, masks), predicted, fractions(inputs))

    @torch.no_grad()
    def hide(self, inputs: Tensor, masks: Tensor) -> Tensor:
        """The inputs from 0 to 1, grey (0.5) where tokens are masked."""
        hidden = self._are_hidden(self.targets(inputs), masks)
        return fractions(inputs).masked_fill(hidden, 0.5)

    def _are_hidden(self, targets: PixelTargets, masks: Tensor) -> Tensor:
        """The masks as pixels of the inputs."""
        return self._arrange(masks[..., None].expand_as(targets.values))

    def _split(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers of the visible tokens (B, V) and of the masked ones (B, M), in order."""
        if masks.shape[1:] != (self.masking.num_tokens,):
            raise ValueError(
                f"masks are {tuple(masks.shape)}, this encoder has {self.masking.num_tokens} tokens"
            )
        # All samples have as many, so that the device knows the shapes without counting.
        order = masks.to(torch.uint8).argsort(dim=1, stable=True)
        return order[:, : self.masking.num_visible], order[:, self.masking.num_visible :]

    def _decode(self, tokens: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Normalised pixels (B, M, P) of the masked tokens from what the encoder says."""
        raise NotImplementedError

    def _arrange(self, values: Tensor) -> Tensor:
        """The values (B, N, P) of the tokens' pixels where the inputs have them."""
        raise NotImplementedError

    def _assemble(self, pixels: Tensor) -> Tensor:
        """Inputs about 0 to 1 out of pixels (B, N, P) as `targets` takes them."""
        return self._arrange(pixels)
