"""Classifiers of videos that others fine-tuned: a plain VideoMAE ViT, a norm and a linear head.

Shape letters: B clips, T frames, I side of a frame in pixels, N tokens, D width, C classes.

Sources: the model code of MCG-NJU/VideoMAE and huggingface/transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.models.checkpoints import load_encoder
from pipeline.models.encoder import EncoderSize, VideoMAEEncoder
from pipeline.models.recognition import find_family
from pipeline.models.tensor_files import fill, read_tensors

Pooling = Literal["norm of the mean", "mean of the normed", "first token"]
POOLINGS: tuple[Pooling, ...] = ("norm of the mean", "mean of the normed", "first token")
# Of all published ViTs of this kind.
_HEAD_WIDTH = 64


class VideoClassifier(nn.Module):
    """An encoder whose final norm may come after the mean over its tokens, and a linear head.

    Args:
        encoder: With its final norm.
        head: D -> C.
        pooling: How tokens become one vector: the official code norms their mean, or norms the
            first token alone.
    """

    def __init__(self, encoder: VideoMAEEncoder, head: nn.Linear, pooling: Pooling) -> None:
        super().__init__()
        self.norm = encoder.norm
        self.encoder = encoder
        self.encoder.norm = nn.Identity()  # type: ignore[assignment]
        self.head = head
        self.pooling = pooling

    def forward(self, frames: Tensor) -> Tensor:
        """Logits (B, C) of RGB frames (B, T, 3, I, I); see `VideoMAEEncoder.forward`."""
        tokens = self.encoder(frames)
        if self.pooling == "norm of the mean":
            pooled = self.norm(tokens.mean(dim=1))
        elif self.pooling == "mean of the normed":
            pooled = self.norm(tokens).mean(dim=1)
        else:
            pooled = self.norm(tokens[:, 0])
        logits: Tensor = self.head(pooled)
        return logits


def load_classifier(
    path: Path, *, image_size: int, num_frames: int, head: str | None = None
) -> VideoClassifier:
    """A fine-tuned checkpoint in a layout that `load_encoder` knows, in evaluation mode.

    Args:
        path: A safetensors or torch file.
        image_size: I; no file tells it, and positions are computed for any.
        num_frames: T; likewise.
        head: The name of the head where there are several, such as `head`.

    Raises:
        ValueError: As `load_encoder`; or there is no head, or several and none is named.
    """
    tensors = read_tensors(path)
    family = find_family(path, tensors)
    (patches,) = [
        tensor
        for name, tensor in tensors.items()
        if re.fullmatch(family.known_by, name) and tensor.ndim == family.known_ndim
    ][:1]
    if patches.ndim != 5:
        raise ValueError(f"{path}: {family.name} is no classifier of videos")
    dim, _, tubelet_size, patch_size, _ = patches.shape
    blocks = [re.search(r"\b(?:blocks|layer)\.(\d+)\.", name) for name in tensors]
    size = EncoderSize(
        image_size=image_size,
        patch_size=patch_size,
        tubelet_size=tubelet_size,
        dim=dim,
        depth=len({match[1] for match in blocks if match}),
        num_heads=max(1, dim // _HEAD_WIDTH),
        stem="linear",
    )
    encoder = VideoMAEEncoder(size, num_frames=num_frames)
    load_encoder(encoder, path)
    name = _choose_head(path, tensors, dim, head)
    weight = tensors[f"{name}.weight"]
    linear = nn.Linear(dim, len(weight))
    bias = tensors.get(f"{name}.bias", torch.zeros(len(weight)))
    fill(linear, {"weight": weight, "bias": bias}, f"{path}: {name}")
    after_mean = any(re.search(r"\bfc_norm\.", key) for key in tensors)
    return VideoClassifier(encoder, linear, POOLINGS[0 if after_mean else 2]).eval()


def _choose_head(path: Path, tensors: Mapping[str, Tensor], dim: int, name: str | None) -> str:
    """The name of the linear layer that ends the model."""
    pattern = r"(?!.*\b(?:blocks|layer|decoder)\.)(.*(?:head|classifier)[\w.]*)\.weight"
    matches = {
        match[1]: tensor
        for key, tensor in tensors.items()
        if (match := re.fullmatch(pattern, key)) and tensor.ndim == 2 and tensor.shape[1] == dim
    }
    heads = {key: len(tensor) for key, tensor in matches.items()}
    if name is not None and name in heads:
        return name
    if name is None and len(heads) == 1:
        return next(iter(heads))
    found = ", ".join(f"{key} ({count} classes)" for key, count in heads.items()) or "none"
    if name is None and not heads:
        raise ValueError(f"{path} has no head over {dim} features: it was not fine-tuned")
    raise ValueError(f"{path}: which head? There are {found}; name one with --head")
