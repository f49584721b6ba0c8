import hashlib
import json
from typing import Any

import pytest

from pipeline.tracking.experiment import TrackedExperiment, flat_params

CHOICES: dict[str, str | int] = {
    "dataset": "sample",
    "arch": "cascaded",
    "decoder": "vit",
    "model": "tiny",
    "recipe": "quick",
    "seed": 3,
}
PARAMS: dict[str, Any] = {
    "encoder": {"name": "from_scratch"},
    "recipes": {"optimizer": {"learning_rate": 1e-3}},
}


def experiment(**changes: str | int) -> TrackedExperiment:
    return TrackedExperiment(CHOICES | changes, PARAMS, "0" * 64)


def test_parameters_are_text_under_dotted_names() -> None:
    nested = {
        "engine": {"epochs": 5, "compile": False, "rate": 6.25e-5, "half": 5e-1},
        "classes": ("happy", "überrascht"),
        "source": None,
        "dataset": "sample",
        "nothing": {},
    }
    assert flat_params(nested) == {
        "engine.epochs": "5",
        "engine.compile": "false",
        "engine.rate": "6.25e-05",
        "engine.half": "0.5",
        "classes": '["happy", "überrascht"]',
        "source": "null",
        "dataset": "sample",
    }


def test_the_digest_is_that_of_all_parameters_and_choices_by_name() -> None:
    pairs = [
        ["arch", "cascaded"],
        ["dataset", "sample"],
        ["decoder", "vit"],
        ["encoder.name", "from_scratch"],
        ["model", "tiny"],
        ["recipe", "quick"],
        ["recipes.optimizer.learning_rate", "0.001"],
        ["seed", "3"],
    ]
    wanted = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
    assert experiment().params_digest == wanted
    # As finetune has them: the choices stand among the parameters too.
    doubled = experiment()._replace(params=PARAMS | CHOICES)
    assert doubled.params_digest == wanted


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "cascaded vit tiny quick seed 3"),
        ({"arch": "stl", "recipe": "paper"}, "stl tiny paper seed 3"),
        ({"arch": "fully_shared", "decoder": "mlp"}, "fully_shared mlp tiny quick seed 3"),
    ],
)
def test_a_name_says_the_choices_and_the_start_of_the_digest(
    changes: dict[str, str | int], words: str
) -> None:
    named = experiment(**changes)
    assert named.name == f"{words} ({named.params_digest[:4]})"


def test_a_name_says_which_weights_the_encoder_starts_from() -> None:
    encoder = {"encoder": {"name": "marlin-large", "sha256": "f" * 64}}
    named = experiment()._replace(params=PARAMS | encoder)
    digest = named.params_digest[:4]
    assert named.name == f"cascaded vit tiny quick marlin-large seed 3 ({digest})"
