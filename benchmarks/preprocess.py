"""Seconds per clip of the stages sample and label, against the obvious way to do the same.

    python -m benchmarks.preprocess [--videos FOLDER]

The pipeline is run as DVC runs it: both stages are commands, on all cores. The obvious way reads
every frame with OpenCV, takes the same sixteen, crops and scales them, and gives MTCNN one frame at
a time, in this process: with the defaults (faces from 20 pixels, as many threads as torch likes)
and with the pipeline's smallest face and one thread, which suffers less where others work, too.

Starting interpreters and workers costs some seconds whatever the number of clips. The stages are
therefore run on one clip per core, too, which is the start; what more clips take beyond it gives
the seconds per clip. Both are printed. The obvious way's start (imports, weights) is not counted.

Without a folder, this is done for three kinds of films of talking faces, of 24 each, that are
rendered first (benchmarks/talking_faces.py).

Shape letters: T sampled frames, S side of a square frame in pixels.
"""

import argparse
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import yaml
from facenet_pytorch import MTCNN
from tqdm import tqdm

from benchmarks.talking_faces import KINDS, NUM_CLIPS, render
from pipeline.common.clips import Clip, write_manifest
from pipeline.common.frames import FaceTrack, Frames
from pipeline.common.workers import num_cores
from pipeline.store.folders import LocalShards, read_clips, read_contents
from pipeline.video.sampling import sample_indices
from pipeline.video.tracks import Detections, main_face

ROOT = Path(__file__).parents[1]
DEFAULT_MIN_FACE_SIZE = 20  # MTCNN's, in pixels
NOTHING = Detections(*(np.zeros(shape, np.float32) for shape in ((0, 4), (0, 5, 2), (0,))))


class StageRun(NamedTuple):
    """A stage's wall-clock seconds, and the peak of its processes' memory together."""

    seconds: float
    peak_bytes: int


class NaiveRun(NamedTuple):
    """Seconds per clip of reading and of finding faces, and the main face of each clip."""

    seconds: list[float]
    tracks: list[FaceTrack]


def run_stages(videos: list[Path], folder: Path) -> tuple[StageRun, StageRun]:
    """Sample and label the videos with the project's parameters, in an empty folder."""
    folder.mkdir()
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["dataset"] = "sample"  # which says nothing of where the videos are
    params["frames"]["crop"] = "square"  # as the naive way has it
    params["quality"]["max_refused"] = 1.0
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    clips = [Clip(f"{i:06}", str(path.resolve()), "all", "") for i, path in enumerate(videos)]
    write_manifest(folder / "raw.parquet", clips)
    return (
        run_stage(folder, "stages.sample", "/", "raw.parquet", "frames"),
        run_stage(folder, "stages.label", "frames", "shards", "quality.json"),
    )


def run_stage(folder: Path, module: str, *arguments: str) -> StageRun:
    """Run a stage in a folder that holds a params.yaml."""
    started, peak = time.perf_counter(), 0
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=sys.stderr) as process:
        while process.poll() is None:
            peak = max(peak, memory_bytes(process.pid))
            time.sleep(0.5)  # Looking takes time of a core, too.
    if process.returncode:
        raise SystemExit(f"{module} failed; its messages are above")
    return StageRun(time.perf_counter() - started, peak)


