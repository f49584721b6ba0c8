"""Seconds that a saved model takes for a clip on the CPU: torch, ONNX, ONNX with int8 matrices.

    python -m benchmarks.onnx_speed runs/fold1 [--batches 1 8] [--threads 2] [--seconds 5]

The three take turns on the same frames, so that a busy machine slows all of them; of each the
median is told. Needs requirements-export.txt.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from benchmarks.attention import machine
from pipeline.export.graph import random_frames, write_int8, write_onnx
from pipeline.serving.onnx_model import FRAMES
from pipeline.serving.torch_model import TorchModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a folder of runs/")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="clips at once")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="of measuring, for each batch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    saved = TorchModel(args.model / "model.safetensors", "cpu")
    sizes = {"num_stored": saved.num_stored, "image_size": saved.image_size}
    with tempfile.TemporaryDirectory() as temporary:
        paths = {name: Path(temporary) / f"{name}.onnx" for name in ("float32", "int8")}
        write_onnx(paths["float32"], saved.module, **sizes)
        write_int8(paths["int8"], paths["float32"])
        sessions = {f"ONNX {name}": _open(path, args.threads) for name, path in paths.items()}
        megabytes = {name: path.stat().st_size / 1e6 for name, path in paths.items()}
    print(f"{machine()}; {args.threads} threads; MB of ONNX: {megabytes}")
    print("| clips at once | model | ms per clip | times torch |")
    print("|---:|---|---:|---:|")
    for count in args.batches:
        frames = random_frames(count, **sizes, seed=0)
        medians = _medians(saved, sessions, frames, args.seconds)
        for name, seconds in medians.items():
            ratio = medians["torch"] / seconds
            print(f"| {count} | {name} | {1000 * seconds / count:.2f} | {ratio:.2f} |")


def _open(path: Path, num_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _medians(
    saved: TorchModel,
    sessions: dict[str, onnxruntime.InferenceSession],
    frames: np.ndarray,
    seconds: float,
) -> dict[str, float]:
    """Seconds for a batch, of each way."""
    ways: dict[str, Callable[[], object]] = {"torch": partial(saved.ask, frames)}
    for name, session in sessions.items():
        ways[name] = partial(session.run, None, {FRAMES: frames})
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()  # The first time allocates.
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


if __name__ == "__main__":
    main()
