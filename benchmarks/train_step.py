"""One training step of the six structures: time, share of the ceiling, memory.

    python -m benchmarks.train_step [--model narrow|tiny|small|base|large] [--batch 8 16]
        [--precision 32-true|bf16-mixed] [--structures stl "cascaded vit"] [--repeats 10]

A step is forward, loss, backward and AdamW on random clips that are on the device already; ms is
the median. Models are those of params.yaml and `narrow`, of width 192 and depth 4, which reads
frames of 224 pixels. The FLOPs of a step are those of its matrix products, counted on tensors
without data, so that what a kernel computes twice counts once. The ceiling is the fastest of twenty
large square matrix products of the same precision on the same device.

The encoder is trained (full), frozen, or left out (tokens): its stored tokens are what is read, as
the recipe `paper` trains.

The first structure and Hugging Face's VideoMAEForVideoClassification of the same width, depth,
heads and tubelets take turns, step by step, so that a drift of the machine hits both; `times as
fast` is the median of Hugging Face's time over that of the row. Memory on a GPU is the most that a
row's tensors take at once; on a CPU it is the peak resident set of the process, libraries and
whatever the allocator keeps of earlier rows included.

Shape letters: B clips, T frames, S side of a square frame in pixels.
"""

import argparse
import gc
import statistics
from contextlib import suppress
from importlib.util import find_spec
from itertools import product
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.attention import DEVICE, machine, peak_bytes, reset_peak, seconds
from benchmarks.models import MODELS, NUM_CLASSES, NUM_FRAMES, random_model
from pipeline.mtcae.loss import LossSettings, count, multitask_loss
from pipeline.mtcae.model import NUM_POINTS, Predictions
from pipeline.mtcae.structures import STRUCTURES
from pipeline.store.batch import Batch
from pipeline.store.stored_frames import face_targets
from pipeline.training.optim import OptimizerSettings, adamw

NAMES = {structure.name: structure for structure in STRUCTURES}
LOSS = LossSettings(boxes=0.5, points=0.5, expression=1.5, scale="frame", label_smoothing=0.0)
ADAMW = OptimizerSettings(learning_rate=1e-4, weight_decay=0.05, layer_decay=1.0)
HUGGING_FACE = "Hugging Face"
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
NUM_WARMUPS = 3
Mode = Literal["full", "frozen", "tokens"]
MODES: tuple[Mode, ...] = get_args(Mode)


class HuggingFace(nn.Module):
    """The encoder of transformers with mean pooling and a linear layer, which answers as stl."""

    def __init__(self, model: str, frozen: bool) -> None:
        super().__init__()
        # Not a requirement of the pipeline: without it only these rows are missing.
        from transformers import VideoMAEConfig, VideoMAEForVideoClassification

        size = MODELS[model].encoder
        config = VideoMAEConfig(
            hidden_size=size.dim,
            num_hidden_layers=size.depth,
            num_attention_heads=size.num_heads,
            intermediate_size=4 * size.dim,
            **size.model_dump(include={"image_size", "patch_size", "tubelet_size"}),
        )
        config.num_labels = NUM_CLASSES
        self.model = VideoMAEForVideoClassification(config)
        if frozen:
            self.model.videomae.requires_grad_(False)

    def forward(self, frames: Tensor) -> Predictions:
        return Predictions(None, None, self.model(pixel_values=frames).logits)


