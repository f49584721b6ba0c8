import warnings

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from pipeline.training.place import cpu_hours, place_in_words, warn_of_cpu

FABRIC = Fabric(accelerator="cpu", devices=1)


def test_the_place_is_named() -> None:
    threads = torch.get_num_threads()
    assert place_in_words(FABRIC, "bf16-mixed") == f"the CPU ({threads} threads), bf16-mixed"


def test_a_long_training_on_a_cpu_is_foreseen_and_a_short_one_is_not() -> None:
    # 10^7 weights, 1000 tokens, 1000 samples, 10 epochs: 6 x 10^14 operations.
    model = nn.Sequential(nn.Linear(10_000, 1000, bias=False), nn.Linear(1000, 10))
    model[1].requires_grad_(requires_grad=False)
    sizes = {"num_tokens": 1000, "num_samples": 1000, "epochs": 10}
    hours = 6e14 / 3e10 / 3600 / torch.get_num_threads()
    assert cpu_hours(model, **sizes) == pytest.approx(hours)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_cpu(FABRIC, model, **sizes | {"epochs": 1, "num_samples": 10})
    with pytest.warns(UserWarning, match="no GPU was found: on the CPU this training takes some"):
        warn_of_cpu(FABRIC, model, **sizes | {"epochs": 1000})
