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

from pipeline.models.encoder import VideoMAEEncoder
from pipeline.mtcae.decoder import MLPDecoder, ViTDecoder, init_as_keras
from pipeline.mtcae.structures import STRUCTURES, structure_name

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
        known = torch.amp.is_autocast_available(kind)  # not for tensors without data
        with torch.autocast(kind, enabled=False) if known else nullcontext():
            tokens = tokens.float()
            if self.norm_before_pool:
                pooled = self.norm(tokens).mean(dim=1)
            else:
                pooled = self.norm(tokens.mean(dim=1))
            outputs: Tensor = self.proj(self.dropout(pooled))
        return outputs


class MTCAE(nn.Module):
    """The multi-task model in one of the structures of Table I.

    Args:
        encoder: The video encoder; its frozen or trainable state is left as it is.
        arch: stl, non_fully_shared, fully_shared or cascaded (the proposed model).
        decoder: vit or mlp; cascaded takes only vit, stl has no decoder and ignores it.
        num_classes: Expressions C.
        decoder_dim: Decoder width d.
        decoder_heads: Attention heads of a ViT decoder.
        decoder_head_dim: Width of one head; the authors take `decoder_dim`.
        decoder_layers: Layers of every decoder.
        dropout: Dropout probability on the encoder's tokens and in the decoders.
        head_dropout: Dropout probability in the heads.
        norm_before_pool: The paper's order of norm and pooling in the heads; see Head.

    Raises:
        ValueError: `arch` and `decoder` name none of the six structures.
    """

    def __init__(
        self,
        encoder: VideoMAEEncoder,
        *,
        arch: str,
        decoder: str,
        num_classes: int,
        decoder_dim: int = 512,
        decoder_heads: int = 3,
        decoder_head_dim: int = 512,
        decoder_layers: int = 5,
        dropout: float = 0.3,
        head_dropout: float = 0.1,
        norm_before_pool: bool = False,
    ) -> None:
        super().__init__()
        if arch != "stl" and (arch, decoder) not in STRUCTURES:
            allowed = ", ".join(structure_name(*structure) for structure in STRUCTURES)
            raise ValueError(
                f"no structure with arch={arch!r} and decoder={decoder!r}; use {allowed}"
            )
        self.arch = arch
        self.decoder = decoder
        self.num_frames = encoder.num_frames
        self.encoder = encoder
        # The arguments that, with the encoder, rebuild this model; written beside saved weights.
        self.config = {
            "arch": arch,
            "decoder": decoder,
            "num_classes": num_classes,
            "decoder_dim": decoder_dim,
            "decoder_heads": decoder_heads,
            "decoder_head_dim": decoder_head_dim,
            "decoder_layers": decoder_layers,
            "dropout": dropout,
            "head_dropout": head_dropout,
            "norm_before_pool": norm_before_pool,
        }

        def build_decoder() -> nn.Module:
            if decoder == "mlp":
                return MLPDecoder(decoder_dim, decoder_layers, dropout=dropout)
            return ViTDecoder(
                decoder_dim, decoder_heads, decoder_head_dim, decoder_layers, dropout=dropout
            )

        num_outputs = {
            "boxes": self.num_frames * 4,
            "points": self.num_frames * NUM_POINTS * 2,
            "expression": num_classes,
        }
        self.decoders = nn.ModuleDict({name: build_decoder() for name in WIRING[arch]})
        if arch == "stl":
            head_dim, tasks = encoder.dim, ["expression"]
        else:
            head_dim, tasks = decoder_dim, list(num_outputs)
            # One projection of the tokens is the memory and the first query of every decoder.
            self.project = nn.Sequential(
                nn.Dropout(dropout), nn.Linear(encoder.dim, decoder_dim, bias=False)
            )
            self.project.apply(init_as_keras)
        self.heads = nn.ModuleDict(
            {
                task: Head(head_dim, num_outputs[task], head_dropout, norm_before_pool)
                for task in tasks
            }
        )

    def forward(self, frames_or_tokens: Tensor, encoded: bool = False) -> Predictions:
        """Predictions for frames (B, T, 3, H, W), RGB in [0, 1].

        With `encoded` the input is what the encoder said of them before, its final-norm tokens
        (B, N, D) of any floating type, and the encoder is skipped.
        """
        if encoded:
            # Stored tokens are half as wide; they widen here, on the model's device.
            return self.decode(frames_or_tokens.float())
        return self.decode(self.encoder(frames_or_tokens))

    def decode(self, tokens: Tensor) -> Predictions:
        """Predictions from the encoder's `tokens` (B, N, D)."""
        if self.arch == "stl":
            return Predictions(None, None, self.heads["expression"](tokens))
        features = self.project(tokens)
        outputs = {"features": features}
        for name, source in WIRING[self.arch].items():
            decode = self.decoders[name]
            if self.decoder == "mlp":
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
