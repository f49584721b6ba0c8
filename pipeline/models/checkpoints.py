"""The encoder checkpoints that people have, published or saved by this project.

Public checkpoints of a plain video or image ViT are renamed to the layout of the encoders here;
what is not such a ViT is refused. docs/checkpoints.md says where to get each of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.models.families import Family, Positions
from pipeline.models.image_encoder import ImageEncoder, sincos_positions
from pipeline.models.jepa import JepaEncoder
from pipeline.models.recognition import find_family, is_table
from pipeline.models.tensor_files import fault_of_weights, misfit, read_tensors
from pipeline.models.video_encoders import VideoEncoder

# What an encoder's own names begin with.
_ENCODER_PARTS = ("blocks.", "patch_embed.", "norm.", "pos_embed", "cls_token", "mean", "std")


class LoadReport(NamedTuple):
    """What was done with a file. Nothing is ever missing: that is refused."""

    family: str
    matched: list[str]
    """Weights of the encoder that the file filled: all of them."""
    dropped: list[str]
    """Keys of the file that the family is known to hold beside its encoder."""
    unexpected: list[str]
    """Keys of the file that the family is not known to hold."""


class _Content(NamedTuple):
    """A file's weights by the names that they have here, and what is left aside of it."""

    family: Family
    weights: dict[str, Tensor]
    dropped: list[str]


def load_encoder(encoder: VideoEncoder, path: Path) -> LoadReport:
    """Fill `encoder` with the published weights in `path`, and take over their normalisation.

    The layout is recognised by its content, whatever the file is called. Positions are never read:
    each kind of encoder computes its own for its grid, so that weights of 224-pixel clips serve
    160-pixel ones, and takes no weights that need others. The number of heads leaves no trace in a
    file and cannot be checked.

    Raises:
        ValueError: The file is no safetensors or torch file, holds objects other than tensors and
            plain containers, is of no known family or of one that is not a plain ViT or needs
            other positions, or has another size than `encoder` or not all of its weights.
    """
    content = _read_encoder(path)
    family, weights, dropped = content
    source = f"{path}: {family.name}"
    _fuse_attention(weights, encoder.size.depth)
    if isinstance(encoder, JepaEncoder):
        _require_positions(source, family, encoder.size.positions)
        if encoder.size.positions == "sincos_3d" and "pos_embed" in weights:
            weights["pos_embed"] = encoder.pos_embed
        return _fill(encoder, source, content)
    _require_positions(source, family, "sinusoid", "sincos_2d")
    _split_biases(weights, encoder.size.depth)
    if family.positions == "sincos_2d":
        dropped += [
            name for name in ("cls_token", "pos_embed") if weights.pop(name, None) is not None
        ]
    patches = weights.get("patch_embed.proj.weight")
    if patches is not None and patches.ndim == 4:
        # Each frame of a tubelet gets an equal share, so that a still video embeds like its image.
        length = encoder.size.tubelet_size
        weights["patch_embed.proj.weight"] = patches[:, :, None].repeat(1, 1, length, 1, 1) / length
    return _fill(encoder, source, content)


def _require_positions(source: str, family: Family, *usable: Positions) -> None:
    """Refuse weights whose tokens mean nothing with the positions of the encoder."""
    if family.positions not in usable:
        preset = {"sincos_3d": "vjepa_large", "rotary": "vjepa2_large"}.get(family.positions)
        fitting = f"models.{preset}" if preset else "a model without `positions`"
        raise ValueError(
            f"{source} needs the positions {family.positions}, and the model has {usable[0]}: "
            f"take a model that has them, such as {fitting}"
        )


def load_image_encoder(encoder: ImageEncoder, path: Path) -> LoadReport:
    """Fill `encoder` with the published weights in `path`, and take over their normalisation.

    Positions that are the fixed ones are computed for the encoder's own grid; those that were
    trained are read, for the grid that they were trained for. See `load_encoder`.

    Raises:
        ValueError: As `load_encoder`; or the file is a video encoder's, or its positions were
            trained for another grid.
    """
    content = _read_encoder(path)
    source = f"{path}: {content.family.name}"
    if content.family.positions != "sincos_2d":
        raise ValueError(f"{source} is an encoder of videos, where one of pictures is needed")
    stored = content.weights.get("pos_embed")
    if stored is not None and stored.ndim == 3:
        if _are_fixed(stored):
            content.weights["pos_embed"] = encoder.pos_embed.detach()
        elif stored.shape[1] != 1 + encoder.num_tokens:
            raise ValueError(
                f"{source}: its positions were trained for {stored.shape[1] - 1} patches, the "
                f"model has {encoder.num_tokens}"
            )
    return _fill(encoder, source, content)


