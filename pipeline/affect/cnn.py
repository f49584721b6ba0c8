"""The frozen CNN whose scores EMMA reads: a network that people have, or a table of its scores.

It is no part of the model that is trained. Class names belong to every set of scores.

Shape letters: B pictures, S side in pixels, P side that a network reads, K classes of the CNN.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from pipeline.affect.labels import LabelledImage
from pipeline.common.params import Section
from pipeline.common.strangers import check_regular, refusing, words_of
from pipeline.common.vocabulary import normalise_label
from pipeline.models.vit import IMAGENET_MEAN, IMAGENET_STD
from pipeline.store.batch import Batch

Normalisation = Literal["imagenet", "half"]
_NORMALISATIONS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


class CNNSettings(Section):
    """Which CNN.

    Attributes:
        weights: The file, in the folder `weights`; empty for none.
        family: `dan`, `timm:` and the name of a network of timm, `onnx`, `scores` for a table of
            what any CNN says, or `auto`, where the file tells.
        classes: What the numbers stand for, in order; empty where the file or the family tells.
        size: P, in pixels; 0 where the file or the family tells.
        normalisation: What the network expects: pixels from 0 to 1 less the mean and over the
            deviation of `imagenet`, or, for `half`, of one half each.
    """

    weights: str
    family: Annotated[str, Field(pattern=r"^(auto|dan|onnx|scores|timm:[\w.]+)$")]
    classes: tuple[str, ...]
    size: NonNegativeInt
    normalisation: Normalisation


class ScoreSource(Protocol):
    """Says K numbers of each picture.

    Attributes:
        classes: K names, in the project's vocabulary where it has them.
    """

    @property
    def classes(self) -> tuple[str, ...]: ...

    def __call__(self, batch: Batch, /) -> Tensor:
        """(B, K) on the device of the batch, without gradient."""
        ...


class NoCNN:
    """No score of any picture."""

    classes: tuple[str, ...] = ()

    def __call__(self, batch: Batch, /) -> Tensor:
        return batch.inputs.new_empty((len(batch), 0), dtype=torch.float32)


class FrozenCNN(nn.Module):
    """A network in evaluation mode, whatever mode its parent is put in.

    Args:
        network: From normalised pictures (B, 3, P, P) to logits (B, K).
        classes: K names.
        size: P.
        normalisation: Of the pictures.
        source: Of the network, for errors.

    Raises:
        ValueError: The network says another number of things than there are names.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        classes: Sequence[str],
        *,
        size: int,
        normalisation: Normalisation,
        source: str,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.classes = tuple(normalise_label(name) for name in classes)
        self.size = size
        mean, std = _NORMALISATIONS[normalisation]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.eval()
        shape = tuple(self.score(torch.zeros(1, 3, size, size)).shape)
        if shape != (1, len(classes)):
            raise ValueError(
                f"{source} says {shape[-1]} numbers of a picture, and {len(classes)} classes are "
                f"named: {', '.join(classes) or 'none'}"
            )

    def forward(self, batch: Batch) -> Tensor:
        """The scores (B, K) of pictures (B, 3, S, S), RGB, uint8 from 0 to 255 or from 0 to 1."""
        self.to(batch.inputs.device)
        pixels = batch.inputs
        return self.score(pixels if pixels.is_floating_point() else pixels / 255)

    @torch.no_grad()
    def score(self, pixels: Tensor) -> Tensor:
        """The scores of pictures from 0 to 1."""
        if pixels.shape[-1] != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        with torch.autocast(pixels.device.type, enabled=False):
            scores: Tensor = self.network((pixels.float() - self.mean) / self.std)
        return scores.float()

    def train(self, mode: bool = True) -> Self:
        """Evaluation mode, always: statistics of a batch would make a picture's scores others."""
        return super().train(False)


class ScoreTable:
    """What a CNN said of the images, looked up by their names.

    Args:
        classes: K names.
        scores: By the image's id.
    """

    def __init__(self, classes: Sequence[str], scores: dict[str, list[float]]) -> None:
        self.classes = tuple(classes)
        self.scores = scores

    def __call__(self, batch: Batch, /) -> Tensor:
        rows = [self.scores[name] for name in batch.ids]
        return torch.tensor(rows, dtype=torch.float32, device=batch.inputs.device)


def read_score_table(
    file: Path, images: Sequence[LabelledImage], classes: Sequence[str]
) -> ScoreTable:
    """A table with the column `path` and a column of numbers for each class.

    Args:
        file: CSV or Parquet.
        images: Of which scores are needed.
        classes: Columns that are taken, in order; empty for all.

    Raises:
        ValueError: A column is missing, an image has no row or several, or a score is no number.
    """
    check_regular(file)
    with refusing(lambda error: ValueError(f"{file} cannot be read as a table: {words_of(error)}")):
        table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    table = table.rename(columns=lambda name: normalise_label(str(name)))
    names = [normalise_label(name) for name in classes]
    names = names or [name for name in table.columns if name != "path"]
    missing = [name for name in ("path", *names) if name not in table.columns]
    if missing or not names or len(set(table.columns)) < len(table.columns):
        raise ValueError(
            f"{file} has the columns {', '.join(table.columns)}: `path` and one for each class, "
            f"each once, are needed; missing: {', '.join(missing) or 'none'}"
        )
    numbers = table[names].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers).all(axis=1))[0])
        raise ValueError(f"{file}: a score of {table['path'].iloc[row]} is no number")
    paths = table["path"].astype(str).tolist()
    if len(set(paths)) < len(paths):
        raise ValueError(f"{file}: {table['path'][table['path'].duplicated()].iloc[0]} twice")
    by_path = dict(zip(paths, numbers.tolist(), strict=True))
    if lacking := [image.path for image in images if image.path not in by_path]:
        raise ValueError(
            f"{file} has no scores of {len(lacking)} of {len(images)} images, such as {lacking[0]}"
        )
    return ScoreTable(names, {image.id: by_path[image.path] for image in images})
