"""What tells one experiment in MLflow from another: its name, its parameters and their digest."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from pipeline.mtcae import structures
from pipeline.mtcae.structures import Structure

Choices = Mapping[str, str | int]
"""What tells DVC experiments apart: `dataset` and the others on top of params.yaml, in order."""

# As weights/ and params.yaml call it.
FROM_SCRATCH = "from_scratch"


class TrackedExperiment(NamedTuple):
    """An experiment, by what each of its folds and its aggregate know alike.

    Attributes:
        choices: See `Choices`.
        params: All parameters of the training, nested, of values that JSON can hold: the same
            whether they come from params.yaml or out of a file. `encoder.name` says what the
            encoder starts from.
        data_digest: SHA-256 of the shards' manifest, in hexadecimal.
    """

    choices: Choices
    params: Mapping[str, Any]
    data_digest: str

    @classmethod
    def of(cls, training: Mapping[str, Any], data_digest: str) -> Self:
        """Out of all parameters of a training, with the card of its encoder, as JSON has them."""
        card = training["encoder"]
        encoder = {name: card[name] for name in ("name", "sha256") if name in card}
        choices = {name: training[name] for name in structures.Choices.model_fields}
        return cls(choices, {**training, "encoder": encoder}, data_digest)

    @property
    def group(self) -> str:
        """Name of the experiment in MLflow, which has a run for each of these."""
        return f"dfer-{self.choices['dataset']}"

    @property
    def name(self) -> str:
        """For people, such as `cascaded vit tiny quick marlin-large seed 1 (3fa2)`."""
        structure = Structure(str(self.choices["arch"]), str(self.choices["decoder"]))
        words = [structure.name, self.choices["model"], self.choices["recipe"]]
        encoder = self.flat_params().get("encoder.name", FROM_SCRATCH)
        if encoder != FROM_SCRATCH:
            words.append(encoder)
        words += [f"seed {self.choices['seed']}", f"({self.params_digest[:4]})"]
        return " ".join(map(str, words))

    @property
    def params_digest(self) -> str:
        """SHA-256 of all parameters, in hexadecimal."""
        return hashlib.sha256(json.dumps(sorted(self.flat_params().items())).encode()).hexdigest()

    @property
    def columns(self) -> tuple[list[str], list[str]]:
        """Parameters and scores that the table of runs shows; the first score sorts."""
        choices = ["arch", "decoder", "model", "recipe", "encoder.name", "protocol", "seed"]
        scores = [f"{name}_pooled{end}" for name in ("uar", "war") for end in ("", "_low", "_high")]
        return choices, [*scores, "linear_uar"]

    def flat_params(self) -> dict[str, str]:
        """All parameters, the choices among them, as MLflow keeps them."""
        return flat_params({**self.params, **self.choices})


def flat_params(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters under dotted names. Text stays as it is, and all else is written as JSON.

    {"engine": {"epochs": 5, "compile": False}} -> {"engine.epochs": "5", "engine.compile": "false"}
    """
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_params(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            flat[f"{prefix}{name}"] = value
        else:
            flat[f"{prefix}{name}"] = json.dumps(value, ensure_ascii=False)
    return flat
