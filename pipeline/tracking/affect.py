"""What tells one training of an affect model in MLflow from another."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pipeline.affect.choices import Choices
from pipeline.affect.trainings import Trainings, rows_of
from pipeline.tracking.experiment import TrackedExperiment
from pipeline.tracking.observer import FoldFiles, log_experiment, training_seconds


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

    @property
    def columns(self) -> tuple[list[str], list[str]]:
        choices = ["system", "va_input", "model", "init", "recipe", "seed"]
        return choices, ["p_mtl", "va_ccc", "expression_f1", "au_f1"]


def log_trainings(
    files: Trainings, summary: Mapping[str, float], data_digest: str, artifacts: list[Path]
) -> None:
    """Close the run of each seed.

    Args:
        files: Of all folds.
        summary: Scores over all of them.
        data_digest: SHA-256 of the set's manifest.
        artifacts: Tables to attach.
    """
    for folds in files.values():
        of_all = next(iter(folds.values())).description
        training = {key: value for key, value in of_all.items() if key not in ("fold", "metrics")}
        log_experiment(
            AffectExperiment.of(training, data_digest),
            {fold: FoldFiles(rows_of(one.history), one.metrics) for fold, one in folds.items()},
            summary,
            artifacts,
            {},
            {"folds": sorted(folds)},
        )


def seconds_of_a_training(dataset: str, dvc_experiment: str) -> float | None:
    """What MLflow knows of that DVC experiment's trainings, as the mean over their folds."""
    return training_seconds(
        AffectExperiment({"dataset": dataset, "dvc_experiment": dvc_experiment}, {}, "")
    )
