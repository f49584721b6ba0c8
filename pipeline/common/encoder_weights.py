"""What an encoder starts from: the folder in which stage weights puts it, and whom it has seen."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from pipeline.common.params import Section
from pipeline.common.strangers import check_regular

CHECKPOINT, CARD = "checkpoint", "card.json"
# In the card, where the user wants it: those may be tested whom the weights have seen.
ALLOW_SEEN = "allow_seen"
# In the header of a safetensors file.
_HISTORY = "history"


class History(Section):
    """What the weights of an encoder have been trained on, or were chosen by.

    Attributes:
        known: Whether anybody says so; False for a file that tells nothing.
        trained_on: In words, for published weights.
        groups: The groups (subjects) of each of this project's data sets that they have seen.
    """

    known: bool
    trained_on: str
    groups: dict[str, list[str]]

    @classmethod
    def empty(cls) -> Self:
        """Of random weights."""
        return cls(known=True, trained_on="", groups={})

    def with_groups(self, dataset: str, groups: list[str]) -> "History":
        """After more training."""
        seen = {*self.groups.get(dataset, []), *groups}
        return self.model_copy(update={"groups": {**self.groups, dataset: sorted(seen)}})

    def seen_of(self, dataset: str, groups: Collection[str]) -> list[str]:
        """Which of these groups of a data set the weights have seen, sorted."""
        return sorted({*groups}.intersection(self.groups.get(dataset, [])))

    def header(self) -> dict[str, str]:
        """As the metadata of a safetensors file: a single entry, because several are shuffled."""
        return {_HISTORY: json.dumps(self.model_dump(), sort_keys=True)}

    def in_words(self) -> str:
        """For tables."""
        if not self.known:
            return "nobody knows what it has seen"
        seen = [
            f"{len(groups)} {'subject' if len(groups) == 1 else 'subjects'} of {name}"
            for name, groups in self.groups.items()
        ]
        return "has seen " + ", ".join([*([self.trained_on] if self.trained_on else []), *seen])


def read_history(path: Path) -> History:
    """The history that a file carries, as all files do that this project writes.

    Raises:
        ValueError: It carries one that cannot be read.
    """
    check_regular(path)
    try:
        with safe_open(path, "numpy") as file:
            written = (file.metadata() or {}).get(_HISTORY)
    except SafetensorError:
        written = None
    if written is None:
        return History(known=False, trained_on="", groups={})
    try:
        return History.model_validate_json(written)
    except ValidationError as error:
        raise ValueError(f"{path}: its header holds a damaged history: {error}") from error


def checkpoint_in(folder: Path) -> Path | None:
    """The checkpoint; None where the encoder starts from random numbers."""
    return path if (path := folder / CHECKPOINT).is_file() else None


def card_in(folder: Path) -> dict[str, Any]:
    """What is known of it: name, history, SHA-256, and of published weights their licence."""
    card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
    return card


def history_in(folder: Path) -> History:
    """Whom it has seen."""
    return History.model_validate(card_in(folder)["history"])
