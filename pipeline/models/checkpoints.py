"""The encoder checkpoints that people have, published or saved by this project.

Public checkpoints of a plain video or image ViT are renamed to the layout of the encoders here;
what is not such a ViT is refused. docs/checkpoints.md says where to get each of them.
"""

from __future__ import annotations

import argparse
import math
import pickle
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.models.families import Family, Positions
from pipeline.models.image_encoder import ImageEncoder, sincos_positions
from pipeline.models.jepa import JepaEncoder
from pipeline.models.recognition import find_family, is_table
from pipeline.models.video_encoders import VideoEncoder

# What torch.save begins a file with: a zip archive, or before torch 1.6 a pickled magic number.
TORCH_FILE_HEADS = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9")


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
    side, dim = math.isqrt(positions.shape[1] - 1), positions.shape[-1]
    return dim % 4 == 0 and is_table(positions, sincos_positions(side, dim))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors in a safetensors file or a torch file, out of the dict that holds them."""
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: damaged safetensors file: {error}") from error
    if not head.startswith(TORCH_FILE_HEADS):
        raise ValueError(
            f"{path}: neither a safetensors nor a torch file, it begins with {head!r}; a download "
            "page or a Git LFS pointer in place of the weights looks like this"
        )
    try:
        # Official training scripts keep their arguments in the file; a Namespace only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: damaged, or holds Python objects beside its tensors, which are never loaded "
            f"because they can run code: {reason}"
        ) from error
    for container in ("target_encoder", "model", "module", "state_dict", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(container), dict):
            content = content[container]
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not a dict of named tensors")
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def _fuse_attention(weights: dict[str, Tensor], depth: int) -> None:
    """Fuse separate weights and biases of q, k and v, in place."""
    for i, kind in product(range(depth), ("weight", "bias")):
        attn = f"blocks.{i}.attn"
        parts = [f"{attn}.{part}.{kind}" for part in ("query", "key", "value")]
        if all(part in weights for part in parts):
            weights[f"{attn}.qkv.{kind}"] = torch.cat([weights.pop(part) for part in parts])


def _split_biases(weights: dict[str, Tensor], depth: int) -> None:
    """Split a fused bias into those of q and v, in place."""
    for i in range(depth):
        attn = f"blocks.{i}.attn"
        if f"{attn}.qkv.bias" in weights:
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
    dim = len(weights.get("norm.weight", ()))
    depth = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
    size = encoder.size
    if (dim, depth) != (size.dim, size.depth):
        raise ValueError(
            f"{source}: an encoder {dim} wide and {depth} blocks deep, where the model's is "
            f"{size.dim} wide and {size.depth} deep"
        )
    wanted = dict(encoder.named_parameters())
    missing = sorted(encoder.state_dict().keys() - weights.keys())
    if missing:
        raise ValueError(
            f"{source}: {len(missing)} of the encoder's {len(wanted)} weights are missing, such as "
            f"{missing[:4]}; unexpected: {unexpected[:4]}"
        )
    foreign = [key for key in unexpected if key.startswith("blocks.")]
    if foreign:
        raise ValueError(f"{source}: its blocks are not a plain ViT's, they hold {foreign[:4]}")
    for name, tensor in wanted.items():
        if weights[name].shape != tensor.shape:
            raise ValueError(
                f"{source}: {name} is {tuple(weights[name].shape)}, the model needs "
                f"{tuple(tensor.shape)}"
            )
