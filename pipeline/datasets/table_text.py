"""The text of a CSV table as spreadsheets write it: its encoding, and what separates its cells."""

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator
from contextlib import suppress

from pipeline.common.strangers import each, words_of

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
# Encodings of one byte a letter that spreadsheets write, to show what a cell would say in them.
_CODE_PAGES = ("cp1252", "cp1250", "cp1251")
# Commas first: a table with these is what is asked for.
_SEPARATORS = ",;\t"


class OtherEncoding(ValueError):
    """The text is in an encoding that nobody can tell; `found` says by what that is seen."""

    def __init__(self, found: str) -> None:
        super().__init__(f"{found}: {_HOW_TO_CONVERT}")
        self.found = found


def decode(content: bytes) -> str:
    """The text of a file in UTF-8, in what its first bytes say, or in UTF-16 that is plain to see.

    Other encodings are not guessed: most files in one are readable, and wrong, in another.

    Raises:
        OtherEncoding: It is in none of these, and is not damaged either.
        ValueError: It is damaged.
    """
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    # Of plain letters in UTF-16, as a header has them, every second byte is zero.
    head = content[:32]
    if encoding == "utf-8" and len(head) >= 4:
        if not any(head[1::2]):
            encoding = "utf-16-le"
        elif not any(head[::2]):
            encoding = "utf-16-be"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if not encoding.startswith("utf-8"):
            name = encoding.upper()[:6]
            raise ValueError(
                f"it begins as {name} and is damaged at byte {error.start}: {error.reason}"
            ) from error
        line = content.count(b"\n", 0, error.start) + 1
        raise OtherEncoding(
            f"it is not UTF-8 (byte 0x{content[error.start]:02X} in line {line}"
            f"{_readings(content, error.start)})"
        ) from error
    # UTF-16 without its mark has zeros, ISO-2022-JP has escapes: both can pass for UTF-8.
    if control := re.search(r"[\x00-\x08\x0e-\x1f]", text):
        line = text.count("\n", 0, control.start()) + 1
        raise ValueError(
            f"it holds the control character U+{ord(control[0]):04X} in line {line}, as text in "
            f"another encoding than UTF-8 does: {_HOW_TO_CONVERT}"
        )
    return text


def _readings(content: bytes, place: int) -> str:
    """What the cell around a byte says in the usual code pages, where it says something."""
    start = max(content.rfind(mark, 0, place) for mark in (b",", b";", b"\t", b"\n")) + 1
    ends = [content.find(mark, place) for mark in (b",", b";", b"\t", b"\r", b"\n")]
    cell = content[start : min([end for end in ends if end >= 0], default=len(content))][:40]
    readings: dict[str, str] = {}
    for name in _CODE_PAGES:
        with suppress(UnicodeDecodeError):
            text = cell.decode(name)
            if text.isprintable():
                readings.setdefault(text, name.upper())
    said = [f"{text!r} in {name}" for text, name in readings.items()]
    return f", the cell is {' or '.join(said)}" if said else ""


def rows_of(text: str, required: Collection[str]) -> tuple[list[str], Iterator[list[str]]]:
    """The header and the other rows.

    Semicolons (Excel, where the comma is the decimal mark) and tabs separate the cells where they
    give a header with all required columns and commas do not.

    Args:
        text: Of the table.
        required: Columns, in lower case.

    Raises:
        ValueError: There are quotation marks that make no sense; also while the rows are read.
    """
    # Excel reads and writes a first line that only names the separator.
    text = re.sub(r"\Asep=.\r?\n", "", text)

    def found(separator: str) -> int:
        try:
            header = next(_cells(text, separator), [])
        except ValueError:  # Quotation marks that another separator follows.
            return 0
        return len({name.strip().casefold() for name in header} & set(required))

    # The first of the best.
    separator = max(_SEPARATORS, key=found)
    rows = _cells(text, separator)
    return next(rows, []), rows


def _cells(text: str, separator: str) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    return each(reader, lambda error: ValueError(f"line {reader.line_num}: {words_of(error)}"))
