"""The folder of stage cnn: a frozen CNN, or none, and what it says of every stored picture.

    card.json        see `CNNRecord`
    scores.parquet   `image` and a column per class, of the whole pictures
    <file>           the network; none where `scores` came as a table

Shape letters: N pictures, K classes.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from pipeline.affect.cnn import CNNSettings, FrozenCNN, NoCNN, ScoreSource, ScoreTable
from pipeline.affect.cnn_files import open_scores
from pipeline.affect.labels import LabelledImage
from pipeline.affect.stored import StoredSet
from pipeline.common.encoder_weights import CARD, History
from pipeline.common.files import atomic_path, sha256_of, write_json
from pipeline.common.params import Section

SCORES = "scores.parquet"
_IMAGE = "image"
_AT_ONCE = 64


class CNNRecord(Section):
    """What is known of the CNN.

    Attributes:
        settings: Of which `weights` is the file beside the card; empty for no CNN.
        classes: K names.
        history: Whom it has seen.
        digest: SHA-256 of that file, in hexadecimal; empty for no CNN.
    """

    settings: CNNSettings
    classes: tuple[str, ...]
    history: History
    digest: str


def store_no_cnn(out: Path, settings: CNNSettings) -> None:
    """Leave word that there is none."""
    none = settings.model_copy(update={"weights": ""})
    record = CNNRecord(settings=none, classes=(), history=History.empty(), digest="")
    write_json(out / CARD, record.model_dump())


def store_cnn(
    out: Path,
    settings: CNNSettings,
    file: Path,
    history: History,
    sets: Sequence[StoredSet],
) -> ScoreSource:
    """Keep the CNN and what it says of the pictures of some sets.

    Args:
        out: To write.
        settings: Which CNN.
        file: Of it.
        history: Whom it has seen.
        sets: Whose pictures.
    """
    images = [image for stored in sets for image in stored.images]
    cnn = open_scores(settings, file, images)
    rows = [row for stored in sets for row in _scores(cnn, stored)]
    table = pd.DataFrame(np.array(rows, np.float32).reshape(-1, len(cnn.classes)))
    table.columns = pd.Index(cnn.classes)
    table.insert(0, _IMAGE, [image.id for image in images])
    with atomic_path(out / SCORES) as temporary:
        table.to_parquet(temporary, index=False)
    if isinstance(cnn, FrozenCNN) and file.parent != out:
        shutil.copyfile(file, out / file.name)
    kept = settings.model_copy(update={"weights": file.name})
    record = CNNRecord(settings=kept, classes=cnn.classes, history=history, digest=sha256_of(file))
    write_json(out / CARD, record.model_dump())
    return cnn


def read_record(folder: Path) -> CNNRecord:
    """What is known of the CNN in the folder."""
    return CNNRecord.model_validate_json((folder / CARD).read_text(encoding="utf-8"))


def open_stored(
    folder: Path, images: Sequence[LabelledImage], how: Literal["once", "view"]
) -> ScoreSource:
    """The CNN's scores: those that were stored, or of whatever the ViT sees.

    Raises:
        ValueError: A table cannot say anything of a view.
    """
    record = read_record(folder)
    if not record.settings.weights:
        return NoCNN()
    if how == "once":
        table = pd.read_parquet(folder / SCORES).set_index(_IMAGE)
        wanted = table.loc[[image.id for image in images]]
        return ScoreTable(
            record.classes, dict(zip(wanted.index, wanted.to_numpy().tolist(), strict=True))
        )
    file = folder / record.settings.weights
    if not file.is_file():
        raise ValueError(
            "cnn_scores: view needs the CNN itself, and frozen_cnn.weights is a table of scores; "
            "take cnn_scores: once"
        )
    return open_scores(record.settings, file, images)


@torch.no_grad()
def _scores(cnn: ScoreSource, stored: StoredSet) -> list[list[float]]:
    """A row of K numbers for each of N pictures."""
    if isinstance(cnn, ScoreTable):
        return [cnn.scores[image.id] for image in stored.images]
    assert isinstance(cnn, FrozenCNN)
    found: list[list[float]] = []
    for i in range(0, len(stored.images), _AT_ONCE):
        pixels = torch.from_numpy(np.array(stored.pixels[i : i + _AT_ONCE])).permute(0, 3, 1, 2)
        found += cnn.score(pixels / 255).tolist()
    return found
