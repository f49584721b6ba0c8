"""FERV39k: 38,935 clips of 22 scenes with one of seven labels, in one fold by clip.

Its lists are `4_setups/All_scenes/<part>_All.csv`, without a header, with rows such as
`Interview/Happy/0118 Happy`. Nobody is named.

Source: Wang et al. 2022, FERV39k.
"""

import re
from pathlib import Path

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

# In the published order, with the number of test clips.
LABELS = {
    "happy": 1473,
    "sad": 1393,
    "neutral": 1958,
    "angry": 1487,
    "surprised": 638,
    "disgust": 467,
    "fear": 431,
}
SIZES = {(1, "train"): 31088, (1, "test"): 7847}
NUM_SCENES = 22

# Scene, class and number, of characters that lead out of no folder.
_ROW = re.compile(r"([^/.\\]+/[^/.\\]+/[^/.\\\s]+)\s+(\S+)")


Settings = ListSettings


def collect(settings: Settings, tables: Path, folder: Path) -> Videos:
    """The clips of all scenes."""
    return collect_listed(settings, LAYOUT, remarks, "ferv39k")


def _read(path: Path, place: str) -> list[Entry]:
    entries = []
    for line in read_lines(path, place):
        match = _ROW.fullmatch(line.text)
        if not match:
            raise ValueError(
                f"{line.place}: {line.text!r} is no row such as Interview/Happy/0118 Happy"
            )
        refuse_number(match[2], line.place)
        entries.append(Entry(match[1], normalise_label(match[2]), line.place))
    return entries


LAYOUT = Layout("4_setups/All_scenes", 1, lambda fold, part: f"{part}_All.csv", _read)


def remarks(lists: list[ClipList]) -> list[str]:
    """Where the lists differ from the published numbers."""
    tested = [one for one in lists if one.part == "test"]
    scenes = {entry.name.partition("/")[0] for one in lists for entry in one.entries}
    found = [f"test, {remark}" for remark in class_remarks(tested, LABELS)]
    if len(scenes) != NUM_SCENES:
        found.append(f"{len(scenes)} scenes are listed; {NUM_SCENES} are published")
    for entry in (entry for one in lists for entry in one.entries):
        folder = entry.name.split("/")[1]
        if normalise_label(folder) != entry.label:
            found.append(f"{entry.place}: {entry.name} is in folder {folder} and {entry.label}")
    return [*size_remarks(lists, SIZES), *found]
