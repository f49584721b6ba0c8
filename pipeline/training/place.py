"""Where a training runs, in words, and a warning where that takes long."""

import warnings

import torch
from lightning_fabric import Fabric
from torch import nn

from pipeline.training.devices import Precision

# Operations a second of a core, roughly: what large matrix products reach on a server's.
_CORE_RATE = 3e10
# For each weight and token: two forwards, and twice as many backwards.
_OPERATIONS = 6
_LONG_HOURS = 1.0


def place_in_words(fabric: Fabric, precision: Precision) -> str:
    """`the CPU (2 threads), 32-true` or `2 x NVIDIA H100, bf16-mixed`."""
    if fabric.device.type == "cuda":
        name = torch.cuda.get_device_name(fabric.device)
    else:
        name = f"the CPU ({torch.get_num_threads()} threads)"
    number = "" if fabric.world_size == 1 else f"{fabric.world_size} x "
    return f"{number}{name}, {precision}"


def warn_of_cpu(
    fabric: Fabric, model: nn.Module, *, num_tokens: int, num_samples: int, epochs: int
) -> None:
    """Say how long a training will take where no GPU was found and it is long.

    Args:
        fabric: Where it runs.
        model: What is trained; weights that stay as they are do not count.
        num_tokens: Of a sample.
        num_samples: Of an epoch.
        epochs: At most.
    """
    hours = cpu_hours(model, num_tokens=num_tokens, num_samples=num_samples, epochs=epochs)
    if fabric.device.type == "cpu" and fabric.is_global_zero and hours > _LONG_HOURS:
        warnings.warn(
            f"no GPU was found: on the CPU this training takes some {hours:,.0f} hours, roughly",
            stacklevel=2,
        )


def cpu_hours(model: nn.Module, *, num_tokens: int, num_samples: int, epochs: int) -> float:
    """A rough time on this machine's cores; see `warn_of_cpu`."""
    weights = sum(one.numel() for one in model.parameters() if one.requires_grad)
    operations = _OPERATIONS * weights * num_tokens * num_samples * epochs
    return operations / (_CORE_RATE * torch.get_num_threads()) / 3600