def _read_encoder(path: Path) -> _Content:
    """What a file holds of an encoder, renamed, with the normalisation of its family."""
    tensors = read_tensors(path)
    family = find_family(path, tensors)
    weights: dict[str, Tensor] = {}
    dropped = []
    for key, tensor in tensors.items():
        if re.match(family.not_encoder, key):
            dropped.append(key)
            continue
        name = key
        for pattern, replacement in family.renames:
            name = re.sub(pattern, replacement, name)
        if name.startswith(_ENCODER_PARTS) and (fault := fault_of_weights(tensor)):
            raise ValueError(f"{path}: {family.name}: {key} {fault}")
        weights[name] = tensor
    if family.normalisation is not None:
        for name, values in zip(("mean", "std"), family.normalisation, strict=True):
            weights[name] = torch.tensor(values).view(3, 1, 1)
    return _Content(family, weights, dropped)


def _fill(encoder: VideoEncoder | ImageEncoder, source: str, content: _Content) -> LoadReport:
    """Load what fits, and say what was done."""
    wanted = encoder.state_dict().keys()
    unexpected = sorted(content.weights.keys() - wanted)
    _check_fit(source, encoder, content.weights, unexpected)
    encoder.load_state_dict({name: content.weights[name] for name in wanted})
    matched = sorted(name for name, _ in encoder.named_parameters())
    return LoadReport(content.family.name, matched, sorted(content.dropped), unexpected)


def _are_fixed(positions: Tensor) -> bool:
    """Whether they are those of sines and cosines, for whatever grid."""
    side, dim = math.isqrt(max(positions.shape[1] - 1, 0)), positions.shape[-1]
    return dim % 4 == 0 and is_table(positions, sincos_positions(side, dim))


def _fuse_attention(weights: dict[str, Tensor], depth: int) -> None:
    """Fuse separate weights and biases of q, k and v, in place.

    What has not the shape of such weights is left, to be refused as unexpected.
    """
    for i, (kind, ndim) in product(range(depth), (("weight", 2), ("bias", 1))):
        attn = f"blocks.{i}.attn"
        names = [f"{attn}.{part}.{kind}" for part in ("query", "key", "value")]
        parts = [weights[name] for name in names if name in weights]
        if len(parts) == 3 and len({part.shape for part in parts}) == 1 and parts[0].ndim == ndim:
            weights[f"{attn}.qkv.{kind}"] = torch.cat([weights.pop(name) for name in names])


def _split_biases(weights: dict[str, Tensor], depth: int) -> None:
    """Split a fused bias into those of q and v, in place; one of an odd shape is left."""
    for i in range(depth):
        attn = f"blocks.{i}.attn"
        bias = weights.get(f"{attn}.qkv.bias")
        if bias is not None and bias.ndim == 1 and len(bias) and len(bias) % 3 == 0:
            # A bias on k moves all scores of a query alike, which softmax does not see.
            q_bias, _, v_bias = weights.pop(f"{attn}.qkv.bias").chunk(3)
            weights |= {f"{attn}.q_bias": q_bias, f"{attn}.v_bias": v_bias}


def _check_fit(
    source: str,
    encoder: VideoEncoder | ImageEncoder,
    weights: Mapping[str, Tensor],
    unexpected: list[str],
) -> None:
    """Refuse weights that are not all of the encoder's, or are an encoder's of another kind."""
    norm = weights.get("norm.weight")
    dim = 0 if norm is None else norm.numel()
    depth = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
    size = encoder.size
    if (dim, depth) != (size.dim, size.depth):
        raise ValueError(
            f"{source}: an encoder {dim} wide and {depth} blocks deep, where the model's is "
            f"{size.dim} wide and {size.depth} deep"
        )
    wanted = encoder.state_dict()
    missing = sorted(wanted.keys() - weights.keys())
    if missing:
        num_weights = len(dict(encoder.named_parameters()))
        raise ValueError(
            f"{source}: {len(missing)} of the encoder's {num_weights} weights are missing, such as "
            f"{missing[:4]}; unexpected: {unexpected[:4]}"
        )
    foreign = [key for key in unexpected if key.startswith("blocks.")]
    if foreign:
        raise ValueError(f"{source}: its blocks are not a plain ViT's, they hold {foreign[:4]}")
    for name, tensor in wanted.items():
        if fault := misfit(weights[name], tensor):
            raise ValueError(f"{source}: {name} {fault}")
