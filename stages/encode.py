"""Stage encode: the frozen encoder's tokens of every clip, once for all folds and structures."""

import argparse
import multiprocessing
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache, partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from pipeline.common.clips import StoredClip
from pipeline.common.encoder_weights import checkpoint_in
from pipeline.common.frames import FrameSettings
from pipeline.common.memory import memory_advice
from pipeline.common.params import Preset, StageParams, load_params
from pipeline.common.workers import Folders, map_in_turn, num_cores
from pipeline.feed.augment import AugmentSettings
from pipeline.feed.loader import load_in_order, num_workers_with_room
from pipeline.feed.mix import MixSettings
from pipeline.models.start import (
    EncoderTraining,
    build_encoder,
    require_weights,
    token_origin,
    why_tokens_vary,
)
from pipeline.models.video_encoders import VideoEncoder, VideoEncoderSize
from pipeline.store.folders import LocalShards, Shards, open_shards, read_clips
from pipeline.store.stored_frames import StoredFrames
from pipeline.store.tokens import new_tokens, token_record, write_no_tokens, write_tokens
from pipeline.training.devices import Precision

# A constant and no parameter: the last bits of the tokens may depend on it.
BATCH_SIZE = 16


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml: no decoder, seed or fold makes it run again."""

    frames: FrameSettings
    size: Annotated[VideoEncoderSize, Preset("models", chosen_by="model", key="encoder")]
    training: Annotated[EncoderTraining, Preset("recipes", chosen_by="recipe", key="encoder")]
    augment: Annotated[AugmentSettings, Preset("recipes", chosen_by="recipe", key="augment")]
    mix: Annotated[MixSettings, Preset("recipes", chosen_by="recipe", key="mix")]
    crops: Annotated[int, Preset("recipes", chosen_by="recipe", key="evaluation.crops")]
    precision: Annotated[Precision, Preset("recipes", chosen_by="recipe", key="engine.precision")]


def main(params: Params, shards: Shards, start: Path, out: Path) -> None:
    weights = checkpoint_in(start)
    described = (params.size, params.frames.num_frames, params.training, weights)
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
        encoder = _build_once(*described)
    except ValueError as error:
        raise SystemExit(f"encode: {error}") from error
    clips = read_clips(shards)
    announce(len(clips), record_of(encoder).itemsize, out)
    local = [shards.folder] if isinstance(shards, LocalShards) else []
    encoded = map_in_turn(
        partial(encode_shard, shards=shards, out=out),
        [list(group) for _, group in groupby(clips, attrgetter("shard"))],
        "encoding",
        initializer=_start_worker,
        # With another number of threads a CPU may round differently.
        initargs=(described, params.precision, torch.get_num_threads()),
        folders=Folders(read=[*local, start], written=[out]),
    )
    with (
        new_tokens(out, clips, token_origin(encoder, weights, params.precision)),
        memory_advice("end what else uses it, or choose a smaller model"),
        closing(encoded),
    ):
        for _ in encoded:
            pass


@lru_cache(maxsize=1)
def _build_once(
    size: VideoEncoderSize, num_frames: int, training: EncoderTraining, weights: Path | None
) -> VideoEncoder:
    """Not a second time for the worker that this process itself may be."""
    return build_encoder(size, num_frames, training, weights)


def record_of(encoder: VideoEncoder) -> np.dtype[np.void]:
    return token_record(encoder.num_frames, encoder.num_tokens, encoder.size.dim)


_encoder: VideoEncoder
_encode: Callable[[Tensor], Tensor]


def _start_worker(
    described: tuple[VideoEncoderSize, int, EncoderTraining, Path | None],
    precision: Precision,
    num_threads: int,
) -> None:
    global _encoder, _encode
    torch.set_num_threads(num_threads)
    _encoder = _build_once(*described)
    fabric = Fabric(accelerator="auto", devices=1, precision=precision)
    module = fabric.setup(_encoder)

    @torch.inference_mode()
    def encode(inputs: Tensor) -> Tensor:
        tokens: Tensor = module(inputs.to(fabric.device, non_blocking=True))
        return tokens

    _encode = encode


def encode_shard(clips: list[StoredClip], shards: Shards, out: Path) -> None:
    """Write the tokens of all clips of one shard.

    No batch holds clips of two shards, so that a shard's tokens are the same whoever encodes the
    others. Runs in a worker process, where there are any.
    """
    classes = sorted({clip.label for clip in clips})
    frames = StoredFrames(shards, clips, classes=classes, image_size=_encoder.size.image_size)
    # The workers that Dask's nanny watches may not start processes.
    may_start = not multiprocessing.current_process().daemon
    side = _encoder.size.image_size
    batch_bytes = BATCH_SIZE * _encoder.num_frames * 3 * side**2
    num_workers = num_workers_with_room(min(num_cores(), 8), batch_bytes) if may_start else 0
    batches = load_in_order(frames, batch_size=BATCH_SIZE, num_workers=num_workers)
    bar = tqdm(batches, desc=clips[0].shard, unit="batch", mininterval=1, leave=False)
    write_tokens(out, clips, bar, _encode, record_of(_encoder))


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
    parser.add_argument("weights", type=Path, help="folder of what the encoder starts from")
    parser.add_argument("out", type=Path, help="what is written")
    args = parser.parse_args()
    main(load_params(Params), open_shards(args.shards), args.weights, args.out)
