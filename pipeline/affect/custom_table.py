"""The user's own set: a table of path, group and any labels beside a folder of images.

Columns are path, group and any of part, expression, valence, arousal, au1, au2 and so on; a blank
cell is a label that is not known.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.affect.labels import AUS, Labels
from pipeline.affect.listing import ImageFolder, Line, Listing, RefusedLine, settle
from pipeline.common.clips import Refusal
from pipeline.common.vocabulary import normalise_label
from pipeline.datasets.tables import Columns, read_rows

_AU_COLUMNS = tuple(f"au{unit}" for unit in AUS)
COLUMNS = Columns(
    required=("path", "group"),
    optional=("part", "expression", "valence", "arousal", *_AU_COLUMNS),
)
PARTS = ("", "train", "validation", "test")
_ACTIVE = {"": None, "0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


def read_table(table: Path, folder: ImageFolder, classes: Sequence[str]) -> Listing:
    """Every row of the table, used or refused.

    Args:
        table: CSV or Parquet.
        folder: That the paths are relative to.
        classes: Expressions that are known; synonyms such as `anger` for `angry` are understood.

    Raises:
        ValueError: A column is missing or is there twice, there is no column of labels or no row,
            or this is no table.
    """
    rows = read_rows(table, COLUMNS)
    labels = [name for name in rows.columns if name not in ("path", "group", "part")]
    if rows.empty or not labels:
        raise ValueError(
            f"{table} has {len(rows)} rows and the label columns {', '.join(labels) or 'none'}; "
            f"at least one row and one of {', '.join(COLUMNS.optional[1:])} are needed"
        )
    # A spreadsheet counts the header as row 1.
    first = 2 if table.suffix == ".csv" else 1
    lines, refused = [], []
    for place, *texts in rows.itertuples(name=None):
        number = first + int(place)
        cells = dict(zip(rows.columns, texts, strict=True))
        try:
            lines.append(_line(number, cells, classes))
        except ValueError as error:
            refused.append(RefusedLine(number, cells["path"], Refusal("malformed", str(error))))
    return settle(lines, refused, folder)


def _line(number: int, cells: Mapping[str, str], classes: Sequence[str]) -> Line:
    """Raises ValueError for a cell that cannot be understood."""
    for column in COLUMNS.required:
        if not cells[column]:
            raise ValueError(f"the {column} is empty; fill it in or delete the row")
    part = cells.get("part", "").casefold()
    if part not in PARTS:
        raise ValueError(f"part {part!r} is none of {', '.join(PARTS[1:])}; correct or empty it")
    labels = Labels(
        _expression(cells.get("expression", ""), classes),
        _number("valence", cells.get("valence", "")),
        _number("arousal", cells.get("arousal", "")),
        tuple(_active(name, cells.get(name, "")) for name in _AU_COLUMNS),
    )
    # Accents that look alike are alike, however they are stored.
    return Line(number, cells["path"], unicodedata.normalize("NFC", cells["group"]), part, labels)


def _expression(cell: str, classes: Sequence[str]) -> str | None:
    if not cell:
        return None
    word = cell if cell in classes else normalise_label(cell)
    if word not in classes:
        raise ValueError(f"expression {cell!r} is none of {', '.join(classes)}")
    return word


def _number(name: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        # Excel writes a comma where the country does; no number from -1 to 1 has thousands.
        value = float(cell.replace(",", ".") if cell.count(",") == 1 and "." not in cell else cell)
    except ValueError:
        value = math.nan
    if not -1 <= value <= 1:
        raise ValueError(
            f"{name} is {cell}, outside of [-1, 1]; where it is unknown, leave the cell blank"
        )
    return value


def _active(name: str, cell: str) -> bool | None:
    if cell.casefold() not in _ACTIVE:
        raise ValueError(f"{name} is {cell}, neither 0 nor 1; where it is unknown, leave it blank")
    return _ACTIVE[cell.casefold()]
