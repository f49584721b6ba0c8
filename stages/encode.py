"""Stage encode: the frozen encoder's tokens of every clip, once for all folds and structures."""

import argparse
import shutil
from pathlib import Path
from typing import Annotated, Literal

import torch
from lightning.fabric import Fabric
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from pipeline.common.clips import read_manifest
from pipeline.common.memory import memory_advice
from pipeline.common.params import Preset, Section, StageParams, load_params
from pipeline.common.workers import num_cores
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.models.start import FROM_SCRATCH, NO_WEIGHTS, start_encoder
from pipeline.store.shards import CLIPS
from pipeline.store.tokens import (
    clip_record,
    origin_of,
    why_tokens_vary,
    write_no_tokens,
    write_tokens,
)

# A constant and no parameter: the last bits of the tokens may depend on it.
BATCH_SIZE = 16


class EncoderParams(Section):
    """The checkpoint of the encoder; docs/checkpoints.md."""

    weights: Path


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml: no decoder, seed or fold makes it run again."""

    encoder: EncoderParams
    frames: dict[str, int | str]
    image_size: Annotated[PositiveInt, Preset("models", chosen_by="model", key="image_size")]
    patch_size: Annotated[PositiveInt, Preset("models", chosen_by="model", key="patch_size")]
    tubelet_size: Annotated[PositiveInt, Preset("models", chosen_by="model", key="tubelet_size")]
    encoder_dim: Annotated[PositiveInt, Preset("models", chosen_by="model", key="encoder_dim")]
    encoder_depth: Annotated[PositiveInt, Preset("models", chosen_by="model", key="encoder_depth")]
    encoder_heads: Annotated[PositiveInt, Preset("models", chosen_by="model", key="encoder_heads")]
    trained: Annotated[
        Literal["full", "frozen"], Preset("recipes", chosen_by="recipe", key="encoder")
    ]
    flip_probability: Annotated[
        NonNegativeFloat, Preset("recipes", chosen_by="recipe", key="flip_probability")
    ]
    rand_augment_ops: Annotated[
        NonNegativeInt, Preset("recipes", chosen_by="recipe", key="rand_augment_ops")
    ]
    erase_probability: Annotated[
        NonNegativeFloat, Preset("recipes", chosen_by="recipe", key="erase_probability")
    ]
    mixup_alpha: Annotated[
        NonNegativeFloat, Preset("recipes", chosen_by="recipe", key="mixup_alpha")
    ]
    cutmix_alpha: Annotated[
        NonNegativeFloat, Preset("recipes", chosen_by="recipe", key="cutmix_alpha")
    ]
    precision: Annotated[
        Literal["32-true", "bf16-mixed"], Preset("recipes", chosen_by="recipe", key="precision")
    ]


def main(params: Params, shards: Path, out: Path) -> None:
    if params.trained == "frozen" and params.encoder.weights.name == FROM_SCRATCH:
        raise SystemExit(f"encode: {NO_WEIGHTS}")
    reason = why_tokens_vary(
        params.trained,
        flip_probability=params.flip_probability,
        rand_augment_ops=params.rand_augment_ops,
        erase_probability=params.erase_probability,
        mixup_alpha=params.mixup_alpha,
        cutmix_alpha=params.cutmix_alpha,
    )
    if reason:
        write_no_tokens(out, reason)
        print(f"encode: no tokens to store: {reason}")
        return
    encoder = build_encoder(params)
    fabric = Fabric(accelerator="auto", devices=1, precision=params.precision)
    origin = origin_of(
        encoder.config, encoder.mean, encoder.std, params.encoder.weights, params.precision
    )
    record = clip_record(encoder.num_frames, encoder.num_tokens, encoder.dim)
    announce(len(read_manifest(shards / CLIPS)), record.itemsize, out)
    with memory_advice("end what else uses it, or choose a smaller model"):
        module = fabric.setup(encoder)

        @torch.inference_mode()
        def encode(frames: Tensor) -> Tensor:
            tokens: Tensor = module(fabric.to_device(frames) / 255)
            return tokens

        write_tokens(
            out,
            shards,
            encode,
            origin=origin,
            record=record,
            image_size=params.image_size,
            batch_size=BATCH_SIZE,
            num_workers=min(num_cores(), 8),
        )


def build_encoder(params: Params) -> VideoMAEEncoder:
    """The frozen encoder with its published weights."""
    encoder = VideoMAEEncoder(
        dim=params.encoder_dim,
        depth=params.encoder_depth,
        num_heads=params.encoder_heads,
        image_size=params.image_size,
        num_frames=int(params.frames["num_frames"]),
        patch_size=params.patch_size,
        tubelet_size=params.tubelet_size,
    )
    start_encoder(encoder, params.encoder.weights, frozen=True)
    return encoder


def announce(num_clips: int, clip_bytes: int, out: Path) -> None:
    """Say how large the tokens will be.

    Raises:
        SystemExit: The disk has no room for them.
    """
    out.mkdir(parents=True, exist_ok=True)
    size, free = num_clips * clip_bytes / 1e9, shutil.disk_usage(out).free / 1e9
    print(
        f"encode: {num_clips} clips of {clip_bytes / 1e6:.3g} MB are {size:.3g} GB in {out}, and "
        f"as much again where DVC's cache copies them; {free:.0f} GB are free"
    )
    if size > free:
        raise SystemExit(
            f"{out} needs {size:.1f} GB and its disk has {free:.1f} GB: make room, or set "
            "flip_probability of the recipe above 0, which trains without stored tokens"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    main(load_params(Params), args.shards, args.out)
