from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.datasets.tables import CLIPS, find_table, read_rows


def read(folder: Path, content: str | bytes) -> pd.DataFrame:
    table = folder / "clips.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_rows(table, CLIPS)


ROWS = [["a.mp4", "S1", "happy"], ["b.mp4", "S2", "sad"]]


@pytest.mark.parametrize(
    "text",
    [
        "path,subject,label,,\na.mp4,S1,happy,,\nb.mp4,S2,sad,,x\n",
        "path,subject,label,notes,notes\na.mp4,S1,happy,x,y\nb.mp4,S2,sad,,\n",
        ",Path,,subject , ,LABEL\n1,a.mp4,,S1,,happy\n2,b.mp4,,S2,,sad\n",
    ],
)
def test_columns_that_nobody_reads_may_have_no_name_or_that_of_another(
    text: str, tmp_path: Path
) -> None:
    rows = read(tmp_path, text)
    assert list(rows.columns) == ["path", "subject", "label"]
    assert rows.values.tolist() == ROWS


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,subject,label,,Label ", r"several columns are called label \(the columns 3 and 5\)"),
        ("split,path,subject,label,split", r"called split \(the columns 1 and 5\)"),
        ("path,,subject", "it has the columns path, subject; missing: label"),
        ("path;subject;notes", "it has the columns path, subject, notes; missing: label"),
        ("filename,Person,emotion", "missing: path, subject, label; if 'filename' is it, rename "),
        (
            "path,actor,class",
            "if 'actor' is it, rename that to 'subject'; if 'class' is it, rename",
        ),
        ("path,subject,labels", "missing: label; if 'labels' is it, rename that to 'label'"),
        ("paths,label,sex", "missing: path, subject; if 'paths' is it, rename that to 'path'$"),
        ("", "missing: path, subject, label"),
    ],
)
def test_a_column_that_is_read_is_there_once_or_an_error_names_it(
    header: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"clips.csv cannot be read as a table: .*{message}"):
        read(tmp_path, f"{header}\n")


def test_parquet_is_read_by_the_same_columns_as_csv(tmp_path: Path) -> None:
    columns = {
        "Path": pa.array(["a.mp4", " ", "b.mp4", None]),
        "notes": pa.array([[1], [2], [3], [4]]),
        "note": pa.array(["", "", "", ""]),
        "SUBJECT": pa.array([1, None, 2, 3]),
        "label": pa.array(["happy", None, "sad", "sad"]).dictionary_encode(),
    }
    names = ["Path", "notes", "notes", "SUBJECT", "label"]
    table = tmp_path / "clips.parquet"
    pq.write_table(pa.table(list(columns.values()), names=names), table)
    rows = read_rows(table, CLIPS)
    assert rows.to_dict("index") == {
        0: {"path": "a.mp4", "subject": "1", "label": "happy"},
        2: {"path": "b.mp4", "subject": "2", "label": "sad"},
        3: {"path": "", "subject": "3", "label": "sad"},
    }
    # As an index, pandas would hide the column.
    pd.DataFrame(ROWS, columns=["path", "subject", "label"]).set_index("path").to_parquet(table)
    assert read_rows(table, CLIPS).values.tolist() == ROWS
    pq.write_table(pa.table(list(columns.values()), names=["label", *names[1:]]), table)
    with pytest.raises(
        ValueError, match=r"it has the columns label, notes, notes, .* missing: path"
    ):
        read_rows(table, CLIPS)
    columns["label"] = columns["notes"]
    pq.write_table(pa.table(columns), table)
    with pytest.raises(ValueError, match=r"clips\.parquet cannot be read as a table"):
        read_rows(table, CLIPS)


NAMES = "path,subject,label\r\nZo\u00eb 1.mp4,\u592a\u90ce,happy\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_table_that_says_its_encoding_is_read(encoding: str, tmp_path: Path) -> None:
    rows = read(tmp_path, NAMES.encode(encoding))
    assert rows.values.tolist() == [["Zo\u00eb 1.mp4", "\u592a\u90ce", "happy"]]
    big = {"utf-16": b"\xfe\xff", "utf-32": b"\x00\x00\xfe\xff"}
    if encoding in big:
        swapped = read(tmp_path, big[encoding] + NAMES.encode(f"{encoding}-be"))
        assert swapped.equals(rows)


