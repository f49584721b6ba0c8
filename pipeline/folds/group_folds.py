"""Folds of whole subjects: nobody who is tested was seen in training or in the choice of the epoch.

Source: MTCAE-DFER, section IV.A (5-fold, subject-independent; the paper does not publish its
folds).
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.common.clips import StoredClip
from pipeline.folds.draw import draw_subjects
from pipeline.folds.folds import PARTS, GroupFold
from pipeline.folds.protocols import PublishedProtocol


def balanced_tests(clips: Sequence[StoredClip], num_folds: int, seed: int) -> list[list[str]]:
    """Test subjects of each fold, with classes and sexes as even as can be.

    Every subject is tested in exactly one fold, and every fold tests somebody.

    Raises:
        ValueError: There are too few subjects.
    """
    subjects = _subjects(clips)
    # Besides who is tested, one to validate and one to train on must remain: of two folds each
    # trains on those whom the other tests.
    fewest_tested = 2 if num_folds == 2 else 1
    fewest = max(num_folds * fewest_tested, 3)
    if len(subjects) < fewest:
        raise ValueError(
            f"{len(subjects)} subject(s) ({', '.join(subjects)}) cannot make {num_folds} "
            f"subject-independent folds; at least {fewest} are needed: lower split.num_folds and "
            "folds, or add subjects"
        )
    tests = [_subjects(clips[i] for i in test) for _, test in _split(clips, num_folds, seed)]
    # Where subjects are few and uneven, scikit-learn's even classes can leave a fold empty.
    num_clips = Counter(clip.group for clip in clips)
    for test in tests:
        while len(test) < fewest_tested:
            largest = max(tests, key=len)
            moved = min(largest, key=lambda subject: (num_clips[subject], subject))
            largest.remove(moved)
            test.append(moved)
    return [sorted(test) for test in tests]


def make_folds(
    clips: Sequence[StoredClip],
    tests: Sequence[Sequence[str]],
    *,
    validation_fraction: float,
    seed: int,
    validation: Sequence[str] = (),
) -> list[GroupFold]:
    """Folds, numbered from 1, out of the test subjects of each.

    Args:
        clips: All usable clips.
        tests: Test subjects of each fold.
        validation_fraction: As close as can be to this part of the other subjects chooses the
            epoch.
        seed: Of that choice.
        validation: Subjects who choose the epoch in every fold, in place of a drawn part.

    Raises:
        ValueError: A fold has too few subjects, or its training part lacks a class.
    """
    folds = []
    for number, test in enumerate(tests, start=1):
        tested = set(test)
        others = [clip for clip in clips if clip.group not in tested]
        chosen = sorted(validation) or draw_part(others, validation_fraction, seed, num_others=1)
        fold = GroupFold(
            number,
            train=sorted({clip.group for clip in others}.difference(chosen)),
            validation=chosen,
            test=sorted(test),
        )
        train = set(fold.train)
        trained = {clip.label for clip in clips if clip.group in train}
        if missing := {clip.label for clip in clips} - trained:
            raise ValueError(
                f"fold {number} would train without any clip of {', '.join(sorted(missing))}: "
                "too few subjects show it; add clips, or make fewer folds"
            )
        folds.append(fold)
    return folds


def published_folds(
    clips: Sequence[StoredClip],
    protocol: PublishedProtocol,
    *,
    validation_fraction: float,
    seed: int,
) -> list[GroupFold]:
    """Folds of a published protocol, whose subjects and classes must be there to the last one.

    Raises:
        ValueError: The clips lack a subject or a class of the protocol, or have one too many.
    """
    for kind, found, expected in (
        ("subjects", set(_subjects(clips)), set().union(*protocol.tests)),
        ("classes", {clip.label for clip in clips}, protocol.classes),
    ):
        if found != expected:
            raise ValueError(
                f"the protocol's {kind} differ from the clips': missing are "
                f"{', '.join(sorted(expected - found)) or 'none'}, too many are "
                f"{', '.join(sorted(found - expected)) or 'none'}; complete the data set, correct "
                "its `classes` in params.yaml, or choose another split.protocol"
            )
    return make_folds(clips, protocol.tests, validation_fraction=validation_fraction, seed=seed)


def holdout_fold(
    clips: Sequence[StoredClip], *, test_fraction: float, validation_fraction: float, seed: int
) -> list[GroupFold]:
    """One fold, as the table's `split` column says or, where it is empty, with drawn subjects.

    Raises:
        ValueError: Only some clips have a `split`, or a subject stands in two parts.
    """
    if not any(clip.split for clip in clips):
        test = draw_part(clips, test_fraction, seed, num_others=2)
        return make_folds(clips, [test], validation_fraction=validation_fraction, seed=seed)
    refuse_no_part(clips)
    if several := [clip for clip in clips if len(clip.split.split()) > 1]:
        raise ValueError(
            f"{several[0].path} has a part in each of several folds ({several[0].split}), and "
            "protocol holdout is one fold; choose split.protocol official"
        )
    parts = {part: _subjects(c for c in clips if c.split == part) for part in PARTS}
    for part in ("train", "test"):
        if not parts[part]:
            raise ValueError(f"the table's column `split` says {part} in no row")
    for one, other in combinations(PARTS, 2):
        if shared := set(parts[one]) & set(parts[other]):
            raise ValueError(
                f"{', '.join(sorted(shared))} stand(s) in the table as {one} and as {other}; all "
                "clips of a person belong into one part"
            )
    return make_folds(
        clips,
        [parts["test"]],
        validation_fraction=validation_fraction,
        seed=seed,
        validation=parts["validation"],
    )


def refuse_no_part(clips: Sequence[StoredClip]) -> None:
    """Raises ValueError where a clip has no part of its own; see `Clip.split`."""
    if without := [clip.path for clip in clips if not clip.split]:
        raise ValueError(
            f"{len(without)} clips have no split ({', '.join(without[:3])} ...); fill the column "
            "in for all rows or for none"
        )


def _subjects(clips: Iterable[StoredClip]) -> list[str]:
    return sorted({clip.group for clip in clips})


def draw_part(
    clips: Sequence[StoredClip], fraction: float, seed: int, *, num_others: int
) -> list[str]:
    """As close as can be to that fraction of the subjects, so that some others remain.

    Raises:
        ValueError: There are too few subjects.
    """
    subjects = _subjects(clips)
    if len(subjects) <= num_others:
        raise ValueError(
            f"{len(subjects)} subject(s) ({', '.join(subjects)}) cannot be divided into "
            f"{num_others + 1} parts; at least three are needed in all, to train, to choose the "
            "epoch and to test"
        )
    size = min(max(round(fraction * len(subjects)), 1), len(subjects) - num_others)
    return draw_subjects(clips, size, seed)


def _split(
    clips: Sequence[StoredClip], num_parts: int, seed: int
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
    subjects = [clip.group for clip in clips]
    with warnings.catch_warnings():
        # A class with fewer clips than folds is checked above, with a message that says what to do.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        yield from splitter.split(clips, strata, subjects)
