"""MAFW: clips of films, shows and short videos with one of 11 expressions, or several at once.

Its lists are `<single or compound>/no_caption/set_<fold>/<part>.txt` with rows such as
`00025.mp4 anger`. There are five folds by clip; nobody is named.

Source: Liu et al. 2022, MAFW.
"""

import re
from pathlib import Path
from typing import Literal

from pipeline.common.sources import Videos
from pipeline.common.vocabulary import normalise_label
from pipeline.datasets.official_lists import (
    ClipList,
    Entry,
    class_remarks,
    read_lines,
    refuse_number,
    size_remarks,
)
from pipeline.datasets.official_sets import Layout, ListSettings, collect_listed

Labels = Literal["single", "compound"]

# In the published order, with the number of single-labelled clips.
LABELS = {
    "angry": 1390,
    "disgust": 639,
    "fear": 625,
    "happy": 1242,
    "neutral": 1138,
    "sad": 1470,
    "surprised": 1072,
    "contempt": 236,
    "anxiety": 916,
    "helplessness": 262,
    "disappointment": 182,
}
TEST_SIZES = (1839, 1837, 1833, 1832, 1831)
NUM_COMPOUND_CLIPS, NUM_COMPOUND_CLASSES = 8996, 43

_ROW = re.compile(r"(\w+(?:\.\w+)?)\s+(\S.*)")


class Settings(ListSettings):
    """Which labels, beside what `ListSettings` has."""

    labels: Labels


def collect(settings: Settings, tables: Path, folder: Path) -> Videos:
    """The clips of the official folds, with labels of the chosen kind."""
    layout = layout_of(settings.labels)
    return collect_listed(settings, layout, lambda lists: remarks(lists, settings.labels), "mafw")


def layout_of(labels: Labels) -> Layout:
    """Of the lists with these labels."""
    return Layout(
        f"{labels}/no_caption", len(TEST_SIZES), lambda fold, part: f"set_{fold}/{part}.txt", _read
    )


def _read(path: Path, place: str) -> list[Entry]:
    entries = []
    for line in read_lines(path, place):
        match = _ROW.fullmatch(line.text)
        if not match:
            raise ValueError(f"{line.place}: {line.text!r} is no row such as 00025.mp4 anger")
        refuse_number(match[2], line.place)
        entries.append(Entry(match[1], read_label(match[2], line.place), line.place))
    return entries


def read_label(text: str, place: str) -> str:
    """The label of one or several expressions: `Anger, disgust` -> `angry_disgust`.

    Several are joined in the published order, however the list has them.

    Raises:
        ValueError: One is none of the eleven.
    """
    words = [normalise_label(word) for word in re.findall(r"[^\W_]+", text)]
    if unknown := [word for word in words if word not in LABELS]:
        raise ValueError(f"{place}: {', '.join(unknown)} is none of {', '.join(LABELS)}")
    return "_".join(word for word in LABELS if word in words)


def remarks(lists: list[ClipList], labels: Labels) -> list[str]:
    """Where the lists differ from the published numbers."""
    if labels == "compound":
        return _compound_remarks(lists)
    total = sum(TEST_SIZES)
    sizes: dict[tuple[int, str], int] = {}
    for fold, size in enumerate(TEST_SIZES, start=1):
        sizes |= {(fold, "test"): size, (fold, "train"): total - size}
    return [*size_remarks(lists, sizes), *class_remarks(lists, LABELS)]


def _compound_remarks(lists: list[ClipList]) -> list[str]:
    label_of = {entry.name: entry.label for one in lists for entry in one.entries}
    num_classes = len(set(label_of.values()))
    remarks = []
    if len(label_of) != NUM_COMPOUND_CLIPS:
        remarks.append(f"{len(label_of)} clips are listed; {NUM_COMPOUND_CLIPS} are published")
    if num_classes != NUM_COMPOUND_CLASSES:
        remarks.append(f"{num_classes} classes are listed; {NUM_COMPOUND_CLASSES} are published")
    return remarks