@pytest.mark.parametrize(
    ("encoding", "name", "found"),
    [
        ("cp1252", "Zo\u00eb", "byte 0xEB in line 2, the cell is 'Zo\u00eb' in CP1252 or "),
        ("cp1251", "\u0410\u043d", "byte 0xC0 in line 2, the cell is .* '\u0410\u043d' in CP1251"),
        ("shift_jis", "\u592a\u90ce", "byte 0x91 in line 2"),
        ("gb18030", "\u592a\u90ce", "byte 0xC0 in line 2"),
        ("iso2022_jp", "\u592a\u90ce", r"control character U\+001B in line 2"),
    ],
)
def test_another_encoding_is_an_error_that_says_where_and_what_to_do(
    encoding: str, name: str, found: str, tmp_path: Path
) -> None:
    content = f"path,subject,label\na.mp4,{name},sad\n".encode(encoding)
    with pytest.raises(
        ValueError, match=rf"{found}.*: save it again as UTF-8 .* `iconv -f ENCODING"
    ):
        read(tmp_path, content)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_that_does_not_say_so_is_plain_to_see(encoding: str, tmp_path: Path) -> None:
    rows = read(tmp_path, NAMES.encode(encoding))
    assert rows.values.tolist() == [["Zo\u00eb 1.mp4", "\u592a\u90ce", "happy"]]


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("first", ["", "sep=;\r\n"])
def test_a_table_as_excel_writes_it_is_read(separator: str, first: str, tmp_path: Path) -> None:
    rows = ['"path";"subject";"label";note', "a.mp4;S1;happy;1,5", 'b.mp4;S2;sad;"x;y"', ""]
    text = first + "\r\n".join(rows).replace(";", separator)
    if separator == "\t":
        text = text.replace("sep=\t", "sep=;")
    for encoding in ("utf-8-sig", "utf-16"):
        assert read(tmp_path, text.encode(encoding)).values.tolist() == ROWS


def test_another_encoding_does_not_matter_where_nothing_in_it_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "path;subject;label;notiz\na.mp4;S1;happy;sch\u00f6n\nb.mp4;S2;sad;\n"
    assert read(tmp_path, text.encode("cp1252")).values.tolist() == ROWS
    assert "it is not UTF-8 (byte 0xF6 in line 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (pa.array([None, ["a", "b"]]), r"label holds list<.*>, such as \['a', 'b'\] in row 2"),
        (pa.array([{"x": 1}, None]), r"label holds struct<.*>, such as {'x': 1} in row 1"),
        (pa.array([b"\xff\xfe", b""]), "label is no text: "),
    ],
)
def test_cells_that_are_no_text_are_an_error_that_names_them(
    cells: "pa.Array[Any]", says: str, tmp_path: Path
) -> None:
    path = tmp_path / "clips.parquet"
    pq.write_table(pa.table({"path": ["a", "b"], "subject": [1, 2], "label": cells}), path)
    with pytest.raises(ValueError, match=f"{path} cannot be read as a table: the column {says}"):
        read_rows(path, CLIPS)


def test_a_cut_off_table_in_utf_16_is_damaged(tmp_path: Path) -> None:
    content = NAMES.encode("utf-16")[:-1]
    with pytest.raises(
        ValueError, match=f"UTF-16 and is damaged at byte {len(content) - 1}: trunc"
    ):
        read(tmp_path, content)


def test_the_table_must_be_there_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="path, subject, label"):
        find_table(tmp_path)
    for name in ("clips.csv", "clips.parquet"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="keep one"):
        find_table(tmp_path)


def test_a_table_that_a_copy_of_the_project_lacks_is_an_error_that_says_how_to_copy_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, table = tmp_path / ".dvc/tmp/exps/standalone/tmpabc", Path("datasets/custom/clips.csv")
    for folder in (copy, (tmp_path / table).parent):
        folder.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(FileNotFoundError, match="write a table with the columns path"):
        find_table(table.parent)
    (tmp_path / table).touch()
    with pytest.raises(
        FileNotFoundError, match=f"`git add {table}`, or add `--copy-paths {table}`"
    ):
        find_table(table.parent)
