"""EMMA: valence and arousal from the scores of expressions and action units.

Shape letters: B pictures, S side in pixels, D encoder width, C classes, U action units, K classes
of the frozen CNN.

Source: Affective Behaviour Analysis Using Pretrained Model with Facial Prior (arXiv 2207.11679),
section 3; the readings taken where the paper is silent are listed in docs/affect.md.
"""

from typing import NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from pipeline.affect.choices import VAInput
from pipeline.common.params import Section
from pipeline.models.image_encoder import ImageEncoder


class HeadSize(Section):
    """Size of EMMA's heads.

    Attributes:
        score_dim: Width of the layer between the class token and the scores.
        va_dim: Width of the layer between the scores and valence and arousal.
    """

    score_dim: PositiveInt
    va_dim: PositiveInt


class Predictions(NamedTuple):
    """What the heads say, unbounded: no tanh, no softmax, no sigmoid."""

    valence_arousal: Tensor
    """(B, 2)"""
    expression: Tensor
    """(B, C) logits"""
    aus: Tensor
    """(B, U) logits"""


class EMMA(nn.Module):
    """A ViT whose class token says expression and action units, and a head on what is said.

    Valence and arousal are computed from scores alone: those of the ViT, whose gradient goes on
    through them, and those of a frozen CNN, which is no part of this model.

    Args:
        encoder: Filled or random.
        size: Of the heads.
        num_classes: C.
        num_aus: U.
        num_cnn_classes: K; 0 where there is no CNN.
        va_input: What the head of valence and arousal reads: the scores of the ViT, of the CNN, or
            `both`, which is the paper's; or, to compare, the ViT's features in place of scores.

    Raises:
        ValueError: The head would read the scores of a CNN that is not there.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        size: HeadSize,
        *,
        num_classes: int,
        num_aus: int,
        num_cnn_classes: int,
        va_input: VAInput,
    ) -> None:
        super().__init__()
        if not num_cnn_classes and va_input in ("cnn_scores", "both"):
            raise ValueError(
                f"va_input: {va_input} needs the scores of a CNN, and cnn names none; take "
                "va_input: vit_scores"
            )
        self.encoder = encoder
        self.num_classes = num_classes
        self.va_input = va_input
        num_scores = num_classes + num_aus
        self.score_head = _two_layers(encoder.size.dim, size.score_dim, num_scores)
        widths = {
            "vit_scores": num_scores,
            "cnn_scores": num_cnn_classes,
            "both": num_cnn_classes + num_scores,
            "features": encoder.size.dim,
        }
        self.va_head = _two_layers(widths[va_input], size.va_dim, 2)

    def forward(self, pictures: Tensor, cnn_scores: Tensor) -> Predictions:
        """Predictions for RGB pictures (B, 3, S, S) and the CNN's scores of them (B, K)."""
        features = self.encoder(pictures)[:, 0]
        # In single precision: rounding to bfloat16 would be a loss of its own.
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            scores = self.score_head(features)
            inputs = {
                "vit_scores": scores,
                "cnn_scores": cnn_scores.float(),
                "both": torch.cat([cnn_scores.float(), scores], dim=1),
                "features": features,
            }
            numbers = self.va_head(inputs[self.va_input])
        expression, aus = scores[:, : self.num_classes], scores[:, self.num_classes :]
        return Predictions(numbers, expression, aus)

    def layers_from_output(self, name: str) -> int:
        """How deep a parameter lies, for rates that fall from layer to layer; see `ViTDepth`."""
        return depth_in_encoder(name, self.encoder.size.depth)


def depth_in_encoder(name: str, depth: int) -> int:
    """Layers between a parameter and the heads, by its name.

    0 above the encoder's blocks, 1 in its last block, depth + 1 in its embedding, positions and
    class token.

    Args:
        name: With `encoder.` in front of what is the encoder's.
        depth: Blocks of the encoder.
    """
    _, is_inside, inner = name.rpartition("encoder.")
    if inner.startswith("blocks."):
        return depth - int(inner.split(".")[1])
    return depth + 1 if is_inside and not inner.startswith("norm.") else 0


def _two_layers(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim))
