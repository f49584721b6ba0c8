"""What tells one training of an affect model in MLflow from another."""

from collections.abc import Mapping
from typing import Any, Self

from pipeline.affect.choices import Choices
from pipeline.tracking.experiment import TrackedExperiment


class AffectExperiment(TrackedExperiment):
    """EMMA or CoTEX with one seed, by its choices, all its parameters and the set's manifest."""

    @classmethod
    def of(cls, training: Mapping[str, Any], data_digest: str) -> Self:
        """Out of all parameters of a training, with the card of its encoder."""
        card = training["encoder"]
        encoder = {name: card[name] for name in ("name", "sha256") if name in card}
        choices = {name: training[name] for name in Choices.model_fields if name != "set"}
        choices = {"dataset": training["set"], **choices, "seed": training["seed"]}
        return cls(choices, {**training, "encoder": encoder}, data_digest)

    @property
    def group(self) -> str:
        return f"affect-{self.choices['dataset']}"

    @property
    def name(self) -> str:
        """For people, such as `emma both tiny rendered quick seed 1 (3fa2)`."""
        words = [self.choices["system"]]
        if self.choices["system"] == "emma":
            words.append(self.choices["va_input"])
        words += [self.choices[name] for name in ("model", "init", "recipe")]
        words += [f"seed {self.choices['seed']}", f"({self.params_digest[:4]})"]
        return " ".join(map(str, words))
