"""The user's table of clips, out of CSV or Parquet: where it is, and the columns that are read.

Other columns may be there in any number and under any name, or none: nobody looks at them.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.files import is_only_in_project
from pipeline.common.strangers import check_regular, refusing, words_of
from pipeline.datasets.table_text import OtherEncoding, decode, rows_of


class Columns(NamedTuple):
    """The columns of a table that are read.

    Attributes:
        required: Have to be there.
        optional: May be there.
        instead: By required column one that is read in its place where it is not there.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...]
    instead: Mapping[str, str] = {}

    def of(self, names: Sequence[str]) -> tuple[str, ...]:
        """What a table with these columns has to have, and then what it may have."""
        required = (
            self.instead[name] if name not in names and self.instead.get(name) in names else name
            for name in self.required
        )
        return *required, *self.optional


CLIPS = Columns(
    required=("path", "subject", "label"), optional=("sex", "split"), instead={"subject": "film"}
)

# What people call these columns, and the tools that write tables for them.
_USUAL_NAMES = {
    "path": ("file", "filename", "file_name", "filepath", "file_path", "video", "image", "clip"),
    "subject": ("person", "actor", "speaker", "participant", "identity", "name", "id"),
    "group": ("subject", "person", "actor", "speaker", "participant", "identity", "video"),
    "label": ("emotion", "expression", "class", "category", "target"),
}


def find_table(folder: Path) -> Path:
    """`clips.csv` or `clips.parquet` in the data set's folder.

    Raises:
        FileNotFoundError: Neither is there.
        ValueError: Both are there.
    """
    names = [folder / name for name in ("clips.csv", "clips.parquet")]
    found = [path for path in names if path.is_file()]
    if not found:
        for path in names:
            if is_only_in_project(path):
                raise FileNotFoundError(
                    f"{path} is not in the copy of the project that DVC runs this experiment in, "
                    f"because git does not know it: `git add {path}`, or add `--copy-paths {path}` "
                    "to `dvc exp run`"
                )
        raise FileNotFoundError(
            f"{folder}/clips.csv (or clips.parquet) not found: write a table with the columns "
            f"{', '.join(CLIPS.required)}"
        )
    if len(found) > 1:
        raise ValueError(f"both clips.csv and clips.parquet are in {folder}; keep one")
    return found[0]


def read_rows(table: Path, columns: Columns) -> pd.DataFrame:
    """The rows that are not blank, as text without spaces around it.

    They are indexed by their place in the table from 0. The required columns are all there, and of
    the optional ones those that the table has.

    Raises:
        ValueError: A column is missing or is there twice, or this is no table.
    """
    check_regular(table)
    # Each reader has errors of its own for a file that is no table.
    read = _read_parquet if table.suffix == ".parquet" else _read_csv
    try:
        rows = read(table, columns)
    except (ValueError, OSError) as error:
        raise ValueError(f"{table} cannot be read as a table: {error}") from error
    stripped: pd.DataFrame = rows.apply(lambda column: column.str.strip())
    return stripped[(stripped != "").any(axis=1)]


def _places_of_columns(header: Sequence[str], columns: Columns) -> dict[str, int]:
    """Where the columns stand that are read."""
    names = [name.strip().casefold() for name in header]
    listed = ", ".join(name for name in names if name)
    wanted = columns.of(names)
    if missing := [name for name in wanted if name not in (*names, *columns.optional)]:
        raise ValueError(
            f"it has the columns {listed}; missing: {', '.join(missing)}"
            + "".join(_proposal(column, names, columns) for column in missing)
        )
    for column in wanted:
        if names.count(column) > 1:
            numbers = [str(i) for i, name in enumerate(names, start=1) if name == column]
            raise ValueError(
                f"several columns are called {column} (the columns {' and '.join(numbers)}); keep "
                "one, or give the others other names"
            )
    return {name: names.index(name) for name in wanted if name in names}


def _proposal(column: str, names: Sequence[str], columns: Columns) -> str:
    """Which of a table's columns may be the one that is missing; not taken, as it may not be."""
    known = (*columns.required, *columns.optional)
    free = [name for name in names if name and name not in known]
    usual = [name for name in _USUAL_NAMES.get(column, ()) if name in free]
    near = usual or get_close_matches(column, free, n=1)
    return f"; if {near[0]!r} is it, rename that to {column!r}" if near else ""


def _read_parquet(table: Path, columns: Columns) -> pd.DataFrame:
    # Not by pandas: there, columns can be an index, and whole numbers beside an empty cell get a
    # decimal point.
    with refusing(lambda error: ValueError(words_of(error))):
        file = pq.ParquetFile(table)
    with file:
        header = file.schema_arrow.names
        places = _places_of_columns(header, columns)
        with refusing(lambda error: ValueError(words_of(error))):
            rows = file.read(columns=[header[place] for place in places.values()])
    texts = {name: _as_text(name, rows[header[place]]) for name, place in places.items()}
    read: pd.DataFrame = pa.table(texts).to_pandas().astype("string").fillna("")
    return read


def _as_text(name: str, cells: "pa.ChunkedArray[Any]") -> "pa.ChunkedArray[Any]":
    inner = cells.type.value_type if pa.types.is_dictionary(cells.type) else cells.type
    if pa.types.is_nested(inner):
        values = cells.to_pylist()
        row, value = next(
            ((i, value) for i, value in enumerate(values, start=1) if value is not None), (1, None)
        )
        raise ValueError(
            f"the column {name} holds {inner}, such as {str(value)[:60]} in row {row}, where each "
            "cell needs one text or number"
        )
    with refusing(lambda error: ValueError(f"the column {name} is no text: {words_of(error)}")):
        return cells.cast(pa.string())


def _read_csv(table: Path, columns: Columns) -> pd.DataFrame:
    """With blank rows, which pandas would leave out of the count."""
    content = table.read_bytes()
    try:
        text = decode(content)
    except OtherEncoding as error:
        # Of any such encoding the commas and plain letters are where they seem to be. So it does
        # not matter which it is if what is read is plain.
        rows = _read_text(content.decode("latin-1"), columns)
        if not rows.map(str.isascii).all(axis=None):
            raise
        print(f"{table}: {error.found}; what is read of it is plain, so this does not matter")
        return rows
    return _read_text(text, columns)


def _read_text(text: str, columns: Columns) -> pd.DataFrame:
    header, rows = rows_of(text, columns.required)
    width = len(header)
    places = _places_of_columns(header, columns)
    # By columns: a million rows as lists of texts take gigabytes.
    cells: dict[str, list[str]] = {name: [] for name in places}
    for number, row in enumerate(rows, start=2):
        if any(row[width:]):
            raise ValueError(
                f"row {number} has more cells than the {width} columns; put what holds a comma "
                "(or whatever separates the cells) into quotation marks"
            )
        for name, place in places.items():
            cells[name].append(row[place] if place < len(row) else "")
    return pd.DataFrame(cells, columns=list(places), dtype="string")
