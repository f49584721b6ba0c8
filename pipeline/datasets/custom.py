"""The user's own data set: a table of path, subject and label beside a folder of videos.

A row that cannot be used is refused with its number and what to do about it; it never stops the
others. Only a table that as a whole makes no sense (no such column, no row) is an error.
"""

import csv
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from pipeline.common.clips import Clip, Refusal, unique_slugs
from pipeline.common.params import Section
from pipeline.common.sources import Videos
from pipeline.common.vocabulary import normalise_label

COLUMNS = ("path", "subject", "label")


class Settings(Section):
    """The classes, and the folder of videos that the table's paths start from."""

    classes: list[str]
    source: Path


def collect(settings: Settings, tables: Path, folder: Path) -> Videos:
    """Read the user's table; the videos stay where they are."""
    clips = read_table(find_table(tables), settings.source, settings.classes)
    return Videos(clips, [settings.source], [])


def find_table(folder: Path) -> Path:
    """`clips.csv` or `clips.parquet` in the data set's folder.

    Raises:
        FileNotFoundError: Neither is there.
        ValueError: Both are there.
    """
    found = [path for name in ("clips.csv", "clips.parquet") if (path := folder / name).is_file()]
    if not found:
        raise FileNotFoundError(
            f"{folder}/clips.csv (or clips.parquet) not found: write a table with the columns "
            f"{', '.join(COLUMNS)}"
        )
    if len(found) > 1:
        raise ValueError(f"both clips.csv and clips.parquet are in {folder}; keep one")
    return found[0]


def read_table(table: Path, videos: Path, classes: list[str]) -> list[Clip]:
    """Every row of the table as a clip, refused where it cannot be used.

    Args:
        table: CSV or Parquet with the columns path, subject, label and, if wanted, sex and split.
        videos: The folder that the paths are relative to.
        classes: The labels that are known; synonyms such as `anger` for `angry` are understood.

    Raises:
        ValueError: A column is missing, or the table has no rows, or is not a table.
    """
    rows = _read(table)
    missing = [column for column in COLUMNS if column not in rows]
    if missing:
        raise ValueError(
            f"{table} has the columns {', '.join(rows.columns)}; missing: {', '.join(missing)}"
        )
    if rows.empty:
        raise ValueError(f"{table} has no rows")
    # A spreadsheet counts the header as row 1.
    first_row = 2 if table.suffix == ".csv" else 1
    # A class may have any name; where it is a synonym, the words of the table become that.
    named = {normalise_label(name): name for name in classes}
    words = [(word, normalise_label(word)) for word in rows["label"]]
    labels = [word if word in classes else named.get(usual, usual) for word, usual in words]
    paths = [posixpath.normpath(path) if path else "" for path in rows["path"]]
    sexes, splits = (
        rows[column] if column in rows else [""] * len(rows) for column in ("sex", "split")
    )
    clips = [
        Clip(
            clip="",
            path=path,
            subject=subject,
            label=label,
            sex=sex.casefold(),
            row=first_row + i,
            split=split.casefold(),
        )
        for i, path, subject, label, sex, split in zip(
            rows.index, paths, rows["subject"], labels, sexes, splits, strict=True
        )
    ]
    # In this order, because a row that was refused must not decide whether another one is right.
    clips = _refuse(clips, _check_words(classes))
    clips = _refuse(clips, _check_path(videos))
    clips = _refuse(clips, _check_repeats([clip for clip in clips if not clip.reason]))
    clips = _refuse(clips, _check_spelling([clip for clip in clips if not clip.reason]))
    stems = {clip.path: posixpath.splitext(clip.path)[0] for clip in clips}
    shared = Counter(stems.values())
    names = unique_slugs(
        [
            path if shared[stem] > 1 else stem
            for path, stem in ((clip.path, stems[clip.path]) for clip in clips)
        ]
    )
    # Rows of one path share its name; where they are refused, a row number tells them apart.
    rows_of = Counter(names)
    return [
        clip.named(f"{name}-row{clip.row}" if clip.reason and rows_of[name] > 1 else name)
        for name, clip in zip(names, clips, strict=True)
    ]


