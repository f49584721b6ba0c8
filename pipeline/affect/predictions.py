"""Pictures asked of a model, with the truth beside what it says.

Shape letters: N pictures, C classes, U action units.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor

from pipeline.affect.emma import Predictions
from pipeline.affect.labels import AUS, truth_from
from pipeline.affect.metrics import Answers, Numbers, Truth
from pipeline.store.batch import Batch, concatenate
from pipeline.training.devices import gather

# The probability from which on a unit is said to be active, where it was not tuned.
HALF = np.full(len(AUS), 0.5)


class Asked(NamedTuple):
    """All pictures of some batches, without their pixels, and what was said of them, on the CPU."""

    truth: Batch
    said: tuple[Tensor, ...]


@torch.no_grad()
def ask(
    fabric: Fabric, answer: Callable[[Batch], tuple[Tensor, ...]], batches: Iterable[Batch]
) -> Asked:
    """Ask about every picture once.

    Args:
        fabric: Device, precision, and the other processes.
        answer: Of a model in evaluation mode, not wrapped for training on several devices, which
            may differ in how many batches they have: tensors whose first axis is the pictures'.
        batches: Of this process; the pictures of all processes are in the result, which all get.
    """
    seen: list[Batch] = []
    said: list[tuple[Tensor, ...]] = []
    for batch in batches:
        with fabric.autocast():
            outputs = answer(batch.to(fabric.device))
        said.append(tuple(output.float().cpu() for output in outputs))
        seen.append(batch.without_inputs())  # The pixels are most of it.
    gathered = gather(fabric, (seen, said))
    return Asked(
        concatenate([batch for one, _ in gathered for batch in one]),
        tuple(map(torch.cat, zip(*(part for _, one in gathered for part in one), strict=True))),
    )


class Evaluation(NamedTuple):
    """What a model says of N pictures, with the truth, in the order of the batches.

    Attributes:
        ids: N names.
        groups: N names.
        truth: Of all of them.
        valence_arousal: (N, 2).
        expression: (N, C) probabilities.
        aus: (N, U) probabilities.
    """

    ids: list[str]
    groups: list[str]
    truth: Truth
    valence_arousal: Numbers
    expression: Numbers
    aus: Numbers

    def answers(self, thresholds: Numbers = HALF) -> Answers:
        """The likeliest class, and the units whose probability reaches their threshold (U,)."""
        return Answers(self.valence_arousal, self.expression.argmax(axis=1), self.aus >= thresholds)


def evaluation_of(asked: Asked) -> Evaluation:
    """What EMMA's predictions say in numbers and probabilities."""
    predictions = Predictions(*asked.said)
    return Evaluation(
        asked.truth.ids,
        asked.truth.groups,
        truth_from(asked.truth.targets),
        predictions.valence_arousal.double().numpy(),
        predictions.expression.double().softmax(dim=1).numpy(),
        predictions.aus.double().sigmoid().numpy(),
    )


def expressions_of(asked: Asked) -> Evaluation:
    """What CoTEX says: views (N, V, C), whose logits are summed; of the rest it says nothing."""
    logits = asked.said[0].double().sum(dim=1)
    count = len(logits)
    return Evaluation(
        asked.truth.ids,
        asked.truth.groups,
        truth_from(asked.truth.targets),
        np.zeros((count, 2)),
        logits.softmax(dim=1).numpy(),
        np.zeros((count, len(AUS))),
    )


def predictions_table(
    evaluation: Evaluation, answers: Answers, fold: int, classes: Sequence[str]
) -> pd.DataFrame:
    """A row per picture: who, truth, prediction, probabilities; truth is null where not known.

    Args:
        evaluation: Of the test pictures.
        answers: Of the same, by whatever thresholds.
        fold: Its number.
        classes: C names.
    """
    truth = evaluation.truth
    columns: dict[str, object] = {
        "fold": fold,
        "image": evaluation.ids,
        "group": evaluation.groups,
    }
    for i, name in enumerate(("valence", "arousal")):
        known = truth.valence_arousal_known[:, i]
        columns[f"actual_{name}"] = np.where(known, truth.valence_arousal[:, i], np.nan)
        columns[f"predicted_{name}"] = answers.valence_arousal[:, i]
    labels = zip(truth.expression, truth.expression_known, strict=True)
    columns["actual"] = [classes[label] if known else None for label, known in labels]
    columns["predicted"] = [classes[label] for label in answers.expression]
    for i, name in enumerate(classes):
        columns[f"probability_{name}"] = evaluation.expression[:, i]
    for i, unit in enumerate(AUS):
        active = pd.array(truth.aus[:, i].tolist(), dtype="boolean")
        active[~truth.aus_known[:, i]] = pd.NA
        columns[f"actual_au{unit}"] = active
        columns[f"predicted_au{unit}"] = answers.aus[:, i]
        columns[f"probability_au{unit}"] = evaluation.aus[:, i]
    return pd.DataFrame(columns).sort_values("image", ignore_index=True)
