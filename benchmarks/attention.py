"""Attention at the size of the paper's decoder: every kernel that torch has, and the one it takes.

    python -m benchmarks.attention [--batch 8] [--heads 3] [--tokens 1568] [--head-dims 64 256 512]
        [--dtype bfloat16|float16|float32] [--dropout 0.0] [--repeats 20]

scaled_dot_product_attention is timed with each of its backends allowed alone and with its default
choice, and so is attention written out as matmul, softmax, matmul. The last column names the
operator that ran by its gradient; the default choice is said to equal the backend with the same
one. Times are medians; the forward pass alone runs without gradients. The error is the output's
largest difference from float64 on the same inputs, without the dropout, with which another kernel
may run. Memory, on a GPU, is what forward and backward take beyond their inputs.

Shape letters: B clips, H heads, N queries and keys, K head width.
"""

import argparse
import os
import re
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Attention = Callable[[Tensor, Tensor, Tensor, float], Tensor]
BACKENDS = {
    "FLASH_ATTENTION": SDPBackend.FLASH_ATTENTION,
    "EFFICIENT_ATTENTION": SDPBackend.EFFICIENT_ATTENTION,
    "CUDNN_ATTENTION": SDPBackend.CUDNN_ATTENTION,
    "MATH": SDPBackend.MATH,
}
EXPLICIT = "matmul, softmax, matmul"
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class Cost(NamedTuple):
    """Milliseconds of the forward pass and of both, bytes, and the output's grad_fn."""

    forward: float
    both: float
    error: float
    memory: int
    node: str


def machine() -> str:
    cpu = f"CPU, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"
    return f"{torch.cuda.get_device_name() if DEVICE == 'cuda' else cpu}; torch {torch.__version__}"


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock time until the device has finished all that the function asked of it."""
    wait: Callable[[], object] = torch.cuda.synchronize if DEVICE == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - started


def reset_peak() -> int:
    """Start to watch the memory; what is taken already, in bytes, and not known on a CPU: 0."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # lowers VmHWM; Linux only
    return 0


def peak_bytes() -> int:
    """The most that tensors took since `reset_peak`; on a CPU the process's resident set."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


def fused(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


def explicit(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """softmax(q k^T / sqrt(K)) v, each in the dtype of the inputs."""
    weights = ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(dim=-1)
    return F.dropout(weights, dropout) @ v


def measure(attend: Attention, inputs: list[Tensor], dropout: float, repeats: int) -> Cost:
    """Cost of attention for q, k, v and the gradient of the output, all (B, H, N, K)."""
    q, k, v, gradient = inputs
    # A kernel of a millisecond is timed in a queue of ten, which hides the launch of the first.
    num_calls = 10 if DEVICE == "cuda" else 1

    def forward() -> None:
        with torch.no_grad():
            for _ in range(num_calls):
                attend(q, k, v, dropout)

    def both() -> None:
        for _ in range(num_calls):
            torch.autograd.grad(attend(q, k, v, dropout), (q, k, v), gradient)

    def median_ms(function: Callable[[], None]) -> float:
        function()
        times = [seconds(function) for _ in range(repeats)]
        return statistics.median(times) * 1000 / num_calls

    node = type(attend(q, k, v, dropout).grad_fn).__name__
    taken = reset_peak()
    both_ms = median_ms(both)
    memory = peak_bytes() - taken
    with torch.no_grad():
        exact = explicit(q.double(), k.double(), v.double(), 0.0)
        error = (attend(q, k, v, 0.0).double() - exact).abs().max().item()
    return Cost(median_ms(forward), both_ms, error, memory, node)


def told(caught: Sequence[warnings.WarningMessage]) -> str:
    """Why no kernel ran: torch's warnings, each once and without the line of torch it came from."""
    return " ".join(dict.fromkeys(str(w.message).split(" (Triggered")[0] for w in caught))


def main(
    shape: list[int], head_dims: list[int], dtype: torch.dtype, dropout: float, repeats: int
) -> None:
    gpu = DEVICE == "cuda"
    print(f"{machine()}; B, H, N {shape}; {dtype}; dropout {dropout}\n")
    print(
        "| K | attention | forward (ms) | forward and backward (ms) | largest error "
        "| memory (MiB) | grad_fn |\n|---:|---|---:|---:|---:|---:|---|"
    )
    reasons = []
    for head_dim in head_dims:
        torch.manual_seed(0)
        inputs = [torch.randn(*shape, head_dim, device=DEVICE, dtype=dtype) for _ in range(4)]
        for tensor in inputs[:3]:
            tensor.requires_grad_()
        nodes: dict[str, str] = {}
        for name in (*BACKENDS, "default", EXPLICIT):
            allowed = sdpa_kernel(BACKENDS[name]) if name in BACKENDS else nullcontext()
            attend = explicit if name == EXPLICIT else fused
            row = f"| {head_dim} | {name}"
            with warnings.catch_warnings(record=True) as caught, allowed:
                warnings.simplefilter("always")
                try:
                    cost = measure(attend, inputs, dropout, repeats)
                except torch.OutOfMemoryError:
                    print(f"{row} | out of memory | | | | |", flush=True)
                    continue
                except RuntimeError as error:
                    print(f"{row} | not available | | | | |", flush=True)
                    reasons.append(f"- {name}, K {head_dim}: {error} {told(caught)}".strip())
                    continue
            if name == "default":
                same = [backend for backend in nodes if nodes[backend] == cost.node]
                row += f" (= {' or '.join(same) or 'none of the above'})"
            nodes[name] = cost.node
            memory = f"{cost.memory / 2**20:.0f}" if gpu else "-"
            print(
                f"{row} | {cost.forward:.3f} | {cost.both:.3f} | {cost.error:.1e} | {memory} "
                f"| {cost.node} |",
                flush=True,
            )
    if reasons:
        print("\nNot available, in torch's words:\n\n" + "\n".join(reasons))


if __name__ == "__main__":
    gpu = DEVICE == "cuda"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--batch", type=int, default=8 if gpu else 1, help="clips at once (%(default)s)"
    )
    parser.add_argument("--heads", type=int, default=3, help="of the attention (%(default)s)")
    parser.add_argument(
        "--tokens", type=int, default=1568 if gpu else 196, help="of a clip (%(default)s)"
    )
    parser.add_argument(
        "--head-dims",
        type=int,
        nargs="+",
        default=[64, 256, 512],
        help="widths of a head (%(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="bfloat16" if gpu else "float32",
        help="of the numbers (%(default)s)",
    )
    parser.add_argument("--dropout", type=float, default=0.0, help="of the attention (%(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="of each timing (%(default)s)")
    args = parser.parse_args()
    shape = [args.batch, args.heads, args.tokens]
    main(shape, args.head_dims, DTYPES[args.dtype], args.dropout, args.repeats)
