"""The devices of a training: one, or one for each process that torchrun or `fabric run` started."""

import os
import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor

Precision = Literal["32-true", "bf16-mixed"]


def launch(precision: Precision) -> Fabric:
    """The best device of this machine, or this process's one among those that train together.

    torchrun starts them, or `fabric run` without its --strategy and --precision.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    plugins: Any = [_Autocast()] if precision == "bf16-mixed" else []
    if processes == 1:
        return Fabric(accelerator="auto", devices=1, plugins=plugins)
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    fabric = Fabric(
        accelerator="auto",
        # Buffers are constants here, and devices may differ in how many batches they evaluate.
        strategy=DDPStrategy(forward_sync_buffers=False),
        devices=local,
        num_nodes=processes // local,
        plugins=plugins,
    )
    if "LT_CLI_USED" not in os.environ:  # `fabric run` has done it
        fabric.launch()
    return fabric


class _Autocast(MixedPrecision):
    """bf16 where autocast has it, and inputs as they are.

    Fabric's own hands a model that is trained its floating inputs in bf16, while `Fabric.autocast`,
    under which it is evaluated, does not: it would be trained on other tokens than it is tested on.
    """

    def __init__(self) -> None:
        super().__init__("bf16-mixed", "cuda" if torch.cuda.is_available() else "cpu")

    def convert_input(self, data: Any) -> Any:
        return data


def sum_over_devices(fabric: Fabric, values: Tensor) -> Tensor:
    """Sums over all devices."""
    summed = fabric.all_reduce(values, reduce_op="sum")
    assert isinstance(summed, Tensor)
    return summed


def any_device(fabric: Fabric, *flags: bool) -> list[bool]:
    """For each flag, whether it is set in any process."""
    if fabric.world_size == 1:  # A GPU would wait while they are read from it.
        return list(flags)
    numbers = torch.tensor(flags).int().to(fabric.device)
    return [bool(number) for number in sum_over_devices(fabric, numbers)]


def gather(fabric: Fabric, value: Any) -> list[Any]:
    """The value of every process, in the order of their ranks, for all of them."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def peak_memory(device: torch.device) -> int:
    """Most bytes so far: of tensors on a GPU, of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In kilobytes, on macOS in bytes.
    return most if sys.platform == "darwin" else most * 1024


@contextmanager
def end_together(fabric: Fabric) -> Iterator[None]:
    """Where one of several processes fails, end it at once: the launcher then ends the others.

    They may be waiting for it in a collective, and a clean-up at exit would wait for them.
    """
    try:
        yield
    except Exception:
        if fabric.world_size == 1:
            raise
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
