"""Why a row of the user's table cannot be used, each reason with what to do about it."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath

from pipeline.common.clips import SUBJECT, Clip, Refusal
from pipeline.datasets.paths import VideoFolder
from pipeline.datasets.subjects import same_person

Check = Callable[[Clip], Iterator[Refusal]]


def refuse(clips: list[Clip], check: Check) -> list[Clip]:
    """The clips, the usable ones refused for the first thing that `check` finds."""
    refusals = [None if clip.reason else next(check(clip), None) for clip in clips]
    return [
        clip.refuse(refusal) if refusal else clip
        for clip, refusal in zip(clips, refusals, strict=True)
    ]


def check_words(classes: list[str]) -> Check:
    def check(clip: Clip) -> Iterator[Refusal]:
        # A clip without a film stands for itself.
        names = ("path", "subject", "label") if clip.group_kind == SUBJECT else ("path", "label")
        for column in names:
            if not getattr(clip, column):
                yield Refusal("empty_cell", f"the {column} is empty; fill it in or delete the row")
        if clip.label not in classes:
            yield Refusal(
                "unknown_label",
                f"label {clip.label!r} is none of {', '.join(classes)}; correct it, or add it to "
                "the data set's `classes` in params.yaml",
            )
        if not {"train", "validation", "test"}.issuperset(clip.split.split()):
            yield Refusal(
                "unknown_split",
                f"split {clip.split!r} is none of train, validation, test, nor the number of the "
                "fold that tests the clip; correct it or leave it empty",
            )

    return check


def check_path(videos: VideoFolder) -> Check:
    def check(clip: Clip) -> Iterator[Refusal]:
        # Either kind of slash parts folders.
        path = PureWindowsPath(clip.path)
        if path.root or ".." in path.parts:
            yield Refusal(
                "outside",
                f"{clip.path} leads out of the videos' folder; give a path relative to it",
            )
            return
        try:
            found = videos.find(clip.path)
            if len(found) == 1:
                check_open(videos.root / found[0])
        except OSError as error:
            yield Refusal("unreachable", f"{clip.path} cannot be opened: {error.strerror}")
            return
        if not found:
            yield Refusal(
                "missing",
                f"{clip.path} is not in the videos' folder; correct the path or copy the file",
            )
        elif len(found) > 1:
            yield Refusal(
                "ambiguous",
                f"{clip.path} is none of {' and '.join(map(ascii, found))} exactly, which look "
                "alike and differ in how accents are stored; rename all but one",
            )

    return check


def check_open(path: Path) -> None:
    """Raises OSError where a file or a folder cannot be opened."""
    if path.is_dir():
        os.scandir(path).close()
    else:
        path.open("rb").close()


def check_repeats(clips: list[Clip]) -> Check:
    first: dict[str, Clip] = {}
    labels: dict[str, set[tuple[str, str]]] = {}
    for clip in clips:
        first.setdefault(clip.path, clip)
        labels.setdefault(clip.path, set()).add((clip.subject, clip.label))

    def check(clip: Clip) -> Iterator[Refusal]:
        original = first[clip.path]
        if len(labels[clip.path]) > 1:
            yield Refusal(
                "contradiction",
                f"{clip.path} stands in the table with different subjects or labels (first in row "
                f"{original.row}); keep the row that is right",
            )
        elif clip.row != original.row:
            yield Refusal("duplicate", f"repeats row {original.row}; delete one of the two")

    return check


def check_spelling(clips: list[Clip]) -> Check:
    people = [clip for clip in clips if clip.group_kind == SUBJECT]
    count = Counter(clip.subject for clip in people)
    # The most frequent spelling is right, or the first of two that are equally frequent.
    right = {
        subject: max(spellings, key=count.__getitem__)
        for subject, spellings in same_person(count).items()
    }

    def check(clip: Clip) -> Iterator[Refusal]:
        expected = right.get(clip.subject)
        if expected and clip.subject != expected:
            yield Refusal(
                "subject_spelling",
                f"subject {clip.subject!r} is elsewhere spelled {expected!r}; one person under two "
                "names could be trained and tested on, so write one spelling (or, if these are two "
                "people, names that differ in more than this)",
            )

    return check