def _read(table: Path) -> pd.DataFrame:
    """The rows that are not blank, indexed by their place in the table from 0."""
    # Each reader has errors of its own for a file that is no table; all of them are ValueErrors.
    try:
        if table.suffix == ".parquet":
            rows = pd.read_parquet(table).astype("string").fillna("")
        else:
            rows = _read_csv(table)
    except (ValueError, OSError, csv.Error) as error:
        raise ValueError(f"{table} cannot be read as a table: {error}") from error
    rows.columns = [str(column).strip().casefold() for column in rows.columns]
    if not rows.columns.is_unique:
        twice = ", ".join(rows.columns[rows.columns.duplicated()])
        raise ValueError(f"{table} has the columns {', '.join(rows.columns)}; twice: {twice}")
    stripped: pd.DataFrame = rows.reset_index(drop=True).apply(lambda column: column.str.strip())
    return stripped[(stripped != "").any(axis=1)]


def _read_csv(table: Path) -> pd.DataFrame:
    """With blank rows, which pandas would leave out of the count."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        columns, *rows = list(csv.reader(file, strict=True)) or [[]]
    width = len(columns)
    for number, cells in enumerate(rows, start=2):
        if any(cells[width:]):
            raise ValueError(
                f"row {number} has more cells than the {width} columns; put what holds a comma "
                "into quotation marks"
            )
    filled = [(cells + [""] * width)[:width] for cells in rows]
    return pd.DataFrame(filled, columns=columns, dtype="string")


Check = Callable[[Clip], Iterator[Refusal]]


def _refuse(clips: list[Clip], check: Check) -> list[Clip]:
    """The clips, the usable ones refused for the first thing that `check` finds."""
    refusals = [None if clip.reason else next(check(clip), None) for clip in clips]
    return [
        clip.refuse(refusal) if refusal else clip
        for clip, refusal in zip(clips, refusals, strict=True)
    ]


def _check_words(classes: list[str]) -> Check:
    def check(clip: Clip) -> Iterator[Refusal]:
        for column in ("path", "subject", "label"):
            if not getattr(clip, column):
                yield Refusal("empty_cell", f"the {column} is empty; fill it in or delete the row")
        if clip.label not in classes:
            yield Refusal(
                "unknown_label",
                f"label {clip.label!r} is none of {', '.join(classes)}; correct it, or add it to "
                "the data set's `classes` in params.yaml",
            )
        if clip.split not in ("", "train", "validation", "test"):
            yield Refusal(
                "unknown_split",
                f"split {clip.split!r} is none of train, validation, test; correct it or leave it "
                "empty",
            )

    return check


def _check_path(videos: Path) -> Check:
    def check(clip: Clip) -> Iterator[Refusal]:
        path = PurePosixPath(clip.path)
        if path.is_absolute() or PureWindowsPath(clip.path).is_absolute() or ".." in path.parts:
            yield Refusal(
                "outside",
                f"{clip.path} leads out of the videos' folder; give a path relative to it",
            )
            return
        try:
            is_there = (videos / path).is_file()
            if is_there:
                (videos / path).open("rb").close()
        except OSError as error:
            yield Refusal("unreachable", f"{clip.path} cannot be opened: {error.strerror}")
        else:
            if not is_there:
                yield Refusal(
                    "missing",
                    f"{clip.path} is not in the videos' folder; correct the path or copy the file",
                )

    return check


def _check_repeats(clips: list[Clip]) -> Check:
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


def _check_spelling(clips: list[Clip]) -> Check:
    count = Counter(clip.subject for clip in clips)
    spellings: dict[str, list[str]] = {}
    for subject in count:
        spellings.setdefault(_spelling_key(subject), []).append(subject)
    # The most frequent spelling is right, or the first of two that are equally frequent.
    right = {key: max(found, key=count.__getitem__) for key, found in spellings.items()}

    def check(clip: Clip) -> Iterator[Refusal]:
        expected = right[_spelling_key(clip.subject)]
        if clip.subject != expected:
            yield Refusal(
                "subject_spelling",
                f"subject {clip.subject!r} is elsewhere spelled {expected!r}; one person under two "
                "names could be trained and tested on, so write one spelling (or, if these are two "
                "people, names that differ in more than this)",
            )

    return check


def _spelling_key(subject: str) -> str:
    """What two spellings of one name share: ` S-01` and `s1` both give `s1`."""
    letters = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", subject).casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", letters) or subject
