"""The folds as a table of clips x folds that says the part of every clip, and the check for leaks.

What folds keep together is a group: the clips of a subject or, where nobody knows who is seen, of a
film, or one clip. The table is by clip, so that published folds by clip fit as well.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pipeline.common.clips import CLIP, StoredClip
from pipeline.common.files import atomic_path

PARTS = ("train", "validation", "test")


class GroupFold(NamedTuple):
    """Subjects of one fold; the three lists are disjoint and sorted."""

    number: int
    train: list[str]
    validation: list[str]
    test: list[str]


class Fold(NamedTuple):
    """One fold, clip by clip: the part of every clip that is in one."""

    number: int
    parts: dict[str, str]

    def rows(self, clips: Sequence[StoredClip], part: str) -> list[int]:
        """Where the clips of a part stand in a manifest."""
        return [i for i, clip in enumerate(clips) if self.parts.get(clip.clip) == part]


def refuse_leaks(fold: Fold, clips: Sequence[StoredClip]) -> None:
    """Check that nothing which is tested can have been seen before.

    Raises:
        ValueError: A subject, or one and the same sequence of frames, is in two parts.
    """
    part_of_subject: dict[str, str] = {}
    first_with: dict[str, StoredClip] = {}
    for clip in clips:
        part = fold.parts.get(clip.clip)
        if part is None:
            continue
        other = part_of_subject.setdefault(clip.group, part)
        if other != part:
            raise ValueError(
                f"fold {fold.number} is not trained: {clip.group_kind} {clip.group} is in {other} "
                f"and in {part}; run the split stage again"
            )
        twin = first_with.setdefault(clip.content, clip)
        if fold.parts[twin.clip] != part:
            kind = clip.group_kind
            both = "" if kind == CLIP else f", or give both the same {kind}"
            raise ValueError(
                f"fold {fold.number} is not trained: {twin.path} of {kind} {twin.group} "
                f"({fold.parts[twin.clip]}) and {clip.path} of {kind} {clip.group} ({part}) are "
                f"the same pictures; remove one{both}"
            )


def classes_lacking(fold: Fold, clips: Sequence[StoredClip]) -> dict[str, list[str]]:
    """Classes that the data set has and a part of the fold has not, for each part that lacks any.

    `{"validation": ["contempt"]}`: the UAR that chooses the epoch is over the other classes.
    """
    classes = {clip.label for clip in clips}
    lacking = {
        part: sorted(classes - {clips[row].label for row in fold.rows(clips, part)})
        for part in PARTS
    }
    return {part: names for part, names in lacking.items() if names}


def write_folds(path: Path, clips: Sequence[StoredClip], folds: Sequence[GroupFold]) -> None:
    """Write the folds as a CSV table: `clip`, and a column per fold with the part of the clip."""
    table = pd.DataFrame({"clip": [clip.clip for clip in clips]})
    for fold in folds:
        part_of = {subject: part for part in PARTS for subject in getattr(fold, part)}
        table[_column(fold.number)] = [part_of.get(clip.group, "") for clip in clips]
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def read_folds(path: Path) -> list[Fold]:
    """Read what `write_folds` wrote."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return [_fold(table, number) for number in range(1, len(table.columns))]


def read_fold(path: Path, number: int) -> Fold:
    """Read one fold of what `write_folds` wrote.

    Raises:
        ValueError: There is no fold of that number.
    """
    columns = pd.read_csv(path, nrows=0).columns
    if _column(number) not in columns:
        raise ValueError(
            f"{path} has the folds 1 to {len(columns) - 1}, not {number}; check `folds` in "
            "params.yaml"
        )
    wanted = ["clip", _column(number)]
    return _fold(pd.read_csv(path, usecols=wanted, dtype=str, keep_default_na=False), number)


def _column(number: int) -> str:
    return f"fold{number}"


def _fold(table: pd.DataFrame, number: int) -> Fold:
    parts = zip(table["clip"], table[_column(number)], strict=True)
    return Fold(number, {clip: part for clip, part in parts if part})
