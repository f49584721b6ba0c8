"""Folds of the images of a set by whole groups, as the set publishes them or drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.affect.labels import LabelledImage
from pipeline.common.encoder_weights import History
from pipeline.common.files import atomic_path
from pipeline.common.params import Section

PARTS = ("train", "validation", "test")
_IMAGE = "image"


class SplitSettings(Section):
    """Who is tested.

    Attributes:
        protocol: `folds`: every group is tested once, whatever part the set puts it into;
            `official`: the set's test part, or else its validation part, is tested once.
        num_folds: Of protocol `folds`.
        validation_fraction: Of the groups that are not tested: they choose the epoch, thresholds
            and smoothing.
        seed: Of what is drawn.
    """

    protocol: Literal["folds", "official"]
    num_folds: Annotated[int, Field(ge=2)]
    validation_fraction: Annotated[float, Field(gt=0, lt=1)]
    seed: Annotated[int, Field(ge=0)]


class ImageFold(NamedTuple):
    """One fold.

    Attributes:
        number: From 1.
        parts: `train`, `validation` or `test`, by the image's id.
    """

    number: int
    parts: dict[str, str]

    def rows(self, images: Sequence[LabelledImage], part: str) -> list[int]:
        """Where the images of a part stand in a manifest."""
        return [i for i, image in enumerate(images) if self.parts.get(image.id) == part]

    def groups(self, images: Sequence[LabelledImage], *parts: str) -> list[str]:
        """Who is in these parts, sorted."""
        return sorted({image.group for image in images if self.parts.get(image.id) in parts})


def make_folds(images: Sequence[LabelledImage], settings: SplitSettings) -> list[ImageFold]:
    """Folds, numbered from 1.

    Raises:
        ValueError: There are too few groups, or the set has no parts of its own.
    """
    if settings.protocol == "official":
        tested = [_official_test(images)]
    else:
        tested = _drawn_tests(images, settings)
    folds = []
    for number, test in enumerate(tested, start=1):
        rest = sorted({image.group for image in images} - test)
        size = max(1, round(settings.validation_fraction * len(rest)))
        if size >= len(rest):
            raise ValueError(
                f"fold {number} has {len(rest)} group(s) to train on and to validate with; at "
                "least two are needed: add groups, or make more folds"
            )
        random = np.random.default_rng((settings.seed, number))
        validation = {rest[i] for i in random.permutation(len(rest))[:size]}
        parts = {image.id: _part(image.group, test, validation) for image in images}
        folds.append(ImageFold(number, parts))
    return folds


def _part(group: str, test: set[str], validation: set[str]) -> str:
    if group in test:
        return "test"
    return "validation" if group in validation else "train"


def _official_test(images: Sequence[LabelledImage]) -> set[str]:
    by_part = {part: {i.group for i in images if i.part == part} for part in PARTS}
    part = "test" if by_part["test"] else "validation"
    if not by_part["train"] or not by_part[part]:
        raise ValueError(
            "split.protocol: official needs a set that says which images are for training and "
            "which for validation or the test; take protocol: folds"
        )
    others = set().union(*(groups for name, groups in by_part.items() if name != part))
    if shared := sorted(by_part[part] & others):
        raise ValueError(
            f"{len(shared)} groups, such as {shared[0]}, are in the {part} part and in another "
            "one; correct the lists, or take protocol: folds"
        )
    return by_part[part]


def _drawn_tests(images: Sequence[LabelledImage], settings: SplitSettings) -> list[set[str]]:
    """Expressions as even as can be; unknown ones count as one more."""
    groups = [image.group for image in images]
    if len(set(groups)) < settings.num_folds + 1:
        raise ValueError(
            f"{len(set(groups))} group(s) cannot make {settings.num_folds} folds with somebody to "
            "train on, to validate with and to test; lower split.num_folds, or add groups"
        )
    labels = [image.labels.expression or "" for image in images]
    splitter = StratifiedGroupKFold(settings.num_folds, shuffle=True, random_state=settings.seed)
    found = [{groups[i] for i in test} for _, test in splitter.split(groups, labels, groups)]
    if not all(found):
        raise ValueError(
            f"a fold of {settings.num_folds} would test nobody; lower split.num_folds, or add "
            "groups"
        )
    return found


def write_folds(path: Path, images: Sequence[LabelledImage], folds: Sequence[ImageFold]) -> None:
    """A CSV table: `image`, and a column per fold with the part of the image."""
    columns = {f"fold{fold.number}": [fold.parts[i.id] for i in images] for fold in folds}
    with atomic_path(path) as temporary:
        table = pd.DataFrame({_IMAGE: [image.id for image in images], **columns})
        table.to_csv(temporary, index=False)


def read_fold(path: Path, number: int) -> ImageFold:
    """One fold of what `write_folds` wrote.

    Raises:
        ValueError: There is no fold of that number.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if f"fold{number}" not in table:
        raise ValueError(
            f"{path} has the folds 1 to {len(table.columns) - 1}, not {number}; check `folds`"
        )
    parts = zip(table[_IMAGE], table[f"fold{number}"], strict=True)
    return ImageFold(number, {image: part for image, part in parts if part})


def refuse_leaks(fold: ImageFold, images: Sequence[LabelledImage]) -> None:
    """Check that nobody who is tested is in another part.

    Raises:
        ValueError: A group is in two parts.
    """
    tested = set(fold.groups(images, "test"))
    if shared := sorted(tested.intersection(fold.groups(images, "train", "validation"))):
        raise ValueError(
            f"fold {fold.number} is not trained: {len(shared)} of its {len(tested)} tested groups, "
            f"such as {shared[0]}, are in another part as well; run stage split again"
        )


def refuse_seen(
    history: History, what: str, identity: str, fold: ImageFold, images: Sequence[LabelledImage]
) -> None:
    """Check that the prior or the CNN has seen nobody who is tested.

    Args:
        history: Of its weights; one that nobody knows passes.
        what: `prior` or `cnn`, for the message.
        identity: Of the set.
        fold: Whose test groups are meant.
        images: Of the set.

    Raises:
        ValueError: It has.
    """
    tested = fold.groups(images, "test")
    if seen := history.seen_of(identity, tested):
        raise ValueError(
            f"fold {fold.number} is not trained: its {what} has seen {len(seen)} of the "
            f"{len(tested)} groups that it tests ({', '.join(seen[:10])}); take weights that were "
            "made without them, or draw other people (people.seed)"
        )
