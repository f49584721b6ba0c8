"""What tells one pre-training in MLflow from another."""

from collections.abc import Mapping
from typing import Any, Self

from pipeline.pretrain.setup import Choices
from pipeline.tracking.experiment import FROM_SCRATCH, TrackedExperiment


class PretrainingExperiment(TrackedExperiment):
    """A pre-training, by its choices, all its parameters and the manifest of its samples."""

    @classmethod
    def of(cls, training: Mapping[str, Any], data_digest: str) -> Self:
        """Out of all parameters of a pre-training, with the card of its encoder."""
        card = training["encoder"]
        encoder = {name: card[name] for name in ("name", "sha256") if name in card}
        choices = {name: training[name] for name in Choices.model_fields if name != "data"}
        return cls(
            {"dataset": training["data"], **choices}, {**training, "encoder": encoder}, data_digest
        )

    @property
    def group(self) -> str:
        return f"pretraining-{self.choices['dataset']}"

    @property
    def name(self) -> str:
        """For people, such as `videomae base faces marlin-base seed 1 (3fa2)`."""
        words = [self.choices[name] for name in ("method", "model", "recipe")]
        encoder = self.flat_params().get("encoder.name", FROM_SCRATCH)
        if encoder != FROM_SCRATCH:
            words.append(encoder)
        words += [f"seed {self.choices['seed']}", f"({self.params_digest[:4]})"]
        return " ".join(map(str, words))

    @property
    def columns(self) -> tuple[list[str], list[str]]:
        return ["method", "model", "recipe", "encoder.name", "seed"], [
            "validation_loss",
            "train_loss",
        ]
