"""A data set that is given by official lists: its settings, where its lists are, its clips."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

from pipeline.common.params import Section
from pipeline.common.sources import Videos
from pipeline.datasets.official_lists import (
    ClipList,
    Entry,
    find_below,
    given_folder,
    listed_clips,
    repeats,
)


class ListSettings(Section):
    """The copy, and where in it the clips are: folders of pictures, or videos."""

    classes: list[str]
    source: Path | None
    clips: str
    accept_licence: bool


class Layout(NamedTuple):
    """Where a data set's lists are, and what their lines say.

    Attributes:
        root: The folder of all lists, somewhere in the copy.
        num_folds: Of which each has a list for `train` and for `test`.
        place: A list's path below `root`, given fold and part.
        read: The entries of a list, given the file and its name for messages.
    """

    root: str
    num_folds: int
    place: Callable[[int, str], str]
    read: Callable[[Path, str], list[Entry]]

    def lists(self, source: Path) -> list[ClipList]:
        """All of them.

        Raises:
            ValueError: One is missing, or a line is none of the published form.
        """
        root = find_below(source, self.root)
        found = []
        for fold, part in product(range(1, self.num_folds + 1), ("train", "test")):
            place = self.place(fold, part)
            found.append(ClipList(fold, part, self.read(find_below(root, place), place)))
        return found


def collect_listed(
    settings: ListSettings,
    layout: Layout,
    remarks: Callable[[list[ClipList]], list[str]],
    dataset: str,
) -> Videos:
    """The clips of a data set that is given by lists, with what is odd about these."""
    source = given_folder(settings.source, dataset)
    lists = layout.lists(source)
    clips = listed_clips(lists, source, settings.clips, settings.classes, dataset)
    return Videos(clips, [source], [*repeats(lists), *remarks(lists)])
