"""Stage sample: every clip's frames, sampled evenly over the video, as one JPEG strip per clip."""

import argparse
import hashlib
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import imageio_ffmpeg

from pipeline.common.clips import Clip, read_manifest, write_manifest
from pipeline.common.files import atomic_path
from pipeline.common.frames import FrameSettings
from pipeline.common.params import Preset, StageParams, load_params
from pipeline.common.sources import find_video, local_copy
from pipeline.common.workers import map_in_threads
from pipeline.store.strips import encode_strip
from pipeline.video.decode import UnusableVideo, read_frames


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    dataset: str
    source: Annotated[Path | None, Preset("datasets", chosen_by="dataset", key="source")]
    frames: FrameSettings


def main(params: Params, raw: Path, manifest: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    clips = read_manifest(manifest)
    sample = partial(
        sample_clip,
        folders=[params.source or raw, local_copy(params.dataset)],
        out=out,
        frames=params.frames,
        binary=imageio_ffmpeg.get_ffmpeg_exe(),
    )
    usable = [clip for clip in clips if not clip.reason]
    results = {clip.clip: clip for clip in map_in_threads(sample, usable, "sampling")}
    clips = [results.get(clip.clip, clip) for clip in clips]
    write_manifest(out / "clips.parquet", clips)
    refused = Counter(clip.reason for clip in clips if clip.reason)
    print(
        f"sample: {len(clips) - refused.total()} strips of {params.frames.num_frames} frames of "
        f"{params.frames.size} x {params.frames.size}, {refused.total()} clips refused "
        f"{dict(refused) or ''}"
    )


def sample_clip(
    clip: Clip, folders: list[Path], out: Path, frames: FrameSettings, binary: str
) -> Clip:
    """Write the clip's strip; the clip comes back refused where its video cannot be used."""
    try:
        video = read_frames(find_video(clip.path, folders), frames, binary)
    except UnusableVideo as error:
        return clip.refuse(error.refusal)
    strip = encode_strip(video.frames, frames.jpeg_quality)
    with atomic_path(out / f"{clip.clip}.jpg") as temporary:
        temporary.write_bytes(strip)
    content = hashlib.sha256(strip).hexdigest()
    return replace(clip, num_frames=video.num_frames, seconds=video.seconds, content=content)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raw", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    main(load_params(Params), args.raw, args.manifest, args.out)
