"""How a clip's sixteen frames are stored: size, time and what it does to the faces found.

    python -m benchmarks.frame_storage [--videos FOLDER]

Times are CPU milliseconds per clip in one thread, the best of three; `at 56 px` is what the tiny
model reads. Drift compares MTCNN on the stored frames with MTCNN on the frames before storing. The
pipeline labels the stored frames, the very pixels that training sees, so drift is no error of its
labels: it says how much storing changes what would have been found.

Without a folder, films of benchmarks/talking_faces.py are rendered first.

Shape letters: T sampled frames, S side of a square frame in pixels.
"""

import argparse
import io
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image
from tqdm import tqdm

from benchmarks.preprocess import ROOT, overlaps
from benchmarks.talking_faces import KINDS, render
from pipeline.common.frames import FaceTrack, Frames, FrameSettings
from pipeline.common.workers import map_in_threads
from pipeline.store.strips import decode_strip, encode_strip
from pipeline.video.decode import read_pictures
from pipeline.video.faces import FaceDetector
from pipeline.video.tracks import main_face

SMALL = 56  # the tiny model's frames, in pixels


class Storage(NamedTuple):
    """A way to store frames (T, S, S, 3); `decode` gives them back at a size that divides S."""

    encode: Callable[[Frames], bytes]
    decode: Callable[[bytes, int], Frames]


def encode_image(frames: Frames, image_format: str) -> bytes:
    """The frames from top to bottom as one picture without loss; Pillow's default effort."""
    stream = io.BytesIO()
    strip = Image.fromarray(frames.reshape(-1, *frames.shape[2:]))
    # For PNG, which is never lossy, the option means nothing.
    strip.save(stream, format=image_format, lossless=True)
    return stream.getvalue()


def decode_image(data: bytes, size: int) -> Frames:
    with Image.open(io.BytesIO(data)) as image:
        return reduced(image.convert("RGB"), size)


def encode_raw(frames: Frames) -> bytes:
    stream = io.BytesIO()
    np.save(stream, frames)
    return stream.getvalue()


def decode_raw(data: bytes, size: int) -> Frames:
    frames = np.load(io.BytesIO(data))
    return reduced(Image.fromarray(frames.reshape(-1, *frames.shape[2:])), size)


def reduced(strip: Image.Image, size: int) -> Frames:
    """Frames (T, size, size, 3): the mean of whole blocks, so that frames do not mix."""
    if strip.width != size:
        strip = strip.reduce(strip.width // size)
    return np.array(strip).reshape(-1, size, size, 3)


STORAGES = {
    "JPEG 4:4:4, quality 95": Storage(lambda frames: encode_strip(frames, 95), decode_strip),
    "JPEG 4:4:4, quality 90": Storage(lambda frames: encode_strip(frames, 90), decode_strip),
    "WebP, lossless": Storage(lambda frames: encode_image(frames, "WEBP"), decode_image),
    "PNG": Storage(lambda frames: encode_image(frames, "PNG"), decode_image),
    "npy, raw": Storage(encode_raw, decode_raw),
}


def cpu_ms(function: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return min(times) * 1000


def main(videos: list[Path]) -> None:
    torch.set_num_threads(1)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    # Faces are looked for in the stored frames alone.
    settings = FrameSettings.model_validate(params["frames"] | {"crop": "square"})
    faces, size = params["faces"], settings.size
    detector = FaceDetector(faces["min_face_size"])

    def read(path: Path) -> Frames:
        frames: Frames = read_pictures(path, settings).pictures
        return frames

    def track(frames: Frames) -> FaceTrack:
        found = detector.detect(frames)
        return main_face(
            found, [0] * len(found), max_jump=faces["max_jump"], max_gap=faces["max_gap"]
        )

    clips = list(map_in_threads(read, videos, "sampling"))
    originals = [track(frames) for frames in tqdm(clips, desc="original faces", unit="clip")]
    print(
        f"| storage | kB per clip | encode (ms) | decode at {size} px (ms) | at {SMALL} px (ms) "
        "| mean IoU | landmark shift (px) | frames found or lost |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, storage in STORAGES.items():
        costs, ious, shifts, changed = [], [], [], []
        pairs = zip(clips, originals, strict=True)
        for frames, original in tqdm(pairs, desc=name, total=len(clips), unit="clip"):
            data = storage.encode(frames)
            encode = cpu_ms(partial(storage.encode, frames))
            decode = [cpu_ms(partial(storage.decode, data, s)) for s in (size, SMALL)]
            costs.append((len(data) / 1000, encode, *decode))
            stored = track(storage.decode(data, size))
            both = stored.mask & original.mask
            ious.append(overlaps(stored, original))
            shifts.append(np.linalg.norm(stored.points[both] - original.points[both], axis=-1))
            changed.append((stored.mask != original.mask).mean())
        kilobytes, *times = np.mean(costs, axis=0)
        print(
            f"| {name} | {kilobytes:.0f} | {times[0]:.1f} | {times[1]:.1f} | {times[2]:.1f} "
            f"| {np.concatenate(ious).mean():.4f} | {np.concatenate(shifts).mean():.2f} "
            f"| {np.mean(changed):.2%} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, help="a folder of clips; default: rendered ones")
    args = parser.parse_args()
    with TemporaryDirectory() as temporary:
        if not args.videos:
            render(KINDS["720p"], Path(temporary) / "videos")
        source = args.videos or Path(temporary) / "videos"
        main(sorted(path for path in source.rglob("*") if path.is_file()))
