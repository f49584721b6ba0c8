"""Lists of clips as a data set publishes them: what each shows, and its part in every fold.

Everything odd is named with its line. A clip that cannot be used is refused; what differs from the
published numbers is a remark.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pipeline.common.clips import CLIP, NO_PART, Clip, Refusal, unique_slugs
from pipeline.common.sources import videos_folder
from pipeline.datasets.table_text import decode

# What a listed clip may be called where it is a video.
_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".flv")


class Line(NamedTuple):
    """A line of a list.

    Attributes:
        text: Without spaces around it.
        place: `set_1.csv, line 2`, after the names of the folders in which lists differ.
    """

    text: str
    place: str


class Entry(NamedTuple):
    """A clip in a list; its label is a word of the project's vocabulary."""

    name: str
    label: str
    place: str


class ClipList(NamedTuple):
    """The entries of one part, `train` or `test`, of a fold from 1."""

    fold: int
    part: str
    entries: list[Entry]


def given_folder(source: Path | None, dataset: str) -> Path:
    """The user's copy of a data set that is given out by form.

    Raises:
        ValueError: None is named.
        FileNotFoundError: It is not there.
    """
    if source is None:
        raise ValueError(
            f"{dataset} is given out on request (datasets/{dataset}/README.md): name the folder "
            f"that it is unpacked to in datasets.{dataset}.source"
        )
    return videos_folder(source, dataset)


def find_below(source: Path, name: str) -> Path:
    """A path that is below the source, or below one of its folders.

    Raises:
        ValueError: It is there not at all, or several times.
    """
    found = [path for path in (source / name, *sorted(source.glob(f"*/{name}"))) if path.exists()]
    if not found:
        raise ValueError(f"no {name} in {source}, nor in one of its folders; complete the copy")
    if len(found) > 1:
        raise ValueError(f"{name} is there twice, as {found[0]} and {found[1]}; keep one")
    return found[0]


def read_lines(path: Path, place: str) -> list[Line]:
    """The lines that are not blank; a byte order mark and Windows' line ends are no content.

    Raises:
        ValueError: It is no text in UTF-8, or has no lines.
    """
    try:
        texts = decode(path.read_bytes()).splitlines()
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    lines = [
        Line(text.strip(), f"{place}, line {number}")
        for number, text in enumerate(texts, start=1)
        if text.strip()
    ]
    if not lines:
        raise ValueError(f"{path} has no lines; copy it again")
    return lines


def refuse_number(label: str, place: str) -> None:
    """Raises ValueError where a label is a number, which has another meaning in every code."""
    if re.fullmatch(r"[+-]?\d+", label):
        raise ValueError(
            f"{place}: label {label} is a number, and no order of classes is stated; take the "
            "published lists, whose labels are words"
        )


def listed_clips(
    lists: Sequence[ClipList], source: Path, place: str, classes: Sequence[str], dataset: str
) -> list[Clip]:
    """A clip for every name in the lists, in the order of names; its group is the clip itself.

    Args:
        lists: Of all folds.
        source: The folder that the clips' paths start from.
        place: Folder of the clips, relative to it.
        classes: That are known.
        dataset: Its name, for messages.

    Raises:
        ValueError: The folder of the clips is not there, or a label is none of the classes.
    """
    entries: dict[str, list[tuple[ClipList, Entry]]] = defaultdict(list)
    for one in lists:
        for entry in one.entries:
            entries[entry.name].append((one, entry))
    _refuse_unknown_labels(lists, classes, dataset)
    if not (source / place).is_dir():
        raise ValueError(
            f"datasets.{dataset}.clips is {place}, and {source} has no such folder; in it are "
            f"{', '.join(_folders(source)) or 'none'}"
        )
    num_folds = max(one.fold for one in lists)
    names = sorted(entries)
    stems = [PurePosixPath(name).with_suffix("").as_posix() for name in names]
    slugs = unique_slugs(stems if len(set(stems)) == len(stems) else names)
    clips = []
    for slug, name in zip(slugs, names, strict=True):
        found = find_clip(source / place, name)
        clip = Clip(
            clip=slug,
            path=(PurePosixPath(place) / (found or name)).as_posix(),
            subject=slug,
            label=entries[name][0][1].label,
            split=_parts(entries[name], num_folds),
            group_kind=CLIP,
        )
        refusal = next(_refusals(name, entries[name]), None)
        if not refusal and not found:
            message = f"{name} ({entries[name][0][1].place}) is not in {place}; copy it there"
            refusal = Refusal("missing", message)
        clips.append(clip.refuse(refusal) if refusal else clip)
    return clips


