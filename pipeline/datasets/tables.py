"""The user's table of clips, out of CSV or Parquet: where it is, and the columns that are read.

Other columns may be there in any number and under any name, or none: nobody looks at them.
"""

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.files import is_only_in_project


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

# What a file begins with that says its own encoding. UTF-32 comes first: it begins as UTF-16 does.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_HOW_TO_CONVERT = (
    "save it again as UTF-8 (Excel: Save As, `CSV UTF-8`; LibreOffice: character set `Unicode "
    "(UTF-8)`), or convert it with `iconv -f ENCODING -t UTF-8`, where ENCODING is the one that it "
    "was written in, such as CP1252 (Western Europe), CP1251 (Cyrillic), SHIFT_JIS (Japanese), "
    "GB18030 (Chinese) or UTF-16LE"
)


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
    # Each reader has errors of its own for a file that is no table.
    read = _read_parquet if table.suffix == ".parquet" else _read_csv
    try:
        rows = read(table, columns)
    except (ValueError, OSError, csv.Error, pa.ArrowException) as error:
        raise ValueError(f"{table} cannot be read as a table: {error}") from error
    stripped: pd.DataFrame = rows.apply(lambda column: column.str.strip())
    return stripped[(stripped != "").any(axis=1)]


def _places_of_columns(header: Sequence[str], columns: Columns) -> dict[str, int]:
    """Where the columns stand that are read."""
    names = [name.strip().casefold() for name in header]
    listed = ", ".join(name for name in names if name)
    wanted = columns.of(names)
    if missing := [name for name in wanted if name not in (*names, *columns.optional)]:
        raise ValueError(f"it has the columns {listed}; missing: {', '.join(missing)}")
    for column in wanted:
        if names.count(column) > 1:
            numbers = [str(i) for i, name in enumerate(names, start=1) if name == column]
            raise ValueError(
                f"several columns are called {column} (the columns {' and '.join(numbers)}); keep "
                "one, or give the others other names"
            )
    return {name: names.index(name) for name in wanted if name in names}


def _read_parquet(table: Path, columns: Columns) -> pd.DataFrame:
    # Not by pandas: there, columns can be an index, and whole numbers beside an empty cell get a
    # decimal point.
    with pq.ParquetFile(table) as file:
        header = file.schema_arrow.names
        places = _places_of_columns(header, columns)
        rows = file.read(columns=[header[place] for place in places.values()])
    texts = {name: rows[header[place]].cast(pa.string()) for name, place in places.items()}
    read: pd.DataFrame = pa.table(texts).to_pandas().astype("string").fillna("")
    return read


def _read_csv(table: Path, columns: Columns) -> pd.DataFrame:
    """With blank rows, which pandas would leave out of the count."""
    text = io.StringIO(decode_text(table.read_bytes()), newline="")
    header, *rows = list(csv.reader(text, strict=True)) or [[]]
    width = len(header)
    if width == 1 and (separator := re.search("[;\t]", header[0])):
        name = "semicolons" if separator[0] == ";" else "tabs"
        raise ValueError(f"its cells are separated by {name}; save it again with commas")
    places = _places_of_columns(header, columns)
    for number, cells in enumerate(rows, start=2):
        if any(cells[width:]):
            raise ValueError(
                f"row {number} has more cells than the {width} columns; put what holds a comma "
                "into quotation marks"
            )
    filled = [cells + [""] * (width - len(cells)) for cells in rows]
    wanted = [[cells[place] for place in places.values()] for cells in filled]
    return pd.DataFrame(wanted, columns=list(places), dtype="string")


def decode_text(content: bytes) -> str:
    """The text of a file in UTF-8, or in what its first bytes say.

    Other encodings are not guessed: most files in one are readable, and wrong, in another.
    """
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding in ("utf-16", "utf-32"):
            raise ValueError(
                f"it begins as {encoding.upper()} and is damaged at byte {error.start}: "
                f"{error.reason}"
            ) from error
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"it is not UTF-8 (byte 0x{content[error.start]:02X} in line {line}): {_HOW_TO_CONVERT}"
        ) from error
    # UTF-16 without its mark has zeros, ISO-2022-JP has escapes: both can pass for UTF-8.
    if control := re.search(r"[\x00-\x08\x0e-\x1f]", text):
        line = text.count("\n", 0, control.start()) + 1
        raise ValueError(
            f"it holds the control character U+{ord(control[0]):04X} in line {line}, as text in "
            f"another encoding than UTF-8 does: {_HOW_TO_CONVERT}"
        )
    return text
