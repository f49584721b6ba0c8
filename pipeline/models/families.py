"""The layouts in which others publish encoder weights, and how each maps onto the encoders here.

Sources: the model code of MCG-NJU/VideoMAE, huggingface/transformers, ControlNet/MARLIN,
facebookresearch/mae, sunlicai/MAE-DFER and sunlicai/SVFAP on GitHub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from pipeline.models.vit import IMAGENET_MEAN, IMAGENET_STD


class Family(NamedTuple):
    """A published layout of encoder weights."""

    name: str
    known_by: str
    """Pattern of a key that every file of the family has."""
    known_ndim: int
    """Number of dimensions of that key's tensor."""
    of_pictures: bool
    """Whether it is an ImageEncoder's: with a class token, and positions in the file."""
    not_encoder: str
    """Pattern of the keys that belong to decoders and heads, or hold positions of a video."""
    renames: tuple[tuple[str, str], ...]
    """Pattern and replacement, applied in order, from the family's keys to the encoder's here."""
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None
    """Mean and deviation that the weights expect; None where the file itself holds them."""


IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)

FAMILIES = (
    Family(
        name="image encoder saved by this project",
        known_by=r"encoder\.patch_embed\.proj\.weight",
        known_ndim=4,
        of_pictures=True,
        not_encoder=r"$",
        renames=((r"^encoder\.", ""),),
        normalisation=None,
    ),
    Family(
        name="model saved by this project",
        known_by=r"encoder\.mean",
        known_ndim=3,
        of_pictures=False,
        not_encoder=r"tasks\.",
        renames=((r"^encoder\.", ""),),
        normalisation=None,
    ),
    Family(
        name="VideoMAE, pre-trained",
        known_by=r"encoder\.patch_embed\.proj\.weight",
        known_ndim=5,
        of_pictures=False,
        not_encoder=r"decoder\.|encoder_to_decoder\.|mask_token|encoder\.pos_embed",
        renames=((r"^encoder\.", ""),),
        normalisation=IMAGENET,
    ),
    Family(
        name="VideoMAE, fine-tuned",
        known_by=r"patch_embed\.proj\.weight",
        known_ndim=5,
        of_pictures=False,
        not_encoder=r"head\.|pos_embed",
        renames=((r"^fc_norm\.", "norm."),),
        normalisation=IMAGENET,
    ),
    Family(
        name="VideoMAE, Hugging Face",
        known_by=r"(videomae\.)?embeddings\.patch_embeddings\.projection\.weight",
        known_ndim=5,
        of_pictures=False,
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
        of_pictures=False,
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
        of_pictures=True,
        not_encoder=r"decoder_|mask_token|head\.",
        renames=((r"^fc_norm\.", "norm."),),
        normalisation=IMAGENET,
    ),
)

# Video encoders that people have and no plain ViT can take: a pattern in their keys, name, reason.
REFUSED = (
    (
        r"first_attn|second_attn|third_attn|lg_region_tokens",
        "MAE-DFER (LGI-Former)",
        "its blocks attend within regions and exchange messages through region tokens",
    ),
    (
        r"temporal_downsamples|spatial_downsamples|cross_attn",
        "SVFAP (TPSBT)",
        "it is a temporal pyramid with bottleneck and cross-attention blocks",
    ),
)


def find_family(path: Path, tensors: Mapping[str, Tensor]) -> Family:
    """The family that a file's tensors belong to, by their names.

    Raises:
        ValueError: No family is known to have them, or one that a plain ViT cannot take.
    """
    for pattern, name, reason in REFUSED:
        if any(re.search(pattern, key) for key in tensors):
            raise ValueError(f"{path}: {name} is not a plain ViT and cannot be used: {reason}")
    for family in FAMILIES:
        for key, tensor in tensors.items():
            if re.fullmatch(family.known_by, key) and tensor.ndim == family.known_ndim:
                return family
    raise ValueError(
        f"{path}: no known encoder among its {len(tensors)} tensors {sorted(tensors)[:4]}; "
        f"known are {'; '.join(family.name for family in FAMILIES)}"
    )
