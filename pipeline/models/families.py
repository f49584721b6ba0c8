"""The layouts in which others publish encoder weights, and how each maps onto the encoders here.

Sources: the model code of MCG-NJU/VideoMAE, huggingface/transformers, ControlNet/MARLIN,
facebookresearch/mae, facebookresearch/jepa, facebookresearch/vjepa2, sunlicai/MAE-DFER and
sunlicai/SVFAP on GitHub.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from torch import Tensor

from pipeline.models.vit import IMAGENET_MEAN, IMAGENET_STD

Positions = Literal["sinusoid", "sincos_2d", "sincos_3d", "rotary"]


class Family(NamedTuple):
    """A published layout of encoder weights."""

    name: str
    known_by: str
    """Pattern of a key that every file of the family has."""
    known_ndim: int
    """Number of dimensions of that key's tensor."""
    positions: Positions
    """Of its tokens; `sincos_2d` is an ImageEncoder's, which has a class token too."""
    not_encoder: str
    """Pattern of the keys that belong to decoders and heads, or hold positions of a video."""
    renames: tuple[tuple[str, str], ...]
    """Pattern and replacement, applied in order, from the family's keys to the encoder's here."""
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None
    """Mean and deviation that the weights expect; None where the file itself holds them."""

    def has(self, name: str, tensor: Tensor) -> bool:
        """Whether this is the tensor that the family is known by."""
        return bool(re.fullmatch(self.known_by, name)) and tensor.ndim == self.known_ndim


IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)

FAMILIES = (
    Family(
        name="image encoder saved by this project",
        known_by=r"encoder\.patch_embed\.proj\.weight",
        known_ndim=4,
        positions="sincos_2d",
        not_encoder=r"$",
        renames=((r"^encoder\.", ""),),
        normalisation=None,
    ),
    Family(
        name="model saved by this project",
        known_by=r"encoder\.mean",
        known_ndim=3,
        positions="sinusoid",
        not_encoder=r"tasks\.",
        renames=((r"^encoder\.", ""),),
        normalisation=None,
    ),
    Family(
        name="VideoMAE, pre-trained",
        known_by=r"encoder\.patch_embed\.proj\.weight",
        known_ndim=5,
        positions="sinusoid",
        not_encoder=r"decoder\.|encoder_to_decoder\.|mask_token|encoder\.pos_embed",
        renames=((r"^encoder\.", ""),),
        normalisation=IMAGENET,
    ),
    Family(
        name="VideoMAE, fine-tuned",
        known_by=r"patch_embed\.proj\.weight",
        known_ndim=5,
        positions="sinusoid",
        not_encoder=r"head\.|pos_embed",
        renames=((r"^fc_norm\.", "norm."),),
        normalisation=IMAGENET,
    ),
    Family(
        name="VideoMAE, Hugging Face",
        known_by=r"(videomae\.)?embeddings\.patch_embeddings\.projection\.weight",
        known_ndim=5,
        positions="sinusoid",
        not_encoder=r"decoder\.|encoder_to_decoder\.|mask_token|classifier\.",
        renames=(
            (r"^videomae\.", ""),
            (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"^(layernorm|fc_norm)\.", "norm."),
            (r"^encoder\.layer\.", "blocks."),
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"\.attention\.attention\.(query|value)\.bias$", r".attention.attention.\1_bias"),
            (r"\.attention\.attention\.q(uery)?_bias$", ".attn.q_bias"),
            (r"\.attention\.attention\.v(alue)?_bias$", ".attn.v_bias"),
            (r"\.attention\.attention\.(query|key|value)\.weight$", r".attn.\1.weight"),
            (r"\.attention\.output\.dense\.", ".attn.proj."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
        ),
        normalisation=IMAGENET,
    ),
    Family(
        name="MARLIN",
        known_by=r"(marlin\.)?encoder\.patch_embedding\.projection\.weight",
        known_ndim=5,
        positions="sinusoid",
        not_encoder=r"(marlin\.)?(decoder\.|enc_dec_proj\.|discriminator|encoder\.pos_embedding\.)",
        renames=(
            (r"^(marlin\.)?encoder\.", ""),
            (r"^patch_embedding\.projection\.", "patch_embed.proj."),
            (r"\.mlp\.layers\.0\.linear\.", ".mlp.fc1."),
            (r"\.mlp\.layers\.1\.linear\.", ".mlp.fc2."),
        ),
        normalisation=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ),
    Family(
        name="image MAE",
        known_by=r"patch_embed\.proj\.weight",
        known_ndim=4,
        positions="sincos_2d",
        not_encoder=r"decoder_|mask_token|head\.",
        renames=((r"^fc_norm\.", "norm."),),
        normalisation=IMAGENET,
    ),
    Family(
        name="V-JEPA 2, Hugging Face",
        known_by=r"(vjepa2\.)?encoder\.embeddings\.patch_embeddings\.proj\.weight",
        known_ndim=5,
        positions="rotary",
        not_encoder=r"(vjepa2\.)?predictor\.|pooler\.|classifier\.",
        renames=(
            (r"^(vjepa2\.)?encoder\.", ""),
            (r"^embeddings\.patch_embeddings\.", "patch_embed."),
            (r"^layernorm\.", "norm."),
            (r"^layer\.", "blocks."),
            (r"\.attention\.", ".attn."),
        ),
        normalisation=IMAGENET,
    ),
)

# Their keys may be those of VideoMAE: `find_family` tells them apart.
V_JEPA = Family(
    name="V-JEPA",
    known_by=r"(module\.|backbone\.|encoder\.)*patch_embed\.proj\.weight",
    known_ndim=5,
    positions="sincos_3d",
    not_encoder=r"predictor\.|tasks\.",
    renames=((r"^(module\.|backbone\.|encoder\.)+", ""),),
    normalisation=IMAGENET,
)
V_JEPA_2 = V_JEPA._replace(
    name="V-JEPA 2", positions="rotary", not_encoder=r"(module\.|backbone\.)*pos_embed|tasks\."
)