def find_clip(folder: Path, name: str) -> str | None:
    """Where a listed clip is in the folder: as it is listed, as pictures or as a video."""
    stem = PurePosixPath(name).with_suffix("").as_posix()
    names = (name, stem, *(f"{stem}{suffix}" for suffix in _SUFFIXES))
    return next((name for name in names if (folder / name).exists()), None)


def repeats(lists: Iterable[ClipList]) -> list[str]:
    """A remark for every clip that one list has twice."""
    remarks = []
    for one in lists:
        first: dict[str, Entry] = {}
        for entry in one.entries:
            earlier = first.setdefault(entry.name, entry)
            if earlier is not entry:
                remarks.append(f"{entry.place} repeats {earlier.place}: {entry.name}")
    return remarks


def size_remarks(lists: Iterable[ClipList], published: Mapping[tuple[int, str], int]) -> list[str]:
    """A remark for every list with another number of clips than published for fold and part."""
    remarks = []
    for one in lists:
        listed, expected = len({entry.name for entry in one.entries}), published[one.fold, one.part]
        if listed != expected:
            remarks.append(
                f"{one.part} of fold {one.fold} lists {listed} clips; {expected} are published"
            )
    return remarks


def class_remarks(lists: Iterable[ClipList], published: Mapping[str, int]) -> list[str]:
    """A remark for every class with another number of clips in all these lists than published."""
    label_of = {entry.name: entry.label for one in lists for entry in one.entries}
    counts = Counter(label_of.values())
    return [
        f"{label}: {counts[label]} clips are listed; {number} are published"
        for label, number in published.items()
        if counts[label] != number
    ]


def _parts(found: Sequence[tuple[ClipList, Entry]], num_folds: int) -> str:
    part_in = {one.fold: one.part for one, _ in found}
    return " ".join(part_in.get(fold, NO_PART) for fold in range(1, num_folds + 1))


def _refusals(name: str, found: Sequence[tuple[ClipList, Entry]]) -> Iterator[Refusal]:
    """What is contradictory about a clip, with the lines that say so."""
    first, part_in, tested = found[0][1], dict[int, tuple[str, Entry]](), []
    for one, entry in found:
        if entry.label != first.label:
            yield Refusal(
                "contradiction",
                f"{name} is {first.label} in {first.place}, and {entry.label} in {entry.place}; "
                "keep the label that is right",
            )
        part, earlier = part_in.setdefault(one.fold, (one.part, entry))
        if part != one.part:
            yield Refusal(
                "two_parts",
                f"{name} is in two parts of fold {one.fold}, by {earlier.place} and {entry.place}; "
                "delete one of the lines",
            )
        if one.part == "test":
            tested.append((one.fold, entry))
    for fold, entry in tested:
        if fold != tested[0][0]:
            yield Refusal(
                "two_tests",
                f"{name} is tested in two folds, by {tested[0][1].place} and {entry.place}; delete "
                "one of the lines",
            )


def _refuse_unknown_labels(lists: Iterable[ClipList], classes: Sequence[str], dataset: str) -> None:
    labels = {entry.label: entry.place for one in lists for entry in one.entries}
    if unknown := sorted(labels.keys() - set(classes)):
        known = [name for name in classes if name in labels]
        raise ValueError(
            f"{len(unknown)} label(s) of the lists are no class, such as {unknown[0]} "
            f"({labels[unknown[0]]}); all labels: -S 'datasets.{dataset}.classes="
            f"[{','.join([*known, *unknown])}]'"
        )


def _folders(source: Path) -> list[str]:
    """Names of the folders in a folder, and in these."""
    found = [*source.glob("*/"), *source.glob("*/*/")]
    names = sorted(path.relative_to(source).as_posix() for path in found if path.is_dir())
    return [*names[:20], *(["..."] if len(names) > 20 else [])]
