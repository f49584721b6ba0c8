"""Where the steps of benchmarks.train_step spend their time, by kind of operator.

    python -m benchmarks.step_profile [--model narrow|tiny|small|base|large] [--batch 8]
        [--precision 32-true|bf16-mixed] [--structures stl "Hugging Face"] [--steps 5]

Shares are of the time that torch's profiler counts for operators themselves: of their kernels on a
GPU, where waiting for the next kernel is in no row, and of the operators on a CPU.
"""

import argparse
import gc
import re
from collections import Counter
from itertools import product

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.attention import DEVICE, machine
from benchmarks.models import MODELS
from benchmarks.train_step import DTYPES, HUGGING_FACE, MODES, NAMES, Trial

# An operator is of the first kind that its name is found in.
KINDS = {
    "attention": r"attention",
    "matrix products": r"::(addmm|mm|bmm|baddbmm|.*convolution.*)$",
    "optimiser": r"_fused_|_foreach_",
    "norms": r"layer_norm",
    "GELU": r"gelu",
    "copies": r"::(copy_|cat|.*_copy)$|Memcpy",
    "rest": r"",
}


def shares(trial: Trial, steps: int) -> dict[str, float]:
    """Fraction of the operators' own time per kind."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if DEVICE == "cuda" else [])]
    with profile(activities=activities) as profiled:
        for _ in range(steps):
            trial.step()
    times: Counter[str] = Counter()
    for event in profiled.key_averages():
        # A kernel is listed by itself and is also in the time of the operator that launched it.
        if event.device_type.name == "CPU":
            kind = next(kind for kind, name in KINDS.items() if re.search(name, event.key))
            times[kind] += (
                event.self_device_time_total if DEVICE == "cuda" else event.self_cpu_time_total
            )
    return {kind: times[kind] / times.total() for kind in KINDS}


def main(size: str, num_clips: int, precision: str, names: list[str], steps: int) -> None:
    print(f"{machine()}; {size}, {precision}, batch {num_clips}\n")
    print(f"| structure | encoder | {' | '.join(KINDS)} |\n|---|---|{'---:|' * len(KINDS)}")
    for mode, name in product(MODES, names):
        if mode != "tokens" or name != HUGGING_FACE:
            gc.collect()
            torch.cuda.empty_cache()
            parts = shares(Trial(name, size, mode, num_clips, precision), steps)
            row = " | ".join(f"{part:.1%}" for part in parts.values())
            print(f"| {name} | {mode} | {row} |", flush=True)


if __name__ == "__main__":
    gpu = DEVICE == "cuda"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", choices=MODELS, default="large" if gpu else "narrow", help="which (%(default)s)"
    )
    parser.add_argument(
        "--batch", type=int, default=8 if gpu else 2, help="clips at once (%(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=DTYPES,
        default="bf16-mixed" if gpu else "32-true",
        help="of the training (%(default)s)",
    )
    names = [*NAMES, HUGGING_FACE]
    parser.add_argument(
        "--structures",
        nargs="+",
        choices=names,
        default=["stl", HUGGING_FACE],
        help="rows of Table I (%(default)s)",
    )
    parser.add_argument("--steps", type=int, default=5, help="that are profiled (%(default)s)")
    args = parser.parse_args()
    main(args.model, args.batch, args.precision, args.structures, args.steps)
