"""s-Aff-Wild2, the images of ABAW's multi-task challenges, and its annotations.

A line is `<video>/<frame>.jpg`, valence, arousal, expression and twelve action units. The published
header names only five columns (`image,valence,arousal,expression,aus`), so cells count by place.
What is not known is -5 for valence and arousal and -1 for the rest; -1.0 is the lowest valence.

Source: the challenges' README files, and the counts that users of the set have published.
"""

import math
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.affect.labels import AUS, EXPRESSIONS, Labels
from pipeline.affect.listing import ImageFolder, Line, Listing, RefusedLine, settle
from pipeline.common.clips import Refusal

HEADER = ("image", "valence", "arousal", "expression", "aus")
_NUM_CELLS = 4 + len(AUS)
_UNKNOWN_NUMBER, _UNKNOWN_CLASS = -5, -1
# Two people of one recording have a folder each.
_SIDE = re.compile(r"_(left|right)$")


class Counts(NamedTuple):
    """Lines of a list, as they stand: repeated ones and those without an image count, too.

    Attributes:
        labelled: With any label.
        valence_arousal: With valence and arousal.
        expression: With an expression.
        aus: With any action unit.
        classes: Of each expression.
        positives: In which each action unit is active.
    """

    labelled: int
    valence_arousal: int
    expression: int
    aus: int
    classes: tuple[int, ...]
    positives: tuple[int, ...]


PUBLISHED = {
    "train": Counts(
        142_333,
        103_917,
        90_645,
        103_316,
        (23_976, 4_555, 3_168, 3_122, 18_135, 7_609, 5_228, 24_852),
        (
            *(18_713, 8_745, 20_342, 30_605, 41_337, 38_286),
            *(26_783, 2_460, 2_980, 5_003, 70_584, 10_756),
        ),
    ),
    "validation": Counts(
        26_876,
        26_876,
        15_440,
        26_876,
        (1_886, 487, 565, 1_254, 3_751, 1_893, 1_003, 4_601),
        (5_531, 2_554, 5_442, 8_818, 13_224, 11_421, 8_319, 782, 757, 808, 20_427, 2_934),
    ),
}


class Annotations(NamedTuple):
    """An annotation file: its images, and the counts of its lines."""

    listing: Listing
    counts: Counts


def read_annotations(file: Path, folder: ImageFolder, part: str) -> Annotations:
    """Every line of an annotation file, used or refused.

    Args:
        file: Such as `training_set_annotations.txt`.
        folder: `cropped_aligned`.
        part: `train` or `validation`.

    Raises:
        ValueError: It is no text, or its header names other columns.
    """
    lines: list[Line] = []
    refused: list[RefusedLine] = []
    for number, cells in read_cells(file):
        path = posixpath.normpath(cells[0])
        try:
            lines.append(Line(number, path, group_of(path), part, parse_labels(cells)))
        except ValueError as error:
            refused.append(RefusedLine(number, path, Refusal("malformed", str(error))))
    return Annotations(settle(lines, refused, folder), _count([line.labels for line in lines]))


def group_of(path: str) -> str:
    """The recording that an image is of: `12_left/00001.jpg` and `12_right/00001.jpg` -> `12`.

    Raises:
        ValueError: The path names no folder.
    """
    video = path.rpartition("/")[0]
    if not video:
        raise ValueError(f"the image is {path}, without the folder of its video")
    return _SIDE.sub("", video)


def parse_labels(cells: Sequence[str]) -> Labels:
    """The labels in the cells of a line.

    Raises:
        ValueError: There are not 16 cells, or one holds what its place cannot.
    """
    if len(cells) != _NUM_CELLS:
        raise ValueError(
            f"{len(cells)} cells where {_NUM_CELLS} belong: image, valence, arousal, expression "
            f"and {len(AUS)} action units"
        )
    valence, arousal = _number("valence", cells[1]), _number("arousal", cells[2])
    expression = _whole("expression", cells[3], len(EXPRESSIONS) - 1)
    aus = [_whole(f"AU{unit}", cell, 1) for unit, cell in zip(AUS, cells[4:], strict=True)]
    return Labels(
        None if expression is None else EXPRESSIONS[expression],
        valence,
        arousal,
        tuple(None if active is None else bool(active) for active in aus),
    )


def compare_counts(counts: Counts, part: str) -> list[str]:
    """The counts of a file beside the published ones, a line each."""
    expected = PUBLISHED[part]
    rows = [
        ("lines with a label", counts.labelled, expected.labelled),
        ("valence and arousal", counts.valence_arousal, expected.valence_arousal),
        ("expression", counts.expression, expected.expression),
        *zip(EXPRESSIONS, counts.classes, expected.classes, strict=True),
        ("action units", counts.aus, expected.aus),
        *(
            (f"AU{unit} active", found, published)
            for unit, found, published in zip(
                AUS, counts.positives, expected.positives, strict=True
            )
        ),
    ]
    said = []
    for name, found, published in rows:
        remark = "as published" if found == published else f"published {published:,}"
        said.append(f"{name}: {found:,}, {remark}")
    return said


def read_cells(file: Path) -> list[tuple[int, list[str]]]:
    """Number and cells of each line that is not blank, without the header.

    Line ends of Windows, a byte order mark and a comma at the end of a line are no content.

    Raises:
        ValueError: It is no text, or its header names other columns.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8: {error}") from error
    rows = []
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        cells = [cell.strip() for cell in line.strip().removesuffix(",").split(",")]
        if any(cells):
            rows.append((number, cells))
    if rows and rows[0][1][0].casefold() == HEADER[0]:
        _check_header(file, rows.pop(0)[1])
    return rows


def _check_header(file: Path, cells: Sequence[str]) -> None:
    """A list may be of images alone; labels in another order would be read as one another's."""
    units = [f"au{unit}" for unit in AUS]
    names = [cell.casefold() for cell in cells]
    if names not in ([HEADER[0]], [*HEADER], [*HEADER[:4], *units]):
        raise ValueError(
            f"{file} has the columns {', '.join(cells)}; known are {', '.join(HEADER)}, in this "
            "order"
        )


def _number(name: str, cell: str) -> float | None:
    """A valence or arousal."""
    value = _to_float(name, cell)
    if value == _UNKNOWN_NUMBER:
        return None
    if not -1 <= value <= 1:
        raise ValueError(f"{name} is {cell}, outside of [-1, 1]; where it is unknown, -5 belongs")
    return value


def _whole(name: str, cell: str, largest: int) -> int | None:
    """An expression or an action unit."""
    value = _to_float(name, cell)
    if value == _UNKNOWN_CLASS:
        return None
    if value not in range(largest + 1):
        raise ValueError(f"{name} is {cell}, none of 0 to {largest} and -1 for unknown")
    return int(value)


def _to_float(name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} is {cell!r}, which is no number")
    return value


def _count(labels: Sequence[Labels]) -> Counts:
    return Counts(
        sum(map(bool, labels)),
        sum(one.valence is not None and one.arousal is not None for one in labels),
        sum(one.expression is not None for one in labels),
        sum(any(unit is not None for unit in one.aus) for one in labels),
        tuple(sum(one.expression == name for one in labels) for name in EXPRESSIONS),
        tuple(sum(bool(one.aus[i]) for one in labels) for i in range(len(AUS))),
    )
