"""The user's own data set: a table of path, subject and label beside a folder of videos.

A video is a file, or a folder with its frames as pictures.

A row that cannot be used is refused with its number and what to do about it; it never stops the
others. Only a table that as a whole makes no sense (no such column, no row) is an error.
"""

import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.common.clips import CLIP, FILM, SUBJECT, Clip, unique_slugs
from pipeline.common.params import Section
from pipeline.common.sources import Videos, videos_folder
from pipeline.common.vocabulary import normalise_label
from pipeline.datasets.paths import VideoFolder
from pipeline.datasets.row_checks import (
    check_path,
    check_repeats,
    check_spelling,
    check_words,
    refuse,
)
from pipeline.datasets.tables import CLIPS, find_table, read_rows


class Settings(Section):
    """The classes, and the folder of videos that the table's paths start from."""

    classes: list[str]
    source: Path


def collect(settings: Settings, tables: Path, folder: Path) -> Videos:
    """Read the user's table; the videos stay where they are."""
    table = find_table(tables)
    videos = videos_folder(settings.source, "custom")
    return Videos(read_table(table, videos, settings.classes), [videos], [])


def read_table(table: Path, videos: Path, classes: list[str]) -> list[Clip]:
    """Every row of the table as a clip, refused where it cannot be used.

    Args:
        table: CSV or Parquet with the columns path, subject, label and, if wanted, sex and split.
            In place of subject it may have film: a clip without one stands for itself.
        videos: The folder that the paths are relative to.
        classes: The labels that are known; synonyms such as `anger` for `angry` are understood.

    Raises:
        ValueError: A column is missing or is there twice, or the table has no rows, or is not a
            table.
    """
    rows = read_rows(table, CLIPS)
    if rows.empty:
        raise ValueError(f"{table} has no rows")
    # A spreadsheet counts the header as row 1.
    first_row = 2 if table.suffix == ".csv" else 1
    label_of = _understood_as(classes)
    nothing = [""] * len(rows)
    sexes, splits, films = (
        rows[column] if column in rows else nothing for column in ("sex", "split", "film")
    )
    subjects = rows["subject"] if "subject" in rows else films
    kind = SUBJECT if "subject" in rows else FILM
    parts_in = _parts(splits)
    clips = [
        Clip(
            clip="",
            path=posixpath.normpath(path) if path else "",
            # Accents that look alike are alike, however they are stored.
            subject=unicodedata.normalize("NFC", subject),
            label=label_of(label),
            sex=sex.casefold(),
            row=first_row + i,
            split=parts_in(split),
            group_kind=kind,
        )
        for i, path, subject, label, sex, split in zip(
            rows.index, rows["path"], subjects, rows["label"], sexes, splits, strict=True
        )
    ]
    # In this order, because a row that was refused must not decide whether another one is right.
    folder = VideoFolder(videos)
    clips = refuse(clips, check_words(classes))
    clips = refuse(clips, check_path(folder))
    clips = [
        clip if clip.reason else replace(clip, path=folder.find(clip.path)[0]) for clip in clips
    ]
    clips = refuse(clips, check_repeats([clip for clip in clips if not clip.reason]))
    clips = refuse(clips, check_spelling([clip for clip in clips if not clip.reason]))
    return [_for_itself(clip) for clip in _named(clips)]


def _parts(splits: Iterable[str]) -> Callable[[str], str]:
    """From a cell of column `split` to the clip's part in every fold.

    A number is that of the fold that tests the clip; the others train on it.
    """
    num_folds = max((int(word) for word in splits if _is_fold(word)), default=0)

    def parts_in(split: str) -> str:
        if not _is_fold(split):
            return split.casefold()
        folds = range(1, num_folds + 1)
        return " ".join("test" if fold == int(split) else "train" for fold in folds)

    return parts_in


def _is_fold(word: str) -> bool:
    return re.fullmatch("[1-9][0-9]{0,2}", word) is not None


def _for_itself(clip: Clip) -> Clip:
    """The clip, as a group of its own where no film is named."""
    if clip.group_kind == FILM and not clip.subject:
        return replace(clip, subject=clip.clip, group_kind=CLIP)
    return clip


def _understood_as(classes: list[str]) -> Callable[[str], str]:
    """From a word of the table to the class that it means, or to the word if it means none."""

    def composed(word: str) -> str:
        return unicodedata.normalize("NFC", word)

    # A class may have any name; where it is a synonym, the words of the table become that.
    exact = {composed(name): name for name in classes}
    synonyms = {normalise_label(composed(name)): name for name in classes}

    def label_of(word: str) -> str:
        usual = normalise_label(composed(word))
        return exact.get(composed(word)) or synonyms.get(usual, usual)

    return label_of


def _named(clips: list[Clip]) -> list[Clip]:
    """The clips under names of their own, which their paths give."""
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
