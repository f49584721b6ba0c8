"""Stage sample: every clip's frames, sampled evenly over the video, as one JPEG strip per clip.

With `frames.crop: face` they show the face that the clip is about; who that is and where is found
here, in the pictures of the video.
"""

from pipeline.common.workers import Folders, import_for_workers, map_in_processes

if __name__ == "__main__":
    # Beside the imports that follow.
    import_for_workers("pipeline.common.params", "pipeline.store.strips", "pipeline.video.reader")

import argparse
import hashlib
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch

from pipeline.common.clips import Clip, Refusal, read_manifest, write_manifest
from pipeline.common.files import atomic_path, write_json
from pipeline.common.frames import FaceSettings, FrameSettings
from pipeline.common.params import Preset, StageParams, load_params
from pipeline.common.sources import find_video, local_copy
from pipeline.store.contents import FRAMES
from pipeline.store.strips import encode_strip
from pipeline.video.container import UnusableVideo
from pipeline.video.reader import FrameReader


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    dataset: str
    source: Annotated[Path | None, Preset("datasets", chosen_by="dataset", key="source")]
    frames: FrameSettings
    faces: FaceSettings


def main(params: Params, raw: Path, manifest: Path, out: Path) -> None:
    if params.source and not params.source.is_dir():
        raise SystemExit(
            f"sample: datasets.{params.dataset}.source is {params.source}, and there is no such "
            "folder any more; its videos were there when stage download ran"
        )
    out.mkdir(parents=True, exist_ok=True)
    clips = read_manifest(manifest)
    folders = [params.source or raw, local_copy(params.dataset)]
    sampled = map_in_processes(
        partial(sample_clip, folders=folders, out=out),
        [clip for clip in clips if not clip.reason],
        "sampling",
        initializer=_start_worker,
        initargs=(params.frames, params.faces),
        on_crash=_crashed,
        folders=Folders(read=folders, written=[out]),
    )
    results = {clip.clip: clip for clip in sampled}
    clips = [results.get(clip.clip, clip) for clip in clips]
    write_json(out / FRAMES, params.model_dump(include={"frames", "faces"}))
    write_manifest(out / "clips.parquet", clips)
    refused = Counter(clip.reason for clip in clips if clip.reason)
    print(
        f"sample: {len(clips) - refused.total()} strips of {params.frames.num_stored} frames of "
        f"{params.frames.size} x {params.frames.size}, {refused.total()} clips refused "
        f"{dict(refused) or ''}"
    )


_reader: FrameReader


def _start_worker(frames: FrameSettings, faces: FaceSettings) -> None:
    global _reader
    torch.set_num_threads(1)
    _reader = FrameReader(frames, faces)


def sample_clip(clip: Clip, folders: list[Path], out: Path) -> Clip:
    """Write the clip's strip; the clip comes back refused where its video cannot be used.

    Runs in a worker process.
    """
    try:
        video = _reader.read(find_video(clip.path, folders))
    except UnusableVideo as error:
        return clip.refuse(error.refusal)
    strip = encode_strip(video.pictures, _reader.frames.jpeg_quality)
    with atomic_path(out / f"{clip.clip}.jpg") as temporary:
        temporary.write_bytes(strip)
    content = hashlib.sha256(strip).hexdigest()
    return replace(
        clip,
        num_frames=video.num_frames,
        seconds=video.seconds,
        holes=video.notes.holes,
        stream=video.notes.stream,
        content=content,
        times=video.times,
        shots=video.shots,
    )


def _crashed(clip: Clip) -> Clip:
    message = (
        f"{clip.path}: the decoder crashed or ran out of memory; convert the video with ffmpeg"
    )
    return clip.refuse(Refusal("crashed", message))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raw", type=Path, help="folder of the videos")
    parser.add_argument("manifest", type=Path, help="the manifest of the clips")
    parser.add_argument("out", type=Path, help="what is written")
    args = parser.parse_args()
    main(load_params(Params), args.raw, args.manifest, args.out)
