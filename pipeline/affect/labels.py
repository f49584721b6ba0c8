"""What is known of an image's expression, valence, arousal and action units; one manifest for all.

Shape letters: N images, C classes, U action units.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline.affect.metrics import Truth
from pipeline.common.files import atomic_path
from pipeline.store.batch import Target

# In the order of s-Aff-Wild2's numbers, in the project's vocabulary.
EXPRESSIONS = ("neutral", "angry", "disgust", "fear", "happy", "sad", "surprised", "other")
# By number in the Facial Action Coding System, in s-Aff-Wild2's order.
AUS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)


@dataclass(frozen=True)
class Labels:
    """None where something is not known.

    Attributes:
        expression: In the project's vocabulary.
        valence: In [-1, 1], unpleasant to pleasant.
        arousal: In [-1, 1], passive to active.
        aus: Whether each of AUS is active.
    """

    expression: str | None = None
    valence: float | None = None
    arousal: float | None = None
    aus: tuple[bool | None, ...] = (None,) * len(AUS)

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return self != Labels()


@dataclass(frozen=True)
class LabelledImage:
    """One image of a set.

    Attributes:
        id: Name that is unique in the set and safe in a file name or a WebDataset key.
        path: Of the file, relative to the folder of the set's images.
        group: What folds keep together: a recording or a person.
        part: `train`, `validation` or `test` where the set says so, or empty.
        labels: What is known of it.
        line: In the file that lists it, from 1; 0 where no file does.
    """

    id: str
    path: str
    group: str
    part: str
    labels: Labels
    line: int = 0


_AU_COLUMNS = [f"au{number}" for number in AUS]
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "path", "group", "part", "expression")),
        *((name, pa.float64()) for name in ("valence", "arousal")),
        *((name, pa.bool_()) for name in _AU_COLUMNS),
        ("line", pa.int64()),
    ]
)


def write_images(path: Path, images: Iterable[LabelledImage]) -> None:
    """Write a manifest as Parquet, in the order given; what is not known is null.

    The columns are id, path, group, part, expression, valence, arousal, au1 to au26 and line.
    """
    rows = [
        {
            "id": image.id,
            "path": image.path,
            "group": image.group,
            "part": image.part,
            "expression": image.labels.expression,
            "valence": image.labels.valence,
            "arousal": image.labels.arousal,
            **dict(zip(_AU_COLUMNS, image.labels.aus, strict=True)),
            "line": image.line,
        }
        for image in images
    ]
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), temporary)


def read_images(path: Path) -> list[LabelledImage]:
    """Read what `write_images` wrote."""
    return [_image(row) for row in pq.read_table(path, schema=_SCHEMA).to_pylist()]


def _image(row: Mapping[str, Any]) -> LabelledImage:
    aus = tuple(row[name] for name in _AU_COLUMNS)
    labels = Labels(row["expression"], row["valence"], row["arousal"], aus)
    return LabelledImage(row["id"], row["path"], row["group"], row["part"], labels, row["line"])


def truth_of(images: Sequence[LabelledImage], classes: Sequence[str]) -> Truth:
    """The labels of N images as arrays with masks.

    Args:
        images: N of them.
        classes: C names, in the order of the class indices.

    Raises:
        ValueError: An image's expression is none of the classes.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    for image in images:
        if image.labels.expression not in (None, *numbers):
            raise ValueError(
                f"the expression of {image.path} is {image.labels.expression!r}, none of "
                f"{', '.join(classes)}"
            )
    labels = [image.labels for image in images]
    pairs = [(one.valence, one.arousal) for one in labels]
    valence_arousal = np.array(pairs, np.float64).reshape(-1, 2)  # None becomes NaN
    expression = [-1 if one.expression is None else numbers[one.expression] for one in labels]
    aus = np.array([one.aus for one in labels], np.float64).reshape(-1, len(AUS))
    return Truth(
        np.nan_to_num(valence_arousal),
        ~np.isnan(valence_arousal),
        np.maximum(np.array(expression, np.int64), 0),
        np.array(expression, np.int64) >= 0,
        np.nan_to_num(aus) > 0,
        ~np.isnan(aus),
    )


def targets_of(truth: Truth) -> dict[str, Target]:
    """The same as a batch holds it: `valence_arousal` (N, 2), `expression` (N,), `aus` (N, U)."""

    def target(values: Any, known: Any) -> Target:
        return Target(torch.from_numpy(values), torch.from_numpy(known))

    return {
        "valence_arousal": target(
            truth.valence_arousal.astype(np.float32), truth.valence_arousal_known
        ),
        "expression": target(truth.expression, truth.expression_known),
        "aus": target(truth.aus.astype(np.float32), truth.aus_known),
    }


def truth_from(targets: Mapping[str, Target]) -> Truth:
    """What `targets_of` made of it."""
    numbers, expression, aus = (targets[name] for name in ("valence_arousal", "expression", "aus"))
    return Truth(
        numbers.values.double().numpy(),
        numbers.known.numpy(),
        expression.values.numpy(),
        expression.known.numpy(),
        aus.values.numpy() > 0,
        aus.known.numpy(),
    )
