import warnings
from types import SimpleNamespace

import psutil
import pytest
import torch
from lightning_fabric import Fabric
from tiny_training import clips, fit, tiny_model, tiny_task
from torch import Tensor, nn

from pipeline.training import foresight
from pipeline.training.foresight import saved_bytes

FABRIC = Fabric(accelerator="cpu", devices=1)


def test_what_is_kept_for_the_backward_pass_is_counted_once() -> None:
    # The inputs of the layers; the third one's is what tanh keeps, too. Four bytes a number.
    model = nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 10), nn.Linear(10, 5))
    pictures = torch.zeros(7, 30)
    assert saved_bytes(model, lambda: model(pictures)) == 4 * 7 * (30 + 20 + 10)


def trained(free: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The weights of a training with dropout on a computer with so much memory."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    model = tiny_model(dropout=0.2)
    batches = [clips(3, seed=1), clips(3, seed=2)]
    fit(FABRIC, model, batches, tiny_task(batches), epochs=1, micro_batch_size=3)
    return model.state_dict()


def test_steps_that_need_more_memory_than_is_free_are_foreseen_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = trained(10**12, monkeypatch)
    monkeypatch.setattr(foresight, "_LARGE", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(10**12, monkeypatch)
    model = tiny_model()
    states = 3 * sum(weight.nbytes for weight in model.parameters())
    with pytest.warns(UserWarning, match=r"of 3 samples .* choose a smaller model"):
        trained(states, monkeypatch)
    with pytest.warns(UserWarning, match=r"set it to \d+ \(the result stays the same\)"):
        found = trained(states + 200_000, monkeypatch)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=0)
