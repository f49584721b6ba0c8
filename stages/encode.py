"""Stage encode: the frozen encoder's tokens of every clip, once for all folds and structures."""

import argparse
import shutil
from pathlib import Path
from typing import Annotated

import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from pipeline.common.encoder_weights import checkpoint_in
from pipeline.common.frames import FrameSettings
from pipeline.common.memory import memory_advice
from pipeline.common.params import Preset, StageParams, load_params
from pipeline.common.workers import num_cores
from pipeline.feed.augment import AugmentSettings
from pipeline.feed.loader import load_in_order
from pipeline.feed.mix import MixSettings
from pipeline.models.encoder import EncoderSize
from pipeline.models.start import (
    EncoderTraining,
    build_encoder,
    require_weights,
    token_origin,
    why_tokens_vary,
)
from pipeline.store.folders import Shards, open_shards, read_clips
from pipeline.store.stored_frames import StoredFrames
from pipeline.store.tokens import token_record, write_no_tokens, write_tokens
from pipeline.training.devices import Precision

# A constant and no parameter: the last bits of the tokens may depend on it.
BATCH_SIZE = 16


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml: no decoder, seed or fold makes it run again."""

    frames: FrameSettings
    size: Annotated[EncoderSize, Preset("models", chosen_by="model", key="encoder")]
    training: Annotated[EncoderTraining, Preset("recipes", chosen_by="recipe", key="encoder")]
    augment: Annotated[AugmentSettings, Preset("recipes", chosen_by="recipe", key="augment")]
    mix: Annotated[MixSettings, Preset("recipes", chosen_by="recipe", key="mix")]
    crops: Annotated[int, Preset("recipes", chosen_by="recipe", key="evaluation.crops")]
    precision: Annotated[Precision, Preset("recipes", chosen_by="recipe", key="engine.precision")]


def main(params: Params, shards: Shards, start: Path, out: Path) -> None:
    weights = checkpoint_in(start)
    try:
        require_weights(params.training, weights)
        reason = why_tokens_vary(
            params.training,
            params.augment.changes + params.mix.changes,
            num_views=params.frames.segments * params.crops,
        )
        if reason:
            write_no_tokens(out, reason)
            print(f"encode: no tokens to store: {reason}")
            return
        encoder = build_encoder(params.size, params.frames.num_frames, params.training, weights)
    except ValueError as error:
        raise SystemExit(f"encode: {error}") from error
    fabric = Fabric(accelerator="auto", devices=1, precision=params.precision)
    origin = token_origin(encoder, weights, params.precision)
    record = token_record(encoder.num_frames, encoder.num_tokens, encoder.size.dim)
    clips = read_clips(shards)
    announce(len(clips), record.itemsize, out)
    classes = sorted({clip.label for clip in clips})
    frames = StoredFrames(shards, clips, classes=classes, image_size=encoder.size.image_size)
    batches = load_in_order(frames, batch_size=BATCH_SIZE, num_workers=min(num_cores(), 8))
    with memory_advice("end what else uses it, or choose a smaller model"):
        module = fabric.setup(encoder)

        @torch.inference_mode()
        def encode(inputs: Tensor) -> Tensor:
            tokens: Tensor = module(inputs.to(fabric.device, non_blocking=True))
            return tokens

        bar = tqdm(batches, desc="encoding", unit="batch", mininterval=1)
        write_tokens(out, clips, bar, encode, origin=origin, record=record)


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
            "augment.flip_probability of the recipe above 0, which trains without stored tokens"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", help="a folder, or its address")
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    main(load_params(Params), open_shards(args.shards), args.weights, args.out)
