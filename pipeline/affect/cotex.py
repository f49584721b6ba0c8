"""Masked CoTEX: two ViTs that see different patches of a picture and are to agree.

Shape letters: B pictures, S side in pixels, N patches, V views, D encoder width, C classes.

Source: arXiv 2207.11679, section 4; its mask rate is not published.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from pipeline.affect.emma import depth_in_encoder
from pipeline.common.params import Section
from pipeline.models.image_encoder import ImageEncoder


class CoTEXSettings(Section):
    """How many views, and what makes them differ and agree.

    Attributes:
        views: ViTs with weights of their own; 1 is a plain classifier.
        mask_rate: Share of the patches that a view does not see while it is trained, in [0, 1).
        js_weight: Of the Jensen-Shannon divergence of two views, summed over the classes. In the
            authors' code it is 100 / C.
    """

    views: Literal[1, 2]
    mask_rate: Annotated[float, Field(ge=0, lt=1)]
    js_weight: NonNegativeFloat


class View(nn.Module):
    """A ViT and a linear layer on its class token: pictures (B, 3, S, S) -> logits (B, C).

    While it is trained it sees a random subset of each picture's patches, drawn from torch's
    generator after the positions were added; a test sees all of them.

    Raises:
        ValueError: Masking leaves no patch.
    """

    def __init__(self, encoder: ImageEncoder, num_classes: int, mask_rate: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.size.dim, num_classes)
        self.num_visible = int(encoder.num_tokens * (1 - mask_rate))
        if not self.num_visible:
            raise ValueError(f"a mask rate of {mask_rate} hides all {encoder.num_tokens} patches")

    def forward(self, pictures: Tensor) -> Tensor:
        visible = None
        num_patches = self.encoder.num_tokens
        if self.training and self.num_visible < num_patches:
            noise = torch.rand(len(pictures), num_patches, device=pictures.device)
            visible = noise.argsort(dim=1)[:, : self.num_visible]
        logits: Tensor = self.head(self.encoder(pictures, visible)[:, 0])
        return logits


class MaskedCoTEX(nn.Module):
    """Views of a picture: (B, 3, S, S) -> logits (V, B, C), whose sum over the views is the answer.

    Args:
        encoders: V of one size, each with weights of its own.
        num_classes: C.
        mask_rate: See `CoTEXSettings`.
    """

    def __init__(
        self, encoders: Sequence[ImageEncoder], *, num_classes: int, mask_rate: float
    ) -> None:
        super().__init__()
        self.depth = encoders[0].size.depth
        self.views = nn.ModuleList(View(encoder, num_classes, mask_rate) for encoder in encoders)

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.stack([view(pictures) for view in self.views]).float()

    def layers_from_output(self, name: str) -> int:
        """How deep a parameter lies, for rates that fall from layer to layer."""
        return depth_in_encoder(name, self.depth)
