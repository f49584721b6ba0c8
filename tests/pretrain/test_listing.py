from pathlib import Path

import pytest

from pipeline.pretrain.listing import (
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    held_out_groups,
    list_files,
)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_files_of_a_folder_next_to_the_source_are_a_group(tmp_path: Path) -> None:
    touch(tmp_path / "anna/trip/b.MP4", tmp_path / "anna/a.mkv", tmp_path / "bo/a.webm")
    touch(tmp_path / "c.mp4", tmp_path / "anna/notes.txt", tmp_path / ".hidden/x.mp4")
    touch(tmp_path / "bo/._a.mp4")
    listed = list_files(tmp_path, VIDEO_SUFFIXES, "folder")
    assert listed.folder == tmp_path
    assert listed.files == [
        ("anna/a.mkv", "anna"),
        ("anna/trip/b.MP4", "anna"),
        ("bo/a.webm", "bo"),
        ("c.mp4", "c"),
    ]
    by_file = list_files(tmp_path, VIDEO_SUFFIXES, "file")
    assert [file.group for file in by_file.files] == ["anna/a", "anna/trip/b", "bo/a", "c"]


def test_a_table_names_files_and_groups(tmp_path: Path) -> None:
    table = tmp_path / "faces.csv"
    table.write_text("group,path,age\nanna,x/1.png,30\n,x/2.png,31\n", encoding="utf-8")
    listed = list_files(table, PICTURE_SUFFIXES, "folder")
    assert listed == (tmp_path, [("x/1.png", "anna"), ("x/2.png", "x")])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file\na.png\n", "it needs one called path"),
        ("path\n", "has no rows"),
        ("path\na.png\na.png\n", "names a.png more than once"),
    ],
)
def test_a_table_that_makes_no_sense_is_an_error(
    content: str, message: str, tmp_path: Path
) -> None:
    table = tmp_path / "faces.csv"
    table.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        list_files(table, PICTURE_SUFFIXES, "file")


def test_a_folder_without_such_files_and_a_missing_one_are_errors(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    with pytest.raises(ValueError, match="holds no file of the kinds 3gp, asf, avi"):
        list_files(tmp_path, VIDEO_SUFFIXES, "folder")
    with pytest.raises(FileNotFoundError, match="neither a folder nor a table"):
        list_files(tmp_path / "absent", VIDEO_SUFFIXES, "folder")


def test_whole_groups_are_held_out_and_never_all_of_them() -> None:
    groups = [f"g{i % 20}" for i in range(200)]
    assert len(held_out_groups(groups, 0.1, 1)) == 2
    assert len(held_out_groups(groups, 0.001, 1)) == 1
    assert len(held_out_groups(groups, 0.999, 1)) == 19
    assert held_out_groups(groups, 0.3, 1) == held_out_groups(groups[::-1], 0.3, 1)
    assert held_out_groups(groups, 0.3, 1) != held_out_groups(groups, 0.3, 2)
    with pytest.raises(ValueError, match="all samples are of the group 'g'"):
        held_out_groups(["g", "g"], 0.1, 1)