def memory_bytes(pid: int) -> int:
    """Memory of a process and its descendants; of a page that n share, each has an n-th."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        tasks = [task / "children" for task in Path(f"/proc/{pid}/task").iterdir()]
        children = [int(child) for task in tasks for child in task.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0
    kilobytes = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return 1024 * kilobytes + sum(memory_bytes(child) for child in children)


def stage_tracks(shards: Path, num_clips: int, num_frames: int) -> list[FaceTrack]:
    """The faces in the shards that `run_stages` wrote; a refused clip has none."""
    tracks = [
        main_face([NOTHING] * num_frames, [0] * num_frames, max_jump=0, max_gap=0)
    ] * num_clips
    folder = LocalShards(shards)
    clips = read_clips(folder)
    for clip, content in zip(clips, read_contents(folder, clips), strict=True):
        tracks[int(clip.clip)] = content.track
    return tracks


def naive_frames(path: Path, num_frames: int, size: int) -> Frames:
    """Frames (T, S, S, 3) of a video, all of whose frames are read and kept."""
    video, frames = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        frames.append(read[1])
    sampled = []
    for i in sample_indices(len(frames), num_frames):
        height, width = frames[i].shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = frames[i][top : top + side, left : left + side]
        scaled = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
        sampled.append(cv2.cvtColor(scaled, cv2.COLOR_BGR2RGB))
    return np.stack(sampled).astype(np.uint8, copy=False)


def run_naive(
    videos: list[Path], params: dict[str, Any], *, min_face_size: int, num_threads: int
) -> NaiveRun:
    """Read the videos and find the main face of each, frame by frame."""
    torch.set_num_threads(num_threads)
    detector = MTCNN(keep_all=True, min_face_size=min_face_size)
    size, num_frames = params["frames"]["size"], params["frames"]["num_frames"]
    max_jump, max_gap = params["faces"]["max_jump"], params["faces"]["max_gap"]
    detector.detect(np.zeros((size, size, 3), np.uint8), landmarks=True)  # warms torch up
    seconds, tracks = [], []
    for path in tqdm(videos, desc=f"naive, {num_threads} threads", unit="clip"):
        started = time.perf_counter()
        frames = naive_frames(path, num_frames, size)
        read = time.perf_counter()
        found = []
        for frame in frames:
            boxes, scores, points = detector.detect(frame, landmarks=True)
            faces = NOTHING if boxes is None else (boxes, points, scores)
            found.append(Detections(*(np.asarray(array, np.float32) for array in faces)))
        tracks.append(main_face(found, [0] * num_frames, max_jump=max_jump, max_gap=max_gap))
        seconds.append((read - started, time.perf_counter() - read))
    return NaiveRun(np.mean(seconds, axis=0).tolist(), tracks)


def overlaps(one: FaceTrack, other: FaceTrack) -> npt.NDArray[np.float64]:
    """Intersection over union of the boxes, for the frames in which both found the face."""
    a, b = (track.boxes[one.mask & other.mask].astype(np.float64) for track in (one, other))
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    common = np.prod(np.maximum(sides, 0), axis=1)
    areas = sum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b))
    return np.asarray(common / (areas - common))


def compare(videos: list[Path], folder: Path) -> None:
    """Print how long both ways take for the videos; the folder is a new one."""
    folder.mkdir()
    load = os.getloadavg()[0]
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    # A handful of clips is repeated: the start of the stages must be the smaller part.
    n, cores = len(few := videos * math.ceil(NUM_CLIPS / len(videos))), num_cores()
    starts = run_stages(few[:cores], folder / "start")
    runs, runs_4n = run_stages(few, folder / "few"), run_stages(few * 4, folder / "many")
    threads, smallest = cores, params["faces"]["min_face_size"]
    default = run_naive(videos, params, min_face_size=DEFAULT_MIN_FACE_SIZE, num_threads=threads)
    same = run_naive(videos, params, min_face_size=smallest, num_threads=1)

    pairs = zip(starts, runs_4n, strict=True)
    rates = [(run.seconds - start.seconds) / (4 * n - cores) for start, run in pairs]
    ways = {
        f"naive, faces from {DEFAULT_MIN_FACE_SIZE} px, {threads} threads": default.seconds,
        f"naive, faces from {smallest} px, 1 thread": same.seconds,
        f"pipeline on {cores} cores": rates,
        f"the same with its start, over {4 * n} clips": [run.seconds / (4 * n) for run in runs_4n],
    }
    print("| way | sample (s per clip) | label (s per clip) | together | times the pipeline |")
    print("|---|---:|---:|---:|---:|")
    for name, (sample, label) in ways.items():
        both, ratio = sample + label, (sample + label) / sum(rates)
        print(f"| {name} | {sample:.3f} | {label:.3f} | {both:.3f} | {ratio:.2f} |")

    ours = stage_tracks(folder / "few" / "shards", n, params["frames"]["num_frames"])
    iou = np.concatenate([overlaps(*pair) for pair in zip(ours, default.tracks, strict=False)])
    mask = np.stack([track.mask for track in ours[: len(videos)]])
    other = np.stack([track.mask for track in default.tracks])
    print("\n| measure | value |\n|---|---:|")
    print(f"| mean IoU of the boxes, pipeline and naive default | {iou.mean():.3f} |")
    print(f"| frames in which both found the face | {(mask & other).mean():.1%} |")
    alone = f"{(mask & ~other).mean():.1%} and {(~mask & other).mean():.1%}"
    print(f"| only the pipeline, and only the naive default | {alone} |")
    for i, stage in enumerate(("sample", "label")):
        peaks = " and ".join(f"{run[i].peak_bytes / 2**20:.0f}" for run in (runs, runs_4n))
        print(f"| stage {stage} on {cores} clips, its start | {starts[i].seconds:.1f} s |")
        print(f"| peak memory of stage {stage} for {n} and {4 * n} clips | {peaks} MiB |")
    print(f"| load of the machine before, mean of a minute | {load:.1f} |")


def main(videos: Path | None, folder: Path) -> None:
    if videos:
        compare(sorted(path for path in videos.rglob("*") if path.is_file()), folder / "compared")
        return
    for i, (name, kind) in enumerate(KINDS.items()):
        print(f"\n## {name}, {kind.bits} Mbit/s\n", flush=True)
        compare(render(kind, folder / f"films{i}"), folder / f"compared{i}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, help="a folder of clips; default: rendered ones")
    args = parser.parse_args()
    with TemporaryDirectory() as temporary:
        main(args.videos, Path(temporary))
