"""Subject-independent folds: nobody who is tested was seen in training or model selection.

Source: MTCAE-DFER, section IV.A (5-fold, subject-independent; the paper does not publish its
folds).
"""

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.data.clips import Clip
from pipeline.files import write_json


class Fold(NamedTuple):
    """Subjects of one fold; the three lists are disjoint and sorted."""

    fold: int
    train: list[str]
    validation: list[str]
    test: list[str]


def subject_folds(
    clips: Sequence[Clip], *, num_folds: int, validation_fraction: float, seed: int
) -> list[Fold]:
    """Split subjects into folds, numbered from 1, with classes and sexes as even as can be.

    Every subject is tested in exactly one fold. Of the other subjects about `validation_fraction`
    are held out to choose the epoch; the rest are trained on.

    Raises:
        ValueError: There are too few subjects, or a class is missing from the training part of a
        fold.
    """
    subjects = sorted({clip.subject for clip in clips})
    # One to test, one to validate and one to train on must remain, also when a fold tests two.
    fewest = max(num_folds, 4 if num_folds == 2 else 3)
    if len(subjects) < fewest:
        raise ValueError(
            f"{len(subjects)} subject(s) ({', '.join(subjects)}) cannot make {num_folds} "
            f"subject-independent folds; at least {fewest} are needed: lower split.num_folds and "
            "folds, or add subjects"
        )
    folds = []
    for number, (others, test) in enumerate(_split(clips, num_folds, seed), start=1):
        rest = [clips[i] for i in others]
        num_parts = min(round(1 / validation_fraction), len({clip.subject for clip in rest}))
        train, validation = next(_split(rest, num_parts, seed))
        fold = Fold(
            number,
            train=sorted({rest[i].subject for i in train}),
            validation=sorted({rest[i].subject for i in validation}),
            test=sorted({clips[i].subject for i in test}),
        )
        for part in ("train", "validation", "test"):
            if not getattr(fold, part):
                raise ValueError(
                    f"fold {number} has no {part} subjects: too few subjects, or too uneven ones, "
                    f"for {num_folds} folds; lower split.num_folds and folds, or add subjects"
                )
        trained = {clip.label for clip in clips if clip.subject in fold.train}
        if missing := {clip.label for clip in clips} - trained:
            raise ValueError(
                f"fold {number} would train without any clip of {', '.join(sorted(missing))}: "
                "too few subjects show it; add clips, or lower split.num_folds"
            )
        folds.append(fold)
    return folds


def _split(
    clips: Sequence[Clip], num_parts: int, seed: int
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    splitter = StratifiedGroupKFold(num_parts, shuffle=True, random_state=seed)
    # With few clips the strata are coarser: scikit-learn wants one that reaches into every part.
    strata = next(
        names
        for names in (
            [f"{clip.label} {clip.sex}" for clip in clips],
            [clip.label for clip in clips],
            [""] * len(clips),
        )
        if max(Counter(names).values()) >= num_parts
    )
    subjects = [clip.subject for clip in clips]
    with warnings.catch_warnings():
        # A class with fewer clips than folds is checked above, with a message that says what to do.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        yield from splitter.split(clips, strata, subjects)


def write_folds(path: Path, folds: list[Fold]) -> None:
    """Write the folds as JSON."""
    write_json(path, [fold._asdict() for fold in folds])


def read_fold(path: Path, number: int) -> Fold:
    """Read one fold of what `write_folds` wrote.

    Raises:
        ValueError: There is no fold of that number.
    """
    folds = [Fold(**fold) for fold in json.loads(path.read_text(encoding="utf-8"))]
    for fold in folds:
        if fold.fold == number:
            return fold
    raise ValueError(
        f"{path} has the folds 1 to {len(folds)}, not {number}; check `folds` in params.yaml"
    )
