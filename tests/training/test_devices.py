from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from tiny_training import run, without_clock
from torch import Tensor, nn
from torch.optim import SGD

from pipeline.training.devices import Precision, launch


class Seen(nn.Module):
    """A layer that remembers of what kind its inputs and outputs were."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.kinds: list[tuple[torch.dtype, torch.dtype]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs.float())
        self.kinds.append((inputs.dtype, outputs.dtype))
        return outputs


@pytest.mark.parametrize(
    ("precision", "computed"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)]
)
@pytest.mark.parametrize("kind", [torch.uint8, torch.float16, torch.float32])
def test_a_model_is_trained_on_the_inputs_that_it_is_evaluated_on(
    precision: Precision, computed: torch.dtype, kind: torch.dtype
) -> None:
    fabric, model = launch(precision), Seen()
    trained, _ = fabric.setup(model, SGD(model.parameters(), lr=0.1))
    inputs = torch.ones(1, 2, dtype=kind, device=fabric.device)
    trained(inputs)
    with fabric.autocast():
        model(inputs)
    assert model.kinds == [(kind, computed)] * 2


@pytest.mark.gpu
def test_a_gpu_trains_and_evaluates_like_the_cpu(tmp_path: Path) -> None:
    results = {}
    for fabric in (Fabric(accelerator="cpu", devices=1), launch("32-true")):
        kind = fabric.device.type
        run(fabric, tmp_path / kind, tmp_path / f"scratch of {kind}", random=False, ema=0.5)
        results[kind] = torch.load(tmp_path / kind, map_location="cpu")
    gpu, cpu = results["cuda"], results["cpu"]
    for row, same in zip(gpu["history"], cpu["history"], strict=True):
        assert without_clock(row) == pytest.approx(without_clock(same), rel=1e-4)
    torch.testing.assert_close(gpu["probabilities"], cpu["probabilities"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gpu["weights"], cpu["weights"], rtol=1e-4, atol=1e-6)
