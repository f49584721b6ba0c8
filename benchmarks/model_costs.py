"""Parameters and forward cost of the six structures at the paper's size, as a Markdown table.

    python -m benchmarks.model_costs

Everything is counted on tensors without data: it takes seconds, little memory and no download. One
GMAC is 10^9 multiply-adds in matrix products, for one clip of 16 x 224 x 224 pixels; norms,
activations and softmax, together well below one percent, are not counted.
"""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import random_model
from pipeline.mtcae.structures import STRUCTURES


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def forward_macs(model: nn.Module, num_frames: int = 16, image_size: int = 224) -> int:
    """Multiply-adds of one clip's way through a model that lives on the meta device."""
    clip = torch.empty(1, num_frames, 3, image_size, image_size, device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(clip)
    return int(counter.get_total_flops()) // 2


def main() -> None:
    print("| arch | decoder | parameters (M) | of these after the encoder (M) | forward GMACs |")
    print("|---|---|---:|---:|---:|")
    for structure in STRUCTURES:
        with torch.device("meta"):
            model = random_model("large", structure).eval()
        total = num_parameters(model)
        added = total - num_parameters(model.encoder)
        arch = structure.arch
        name = "-" if arch == "stl" else structure.decoder
        gmacs = forward_macs(model) / 1e9
        print(f"| {arch} | {name} | {total / 1e6:.2f} | {added / 1e6:.2f} | {gmacs:.1f} |")


if __name__ == "__main__":
    main()
