"""The folder in which stage weights puts what an encoder starts from."""

import json
from pathlib import Path
from typing import Any

CHECKPOINT, CARD = "checkpoint", "card.json"


def checkpoint_in(folder: Path) -> Path | None:
    """The checkpoint; None where the encoder starts from random numbers."""
    return path if (path := folder / CHECKPOINT).is_file() else None


def card_in(folder: Path) -> dict[str, Any]:
    """What is known of it: name, SHA-256, and of published weights licence and training data."""
    card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
    return card
