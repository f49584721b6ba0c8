"""Which family a file's tensors are of, by their names and, where these are the same, their values.

Shape letters: N tokens, D width.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline.models.encoder import sinusoid_positions
from pipeline.models.families import FAMILIES, V_JEPA, V_JEPA_2, Family
from pipeline.models.jepa import sincos_3d_positions

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
    (
        r"norms_block\.|patch_embed_img\.|video_mod_embed",
        "V-JEPA 2.1",
        "it has a norm for each of several depths and embeds its kind of input",
    ),
)

# Number of positions in a published file of V-JEPA, and its slices of a clip and tubelets along a
# side: of 16 frames of 224 or 384 pixels.
_V_JEPA_GRIDS = {8 * 14 * 14: (8, 14), 8 * 24 * 24: (8, 24)}
# V-JEPA 2, of 64 frames of 256 or 384 pixels, may hold positions that it does not use.
_UNUSED_POSITIONS = ((32 * 16 * 16,), (32 * 24 * 24,))


def find_family(path: Path, tensors: Mapping[str, Tensor]) -> Family:
    """The family that a file's tensors belong to.

    Raises:
        ValueError: No family is known to have them, or one that no encoder here can take, or they
            are not all of one family.
    """
    for pattern, name, reason in REFUSED:
        if any(re.search(pattern, key) for key in tensors):
            raise ValueError(f"{path}: {name} is not a plain ViT and cannot be used: {reason}")
    if family := _v_jepa_family(path, tensors):
        return family
    for family in FAMILIES:
        if any(family.has(key, tensor) for key, tensor in tensors.items()):
            return family
    raise ValueError(
        f"{path}: no known encoder among its {len(tensors)} tensors {sorted(tensors)[:4]}; "
        f"known are {'; '.join(family.name for family in (*FAMILIES, V_JEPA, V_JEPA_2))}"
    )


def is_table(stored: Tensor, expected: Tensor) -> bool:
    """Whether stored positions are those of a rule, but for rounding."""
    if stored.shape != expected.shape or not stored.is_floating_point():
        return False
    # The official ones are rounded in float32, and a file may hold half precision.
    tolerance = 2 * torch.finfo(stored.dtype).eps + 1e-5
    return torch.allclose(stored.float(), expected, rtol=0, atol=tolerance)


def _v_jepa_family(path: Path, tensors: Mapping[str, Tensor]) -> Family | None:
    """V-JEPA or V-JEPA 2, if the tensors are one's; None where VideoMAE's positions are right.

    Their keys are those of a fine-tuned VideoMAE that has lost its classifier, at the latest when
    somebody has removed their prefix. But VideoMAE has no bias on the keys, and no positions but
    its own.

    Raises:
        ValueError: The tensors do not tell which positions they need.
    """
    prefixes = [
        key.removesuffix("patch_embed.proj.weight")
        for key, tensor in tensors.items()
        if V_JEPA.has(key, tensor)
    ]
    if not prefixes:
        return None
    prefix = prefixes[0]
    stored = tensors.get(f"{prefix}pos_embed")
    biases = [
        tensor
        for key, tensor in tensors.items()
        if key.startswith(f"{prefix}blocks.") and key.endswith(".attn.qkv.bias")
    ]
    if biases and "encoder.mean" in tensors:
        family = V_JEPA_2 if stored is None else V_JEPA
        name = f"{family.name} model saved by this project"
        return family._replace(name=name, normalisation=None)
    if biases and stored is not None and _are_v_jepas(stored):
        return V_JEPA
    biased_keys = any(bool(bias.chunk(3)[1].any()) for bias in biases)
    classifier = any(key.startswith(("fc_norm.", "head.")) for key in tensors)
    unused = stored is None or stored.shape[1:-1] in _UNUSED_POSITIONS
    if (biased_keys or "backbone." in prefix) and unused and not classifier:
        return V_JEPA_2
    if stored is not None and not _are_sinusoids(stored):
        raise ValueError(
            f"{path}: its positions {tuple(stored.shape)} are neither VideoMAE's sinusoids nor "
            "those with which V-JEPA (16 frames of 224 or 384 px) is published: they were trained, "
            "or are another model's, and its tokens would mean nothing with others"
        )
    if biased_keys:
        raise ValueError(
            f"{path}: named like a fine-tuned VideoMAE, but it has a bias on the keys, which "
            "VideoMAE has not; and it has a classifier or positions, which V-JEPA 2 has not"
        )
    return None


def _are_v_jepas(stored: Tensor) -> bool:
    if stored.ndim != 3 or stored.shape[1] not in _V_JEPA_GRIDS:
        return False
    slices, side = _V_JEPA_GRIDS[stored.shape[1]]
    return is_table(stored, sincos_3d_positions(slices, side, stored.shape[2]))


def _are_sinusoids(stored: Tensor) -> bool:
    return stored.ndim == 3 and is_table(stored, sinusoid_positions(*stored.shape[1:]))
