"""The memory that the steps of a large model take on a CPU, said before the first of them.

A GPU's full memory is an error, which stages explain; a computer's ends the process without a word.
"""

import warnings
from collections.abc import Callable

import psutil
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pipeline.training.task import B, P, Place, Task

# Weights that are trained; fewer need no attention.
_LARGE = 10_000_000
# Of each trained weight: its gradient and AdamW's two means.
_STATES = 3
# The backward pass holds gradients beside what was kept: ViT-S with three decoders took 1.29 GB for
# each further clip, of which 1.13 GB were kept.
_BACKWARD = 1.15


def warn_of_memory(
    fabric: Fabric, module: nn.Module, task: Task[B, P], batch: B, micro_batch_size: int
) -> None:
    """Warn where steps will need more memory than this computer has free.

    What a training draws and keeps is left as it was.

    Args:
        fabric: Where it runs; nothing is asked on a GPU, or of several processes.
        module: What is trained, in training mode.
        task: Whose losses.
        batch: One of the training's.
        micro_batch_size: Samples of a part.
    """
    weights = sum(one.numel() for one in module.parameters() if one.requires_grad)
    if fabric.device.type != "cpu" or fabric.world_size > 1 or weights < _LARGE:
        return
    part = task.parts(batch, Place(1, 1, fabric.global_rank), 1)[0]
    buffers = [(one, one.clone()) for one in module.buffers()]
    with torch.random.fork_rng(devices=[]):
        kept = saved_bytes(module, lambda: task.losses(module, part, task.totals(module, part)))
    for buffer, before in buffers:
        buffer.copy_(before)
    sample = _BACKWARD * kept
    fixed = _STATES * sum(one.nbytes for one in module.parameters() if one.requires_grad)
    needed, free = fixed + micro_batch_size * sample, psutil.virtual_memory().available
    if needed > free:
        fits = max(int((free - fixed) / sample), 0)
        advice = (
            f"set it to {fits} (the result stays the same)" if fits else "choose a smaller model"
        )
        warnings.warn(
            f"a step needs some {needed / 1e9:.1f} GB of memory, {sample / 1e9:.2f} GB for each "
            f"of {micro_batch_size} samples (engine.micro_batch_size), and {free / 1e9:.1f} GB are "
            f"free; without them the process is killed: {advice}",
            stacklevel=2,
        )


def saved_bytes(module: nn.Module, forward: Callable[[], object]) -> int:
    """What a forward pass keeps for the backward pass, beside the module's weights."""
    own = {one.untyped_storage().data_ptr() for one in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # While the result lives, no storage is given back and used again.
        result = forward()
    del result
    return sum(kept.values())