def random_batch(model: str, mode: Mode, num_clips: int) -> Batch:
    """Clips (B, T, 3, S, S) or tokens (B, N, D), on torch's default device."""
    size = MODELS[model].encoder
    if mode == "tokens":
        patches = (size.image_size // size.patch_size) ** 2
        num_tokens = NUM_FRAMES // size.tubelet_size * patches
        inputs = torch.rand(num_clips, num_tokens, size.dim, dtype=torch.float16)
    else:
        inputs = torch.rand(num_clips, NUM_FRAMES, 3, size.image_size, size.image_size)
    boxes = torch.rand(num_clips, NUM_FRAMES, 4)
    points = torch.rand(num_clips, NUM_FRAMES, NUM_POINTS, 2)
    mask = torch.ones(num_clips, NUM_FRAMES, dtype=torch.bool)
    labels = torch.randint(NUM_CLASSES, (num_clips,))
    names = [f"clip{i}" for i in range(num_clips)]
    return Batch(names, names, inputs, face_targets(boxes, points, mask, labels))


def build(name: str, model: str, mode: Mode) -> nn.Module:
    """A structure, or Hugging Face's model, on torch's default device."""
    if name == HUGGING_FACE:
        return HuggingFace(model, mode == "frozen")
    built = random_model(model, NAMES[name], frozen=mode != "full")
    return built.tasks if mode == "tokens" else built


def loss_of(model: nn.Module, batch: Batch, precision: str) -> Tensor:
    with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16-mixed"):
        predictions = model(batch.inputs)
    return multitask_loss(predictions, batch.targets, LOSS, count(batch.targets)).total


def step_flops(name: str, size: str, mode: Mode, num_clips: int) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        loss = loss_of(build(name, size, mode), random_batch(size, mode, num_clips), "32-true")
        torch.autograd.backward(loss)
    return int(counter.get_total_flops())


def matmul_ceiling(dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product."""
    side = 8192 if DEVICE == "cuda" else 1024
    a, b = (torch.randn(side, side, device=DEVICE, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min(seconds(lambda: a @ b) for _ in range(20))


class Trial:
    """A model, its optimiser and its clips, warmed up, which took `peak` bytes."""

    def __init__(self, name: str, size: str, mode: Mode, num_clips: int, precision: str) -> None:
        taken = reset_peak()
        with torch.device(DEVICE):
            self.model, self.batch = build(name, size, mode), random_batch(size, mode, num_clips)
        self.precision = precision
        self.optimizer = adamw(self.model, ADAMW)
        for _ in range(NUM_WARMUPS):
            self.step()
        self.peak = peak_bytes() - taken
        self.seconds: list[float] = []

    def step(self) -> None:
        torch.autograd.backward(loss_of(self.model, self.batch, self.precision))
        self.optimizer.step()
        self.optimizer.zero_grad()  # last, so that a model which waits its turn holds no gradients


def measure(
    names: list[str], size: str, mode: Mode, num_clips: int, precision: str, repeats: int
) -> dict[str, tuple[int, list[float]]]:
    """Peak bytes and seconds of each step, taken in turns; without what ran out of memory."""
    gc.collect()
    torch.cuda.empty_cache()
    trials = {}
    for name in names:
        with suppress(torch.OutOfMemoryError):
            trials[name] = Trial(name, size, mode, num_clips, precision)
    for _ in range(repeats):
        for trial in trials.values():
            with suppress(torch.OutOfMemoryError):
                trial.seconds.append(seconds(trial.step))
    return {n: (t.peak, t.seconds) for n, t in trials.items() if len(t.seconds) == repeats}


def main(size: str, batches: list[int], precision: str, names: list[str], repeats: int) -> None:
    ceiling = matmul_ceiling(DTYPES[precision])
    print(f"{machine()}; {size}, {precision}; ceiling {ceiling / 1e12:.3f} TFLOP/s\n")
    groups = [[name] for name in names]
    if find_spec("transformers"):
        groups[0].append(HUGGING_FACE)
    else:
        print("transformers is not installed: no rows of Hugging Face's model.\n")
    print(
        "| structure | encoder | batch | ms per step | clips/s | TFLOP/s | share of ceiling "
        "| peak memory (GiB) | times as fast |\n|---|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    for num_clips, mode, group in product(batches, MODES, groups):
        compared = [name for name in group if mode != "tokens" or name != HUGGING_FACE]
        runs = measure(compared, size, mode, num_clips, precision, repeats)
        for name in compared:
            row = f"| {name} | {mode} | {num_clips} "
            if name in runs:
                peak, times = runs[name]
                step = statistics.median(times)
                rate = step_flops(name, size, mode, num_clips) / step
                row += f"| {step * 1e3:.1f} | {num_clips / step:.2f} | {rate / 1e12:.3f} "
                theirs = runs[HUGGING_FACE][1] if HUGGING_FACE in runs else []
                ratios = [a / b for a, b in zip(theirs, times, strict=False)]
                ratio = f"{statistics.median(ratios):.2f}" if ratios else "-"
                row += f"| {rate / ceiling:.0%} | {peak / 2**30:.2f} | {ratio} |"
            else:
                row += "| out of memory | | | | | |"
            print(row, flush=True)


if __name__ == "__main__":
    gpu = DEVICE == "cuda"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", choices=MODELS, default="large" if gpu else "narrow", help="which (%(default)s)"
    )
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[8, 16] if gpu else [2],
        help="clips at once (%(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=DTYPES,
        default="bf16-mixed" if gpu else "32-true",
        help="of the training (%(default)s)",
    )
    parser.add_argument(
        "--structures",
        nargs="+",
        choices=NAMES,
        default=list(NAMES),
        help="rows of Table I (%(default)s)",
    )
    parser.add_argument("--repeats", type=int, default=10, help="of each timing (%(default)s)")
    args = parser.parse_args()
    main(args.model, args.batch, args.precision, args.structures, args.repeats)
