"""The files that a pre-training is made of: all of a folder, or those that a table names."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from pipeline.common.clips import Refusal
from pipeline.pretrain.manifest import HELD_OUT, TRAIN

GroupBy = Literal["folder", "file"]

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .flv .mpg .mpeg .ts .m2ts .ogv .wmv .asf .3gp".split()
)
PICTURE_SUFFIXES = frozenset(".jpg .jpeg .png .bmp .webp .tif .tiff".split())


class ListedFile(NamedTuple):
    """A file, and what it has in common with others.

    Attributes:
        path: Relative to the folder, with slashes.
        group: Whoever is seen, or what stands for it: groups are held out as a whole.
    """

    path: str
    group: str


class Listing(NamedTuple):
    """Files in the order of their paths, and the folder that these start from."""

    folder: Path
    files: list[ListedFile]


def list_files(source: Path, suffixes: frozenset[str], group_by: GroupBy) -> Listing:
    """The files of these kinds in a folder and its folders, or those of a table.

    Args:
        source: A folder, or a CSV table with a column `path`, relative to the table's folder, and
            perhaps a column `group`.
        suffixes: Of the files of a folder that are taken, in small letters.
        group_by: `folder`: the files of one folder next to the source are a group, and a file that
            lies beside these folders is one by itself; `file`: every file is. A table's own groups
            come first.

    Raises:
        FileNotFoundError: No such folder or table.
        ValueError: It names no such file, or this is no such table.
    """
    if source.is_dir():
        paths = sorted(_walk(source, suffixes))
        files = [ListedFile(path, _group(path, group_by)) for path in paths]
        if not files:
            kinds = ", ".join(sorted(suffix[1:] for suffix in suffixes))
            raise ValueError(f"{source} holds no file of the kinds {kinds}, not even in a folder")
        return Listing(source, files)
    if not source.is_file():
        raise FileNotFoundError(f"source is {source}, which is neither a folder nor a table")
    return Listing(source.parent, _read_table(source, group_by))


def _walk(root: Path, suffixes: frozenset[str]) -> Iterator[str]:
    """Relative paths. Strings, because a million objects for paths would be much memory."""
    for folder, inner, names in os.walk(root, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        place = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in names:
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith("."):  # noqa: PTH122
                yield name if place == "." else f"{place}/{name}"


def _group(path: str, group_by: GroupBy) -> str:
    first, _, rest = path.partition("/")
    if rest and group_by == "folder":
        return first
    return str(PurePosixPath(path).with_suffix(""))


def _read_table(table: Path, group_by: GroupBy) -> list[ListedFile]:
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{table} cannot be read as a table in CSV: {error}") from error
    if "path" not in rows:
        raise ValueError(
            f"{table} has the columns {', '.join(rows.columns)}; it needs one called path"
        )
    if rows.empty:
        raise ValueError(f"{table} has no rows")
    if len(twice := rows["path"][rows["path"].duplicated()]):
        raise ValueError(f"{table} names {twice.iloc[0]} more than once")
    paths = rows["path"].tolist()
    groups = rows["group"].tolist() if "group" in rows else [""] * len(paths)
    pairs = zip(paths, groups, strict=True)
    return sorted(ListedFile(path, group or _group(path, group_by)) for path, group in pairs)


def held_out_groups(groups: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """The groups whose samples are not trained on.

    Args:
        groups: Of all samples.
        share: Of the distinct groups; one at least is held out.
        seed: Of the draw.

    Raises:
        ValueError: All are of one group.
    """
    distinct = sorted(set(groups))
    if len(distinct) < 2:
        raise ValueError(
            f"all samples are of the group {distinct[0]!r}: none can be held out to see how the "
            "training goes. Put the files of different people into different folders, or take "
            "group_by: file"
        )
    number = min(max(1, round(share * len(distinct))), len(distinct) - 1)
    chosen = np.random.default_rng(seed).permutation(len(distinct))[:number]
    return frozenset(distinct[i] for i in chosen)


class Refused(NamedTuple):
    """A file that cannot be used."""

    path: str
    refusal: Refusal


class Collection(NamedTuple):
    """What was collected.

    Attributes:
        num_files: That were looked at.
        num_samples: Rows of the manifest.
        refused: The others, by path.
        excluded: Groups that were left out on purpose, by data set.
    """

    num_files: int
    num_samples: int
    refused: list[Refused]
    excluded: dict[str, list[str]]


class Split(NamedTuple):
    """Which samples are held out: whole groups, of a share of all; the draw needs a seed."""

    share: float
    seed: int

    def part_of(self, groups: Sequence[str]) -> Callable[[str], str]:
        """From a group to its part."""
        held_out = held_out_groups(groups, self.share, self.seed)
        return lambda group: HELD_OUT if group in held_out else TRAIN
