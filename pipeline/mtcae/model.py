"""MTCAE-DFER: one encoder, up to four decoders, a head per task, in six structures.

Shape letters: B clips, T frames, N tokens, D encoder width, d decoder width, C classes.

Source: MTCAE-DFER (arXiv 2412.18988), section III and Table I; the readings taken where the paper
is silent are listed in docs/deviations.md.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.common.params import Section
from pipeline.models.video_encoders import VideoEncoder, VideoEncoderSize
from pipeline.mtcae.decoder import DecoderSize, MLPDecoder, ViTDecoder
from pipeline.mtcae.keras_init import init_as_keras
from pipeline.mtcae.structures import STRUCTURES, Structure

NUM_POINTS = 5

# For each structure, its decoders in order, and where each one takes its queries from: another
# decoder or the encoder's features. The heads sit on decoders boxes, points and expression.
WIRING: dict[str, dict[str, str]] = {
    "stl": {},
    "non_fully_shared": {"boxes": "features", "points": "features", "expression": "features"},
    "fully_shared": {
        "shared": "features",
        "boxes": "shared",
        "points": "shared",
        "expression": "shared",
    },
    "cascaded": {"boxes": "features", "points": "boxes", "expression": "points"},
}


class ModelSize(Section):
    """A preset of `models` in params.yaml."""

    encoder: VideoEncoderSize
    decoder: DecoderSize


class Predictions(NamedTuple):
    """What the heads say, unbounded: no sigmoid, no softmax. stl has neither boxes nor points."""

    boxes: Tensor | None
    """(B, T, 4): x, y of the top left corner, width, height, as fractions of the frame."""
    points: Tensor | None
    """(B, T, 5, 2): x, y of left eye, right eye, nose, left, right mouth corner, as fractions."""
    logits: Tensor
    """(B, C)"""


class Head(nn.Module):
    """Pool the tokens and project: (B, N, dim) -> (B, num_outputs).

    Args:
        dim: Width of the tokens.
        num_outputs: Numbers to predict.
        dropout: Dropout probability before the projection.
        norm_before_pool: Norm every token and then take the mean, as the paper writes it, rather
            than the notebook's norm of the mean.
    """

    def __init__(self, dim: int, num_outputs: int, dropout: float, norm_before_pool: bool) -> None:
        super().__init__()
        self.norm_before_pool = norm_before_pool
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.proj = nn.Linear(dim, num_outputs)
        # Small, so that training starts from a constant guess and not from noise around it.
        nn.init.trunc_normal_(self.proj.weight, std=0.02)
        nn.init.zeros_(self.proj.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        # In float32 whatever the precision: bfloat16 rounds a box by up to a pixel of 224.
        kind = tokens.device.type
        # Tensors without data know no autocast.
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
            tokens = tokens.float()
            if self.norm_before_pool:
                pooled = self.norm(tokens).mean(dim=1)
            else:
                pooled = self.norm(tokens.mean(dim=1))
            outputs: Tensor = self.proj(self.dropout(pooled))
        return outputs


class TaskDecoders(nn.Module):
    """All that comes after the encoder: (B, N, D) tokens -> `Predictions`.

    Args:
        structure: One of the six; stl has no decoder.
        size: Of decoders and heads.
        encoder_dim: Width D of the tokens.
        num_frames: T.
        num_classes: Expressions C.

    Raises:
        ValueError: The structure is none of the six.
    """

    def __init__(
        self,
        structure: Structure,
        size: DecoderSize,
        *,
        encoder_dim: int,
        num_frames: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        if structure.arch != "stl" and structure not in STRUCTURES:
            raise ValueError(
                f"no structure with arch={structure.arch!r} and decoder={structure.decoder!r}; use "
                f"{', '.join(known.name for known in STRUCTURES)}"
            )
        self.structure = structure
        self.size = size
        self.num_frames = num_frames

        def build_decoder() -> nn.Module:
            if structure.decoder == "mlp":
                return MLPDecoder(size.dim, size.num_layers, dropout=size.dropout)
            return ViTDecoder(
                size.dim,
                size.num_heads,
                size.head_dim,
                size.num_layers,
                dropout=size.dropout,
                attention=size.attention,
            )

        num_outputs = {
            "boxes": num_frames * 4,
            "points": num_frames * NUM_POINTS * 2,
            "expression": num_classes,
        }
        self.decoders = nn.ModuleDict({name: build_decoder() for name in WIRING[structure.arch]})
        if structure.arch == "stl":
            head_dim, tasks = encoder_dim, ["expression"]
        else:
            head_dim, tasks = size.dim, list(num_outputs)
            # One projection of the tokens is the memory and the first query of every decoder.
            self.project = nn.Sequential(
                nn.Dropout(size.dropout), nn.Linear(encoder_dim, size.dim, bias=False)
            )
            self.project.apply(init_as_keras)
        self.heads = nn.ModuleDict(
            {
                task: Head(head_dim, num_outputs[task], size.head_dropout, size.norm_before_pool)
                for task in tasks
            }
        )

    def forward(self, tokens: Tensor) -> Predictions:
        """Predictions from the encoder's final-norm tokens (B, N, D), of any floating type."""
        # Stored tokens are half as wide; they widen here, on the model's device.
        tokens = tokens.float()
        if self.structure.arch == "stl":
            return Predictions(None, None, self.heads["expression"](tokens))
        features = self.project(tokens)
        outputs = {"features": features}
        for name, source in WIRING[self.structure.arch].items():
            decode = self.decoders[name]
            if self.structure.decoder == "mlp":
                outputs[name] = decode(outputs[source])
            else:
                outputs[name] = decode(outputs[source], features)
        boxes, points, logits = (
            self.heads[task](outputs[task]) for task in ("boxes", "points", "expression")
        )
        return Predictions(
            boxes=boxes.unflatten(1, (self.num_frames, 4)),
            points=points.unflatten(1, (self.num_frames, NUM_POINTS, 2)),
            logits=logits,
        )


class MTCAE(nn.Module):
    """The multi-task model in one of the structures of Table I.

    Args:
        encoder: The video encoder; its frozen or trainable state is left as it is.
        structure: One of the six.
        size: Of decoders and heads.
        num_classes: Expressions C.

    Attributes:
        tasks: Decoders and heads, trained alone where a frozen encoder's tokens are stored.

    Raises:
        ValueError: The structure is none of the six.
    """

    def __init__(
        self,
        encoder: VideoEncoder,
        structure: Structure,
        size: DecoderSize,
        *,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_classes = num_classes
        self.tasks = TaskDecoders(
            structure,
            size,
            encoder_dim=encoder.size.dim,
            num_frames=encoder.num_frames,
            num_classes=num_classes,
        )

    def forward(self, frames: Tensor) -> Predictions:
        """Predictions for RGB frames (B, T, 3, H, W); see `VideoMAEEncoder.forward`."""
        predictions: Predictions = self.tasks(self.encoder(frames))
        return predictions

    def layers_from_output(self, name: str) -> int:
        """How deep a parameter lies, for rates that fall from layer to layer.

        0 above the encoder's blocks, 1 in its last block, depth + 1 in its embedding.

        Args:
            name: Of the parameter, in this model.
        """
        depth = self.encoder.size.depth
        if name.startswith("encoder.blocks."):
            return depth - int(name.split(".")[2])
        return depth + 1 if name.startswith("encoder.patch_embed.") else 0
