import pytest
import torch

from benchmarks.model_costs import forward_macs
from benchmarks.models import random_model
from pipeline.mtcae.structures import Structure

TOKENS, DIM, INNER = 1568, 512, 3 * 512

ENCODER = TOKENS * 1536 * 1024 + 24 * (12 * TOKENS * 1024**2 + 2 * TOKENS**2 * 1024)
PROJECTION = TOKENS * 1024 * DIM
MLP = 2 * TOKENS * DIM * 2 * DIM
ATTENTION = 4 * TOKENS * DIM * INNER + 2 * TOKENS**2 * INNER
HEADS = DIM * (64 + 160 + 7)


@pytest.mark.parametrize(
    ("arch", "decoder", "expected"),
    [
        ("stl", "vit", ENCODER + 1024 * 7),
        ("non_fully_shared", "mlp", ENCODER + PROJECTION + 3 * 5 * MLP + HEADS),
        ("fully_shared", "vit", ENCODER + PROJECTION + 4 * 5 * (ATTENTION + MLP) + HEADS),
        ("cascaded", "vit", ENCODER + PROJECTION + 3 * 5 * (ATTENTION + MLP) + HEADS),
    ],
)
def test_forward_cost_is_that_counted_by_hand(arch: str, decoder: str, expected: int) -> None:
    with torch.device("meta"):
        model = random_model("large", Structure(arch, decoder)).eval()
    assert forward_macs(model) == expected
