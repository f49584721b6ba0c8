"""DFEW: 11,697 clips of films with one of seven labels, in five folds by clip; nobody is named.

Its lists are `EmoLabel_DataSplit/<part>(single-labeled)/set_<fold>.csv` with the header
`video_name,label` and rows such as `00001,1`; labels count from 1, in the order of `LABELS`.

Source: Jiang et al. 2020, DFEW.
"""

import re
from pathlib import Path

from pipeline.common.sources import Videos
from pipeline.datasets.official_lists import (
    ClipList,
    Entry,
    class_remarks,
    read_lines,
    size_remarks,
)
from pipeline.datasets.official_sets import Layout, ListSettings, collect_listed

# In the order of their published numbers, from 1, with the number of clips.
LABELS = {
    "happy": 2445,
    "sad": 1894,
    "neutral": 2669,
    "angry": 2173,
    "surprised": 1469,
    "disgust": 145,
    "fear": 902,
}
TEST_SIZES = (2341, 2341, 2340, 2339, 2336)

_HEADER = "video_name,label"
_ROW = re.compile(r"(\w+)\s*,\s*([0-9]+)")
_LABEL_OF = {str(number): label for number, label in enumerate(LABELS, start=1)}


Settings = ListSettings


def collect(settings: Settings, tables: Path, folder: Path) -> Videos:
    """The single-labelled clips of the official folds."""
    return collect_listed(settings, LAYOUT, remarks, "dfew")


def _read(path: Path, place: str) -> list[Entry]:
    header, *lines = read_lines(path, place)
    if header.text.replace(" ", "").casefold() != _HEADER:
        raise ValueError(f"{header.place}: {header.text!r} is not the header {_HEADER}")
    entries = []
    for line in lines:
        match = _ROW.fullmatch(line.text)
        if not match:
            raise ValueError(f"{line.place}: {line.text!r} is no row such as 00001,1")
        if match[2] not in _LABEL_OF:
            raise ValueError(
                f"{line.place}: label {match[2]} is none of 1 to {len(LABELS)}, by which the "
                "published lists number the classes; take these"
            )
        entries.append(Entry(match[1], _LABEL_OF[match[2]], line.place))
    return entries


LAYOUT = Layout(
    "EmoLabel_DataSplit",
    len(TEST_SIZES),
    lambda fold, part: f"{part}(single-labeled)/set_{fold}.csv",
    _read,
)


def remarks(lists: list[ClipList]) -> list[str]:
    """Where the lists differ from the published numbers."""
    total = sum(TEST_SIZES)
    sizes: dict[tuple[int, str], int] = {}
    for fold, size in enumerate(TEST_SIZES, start=1):
        sizes |= {(fold, "test"): size, (fold, "train"): total - size}
    return [*size_remarks(lists, sizes), *class_remarks(lists, LABELS)]
