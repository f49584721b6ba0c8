from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.common.clips import Clip, group_words
from pipeline.datasets.custom import read_table

CLASSES = ["angry", "happy", "sad"]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    (folder / "day one").mkdir(parents=True)
    for name in ("a.mp4", "b.mp4", "c.mp4", "c.mov", "day one/a.mp4"):
        (folder / name).write_bytes(b"video")
    (tmp_path / "outside.mp4").write_bytes(b"video")
    return folder


def write_table(videos: Path, *rows: str, header: str = "path,subject,label") -> Path:
    table = videos.parent / "clips.csv"
    table.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return table


def read(videos: Path, *rows: str, header: str = "path,subject,label") -> list[Clip]:
    return read_table(write_table(videos, *rows, header=header), videos, CLASSES)


def reasons(clips: list[Clip]) -> list[str]:
    return [clip.reason for clip in clips]


def test_a_clean_table_gives_a_clip_for_each_row(videos: Path) -> None:
    clips = read(
        videos, "a.mp4,Ann,Anger,F", "day one/a.mp4,Bob,happy,m", header="Path, subject ,LABEL,sex"
    )
    assert clips == [
        Clip("a", "a.mp4", "Ann", "angry", sex="f", row=2),
        Clip("day_one_a", "day one/a.mp4", "Bob", "happy", sex="m", row=3),
    ]


def test_parquet_reads_like_csv(videos: Path) -> None:
    rows = pd.DataFrame({"path": ["a.mp4", None], "subject": [7, 8], "label": ["happy", "sad"]})
    rows.to_parquet(videos.parent / "clips.parquet")
    clips = read_table(videos.parent / "clips.parquet", videos, CLASSES)
    assert [(clip.subject, clip.row, clip.reason) for clip in clips] == [
        ("7", 1, ""),
        ("8", 2, "empty_cell"),
    ]


def test_every_bad_row_is_refused_with_its_reason_and_no_other_row_is(videos: Path) -> None:
    clips = read(
        videos,
        "a.mp4,Ann,angry",
        "missing.mp4,Ann,angry",
        "b.mp4,Ann,furious",
        "a.mp4,Ann,anger",
        "../outside.mp4,Ann,sad",
        "/etc/hostname,Ann,sad",
        "C:\\clips\\a.mp4,Ann,sad",
        ",Ann,sad",
        "c.mp4,,sad",
        "day one/a.mp4,Bob,happy",
    )
    assert reasons(clips) == [
        "",
        "missing",
        "unknown_label",
        "duplicate",
        "outside",
        "outside",
        "outside",
        "empty_cell",
        "empty_cell",
        "",
    ]
    assert [clip.row for clip in clips] == list(range(2, 12))
    assert "angry, happy, sad" in clips[2].message
    assert "row 2" in clips[3].message
    assert len({clip.clip for clip in clips}) == len(clips)


def test_a_path_with_two_meanings_is_refused_in_both_rows(videos: Path) -> None:
    clips = read(videos, "a.mp4,Ann,angry", "./a.mp4,Ann,happy", "b.mp4,Ann,sad", "b.mp4,Bob,sad")
    assert reasons(clips) == ["contradiction"] * 4


@pytest.mark.parametrize("spelling", ["ann", "ANN ", "A-nn", "\uff21nn"])
def test_the_rarer_spelling_of_a_subject_is_refused(videos: Path, spelling: str) -> None:
    clips = read(videos, f"a.mp4,{spelling},angry", "b.mp4,Ann,sad", "c.mp4,Ann,sad")
    expected = "" if spelling.strip() == "Ann" else "subject_spelling"
    assert reasons(clips) == [expected, "", ""]
    assert "'Ann'" in clips[0].message


def test_numbers_that_differ_in_leading_zeros_are_one_subject(videos: Path) -> None:
    clips = read(videos, "a.mp4,S01,angry", "b.mp4,S1,sad", "c.mp4,S10,sad")
    assert reasons(clips) == ["", "subject_spelling", ""]


def test_numbers_with_zeros_inside_are_different_subjects(videos: Path) -> None:
    subjects = ["15", "105", "10", "100", "P1001", "P101", "P11", "1_05"]
    for i, _ in enumerate(subjects):
        (videos / f"{i}.mp4").write_bytes(b"video")
    clips = read(videos, *(f"{i}.mp4,{name},sad" for i, name in enumerate(subjects)))
    assert reasons(clips) == [""] * 7 + ["subject_spelling"]


def test_every_refused_row_of_one_path_has_a_name_of_its_own(videos: Path) -> None:
    rows = ["a.mp4,Ann,angry", "a.mp4,Ann,sad", ",Ann,sad", ",Bob,sad", "no.mp4,Ann,furious"]
    clips = read(videos, *rows, "no.mp4,Ann,sad")
    assert reasons(clips)[2:] == ["empty_cell", "empty_cell", "unknown_label", "missing"]
    assert len({clip.clip for clip in clips}) == 6


def test_rows_are_counted_as_a_spreadsheet_counts_them(videos: Path) -> None:
    clips = read(videos, "", "a.mp4,Ann,angry,", " , ,", "missing.mp4,Ann,sad,", "")
    assert [(clip.row, clip.reason) for clip in clips] == [(3, ""), (5, "missing")]


def test_a_class_may_be_named_as_its_synonym(videos: Path) -> None:
    write_table(videos, "a.mp4,Ann,anger", "b.mp4,Ann,Angry", "c.mp4,Ann,happy", "c.mov,Ann,Joy")
    clips = read_table(videos.parent / "clips.csv", videos, ["anger", "Joy", "Happy"])
    assert [clip.label for clip in clips] == ["anger", "anger", "Happy", "Joy"]
    assert reasons(clips) == [""] * 4


def test_a_path_that_cannot_be_opened_is_refused_in_its_row(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = read(videos, f"{'x' * 300}.mp4,Ann,sad", "a.mp4,Ann,sad")
    assert reasons(clips) == ["unreachable", ""]
    assert "File name too long" in clips[0].message

    opened = Path.open

    def refuse(path: Path, mode: str = "r", **options: Any) -> Any:
        if path.suffix == ".mp4":
            raise PermissionError(13, "Permission denied")
        return opened(path, mode, **options)

    monkeypatch.setattr(Path, "open", refuse)
    clips = read_table(videos.parent / "clips.csv", videos, CLASSES)
    assert reasons(clips) == ["unreachable"] * 2


def test_a_refused_row_does_not_decide_what_is_a_duplicate_or_a_spelling(videos: Path) -> None:
    clips = read(videos, "a.mp4,ann,furious", "a.mp4,Ann,angry", "b.mp4,Ann,sad")
    assert reasons(clips) == ["unknown_label", "", ""]


def test_clips_of_one_stem_have_names_of_their_own(videos: Path) -> None:
    clips = read(videos, "c.mp4,Ann,angry", "c.mov,Ann,sad")
    assert [clip.clip for clip in clips] == ["c_mp4", "c_mov"]


def test_a_table_may_say_who_is_trained_on_and_who_is_tested(videos: Path) -> None:
    clips = read(
        videos,
        "a.mp4,Ann,angry, Train ",
        "b.mp4,Bob,sad,validation",
        "c.mp4,Cem,sad,TEST",
        "c.mov,Dee,sad,",
        header="path,subject,label,Split",
    )
    assert reasons(clips) == [""] * 4
    assert [clip.split for clip in clips] == ["train", "validation", "test", ""]


@pytest.mark.parametrize("word", ["dev", "val", "training", "0"])
def test_a_part_of_another_name_is_refused_in_its_row(videos: Path, word: str) -> None:
    header = "path,subject,label,split"
    clips = read(videos, "a.mp4,Ann,angry,train", f"b.mp4,Bob,sad,{word}", header=header)
    assert reasons(clips) == ["", "unknown_split"]
    assert clips[1].row == 3
    assert f"split '{word}' is none of train, validation, test" in clips[1].message


def test_a_table_that_makes_no_sense_is_an_error_that_says_why(videos: Path) -> None:
    with pytest.raises(ValueError, match="missing: label"):
        read(videos, "a.mp4,Ann", header="path,subject")
    with pytest.raises(ValueError, match="no rows"):
        read(videos)
    (videos.parent / "clips.parquet").write_bytes(b"\xff\xfe not a table")
    with pytest.raises(ValueError, match="cannot be read"):
        read_table(videos.parent / "clips.parquet", videos, CLASSES)


# One character, and a letter with a mark that macOS sets beside it.
COMPOSED, MARKED = "Zo\u00eb", "Zoe\u0308"


@pytest.mark.parametrize(("in_table", "on_disk"), [(COMPOSED, MARKED), (MARKED, COMPOSED)])
def test_a_file_is_found_under_the_other_writing_of_its_accents(
    in_table: str, on_disk: str, videos: Path
) -> None:
    path = f"{on_disk}/{in_table} {on_disk}.mp4"
    (videos / path).parent.mkdir()
    (videos / path).write_bytes(b"video")
    row = f"{in_table}/{in_table} {in_table}.mp4,Ann,sad"
    clips = read(videos, row, f"{path},Ann,sad", "a.mp4,Ann,sad")
    assert reasons(clips) == ["", "duplicate", ""]
    assert clips[0].path == path


def test_a_path_that_fits_several_files_is_refused_unless_one_is_exact(videos: Path) -> None:
    for name in (f"{COMPOSED}{MARKED}.mp4", f"{MARKED}{COMPOSED}.mp4"):
        (videos / name).write_bytes(b"video")
    row, exact = f"{COMPOSED}{COMPOSED}.mp4,Ann,sad", f"{COMPOSED}{MARKED}.mp4,Ann,sad"
    clips = read(videos, row, exact)
    assert reasons(clips) == ["ambiguous", ""]
    assert "none of 'Zoe\\u0308Zo\\xeb.mp4' and 'Zo\\xebZoe\\u0308.mp4'" in clips[0].message


def test_back_slashes_part_folders_unless_a_file_has_them_in_its_name(videos: Path) -> None:
    (videos / "anna").mkdir()
    (videos / "anna/1.mp4").write_bytes(b"video")
    (videos / "anna\\2.mp4").write_bytes(b"video")
    rows = ("anna\\1.mp4,Ann,sad", "anna\\2.mp4,Ann,sad", "anna/1.mp4,Ann,sad")
    clips = read(videos, *rows, "x\\..\\..\\a.mp4,Ann,sad", "C:\\a.mp4,Ann,sad")
    assert [clip.path for clip in clips[:3]] == ["anna/1.mp4", "anna\\2.mp4", "anna/1.mp4"]
    assert reasons(clips) == ["", "", "duplicate", "outside", "outside"]


def test_subjects_and_labels_are_the_same_in_either_writing(videos: Path) -> None:
    write_table(videos, f"a.mp4,{COMPOSED},{MARKED}", f"b.mp4,{MARKED},{COMPOSED}")
    for name in (COMPOSED, MARKED):
        clips = read_table(videos.parent / "clips.csv", videos, [name])
        assert [(clip.subject, clip.label) for clip in clips] == [(COMPOSED, name)] * 2
        assert reasons(clips) == ["", ""]


def test_people_whose_names_differ_in_vowel_signs_or_in_places_of_hyphens_are_all_used(
    videos: Path,
) -> None:
    subjects = ["राम", "रोम", "ดี", "ดุ", "1-11", "11-1", "S+", "S-"]
    for i, _ in enumerate(subjects):
        (videos / f"{i}.mp4").write_bytes(b"video")
    clips = read(videos, *(f"{i}.mp4,{name},sad" for i, name in enumerate(subjects)))
    assert [clip.subject for clip in clips] == subjects
    assert reasons(clips) == [""] * 8


def test_of_three_spellings_no_two_of_one_person_are_used(videos: Path) -> None:
    # 111 could be either of the others, and they are two people.
    clips = read(videos, "a.mp4,1-11,sad", "b.mp4,111,sad", "c.mp4,11-1,sad")
    assert reasons(clips) == ["", "subject_spelling", "subject_spelling"]


def test_a_folder_of_pictures_is_a_clip(videos: Path) -> None:
    (videos / "ann/happy.1").mkdir(parents=True)
    clips = read(videos, "ann/happy.1,Ann,happy", "ann/happy.1/,Ann,happy", "a.mp4,Ann,sad")
    assert reasons(clips) == ["", "duplicate", ""]
    assert [clip.path for clip in clips] == ["ann/happy.1", "ann/happy.1", "a.mp4"]


def test_a_film_stands_in_for_the_subject_and_a_clip_without_one_for_itself(videos: Path) -> None:
    clips = read(
        videos, "a.mp4,Heat,angry", "b.mp4,,sad", "c.mp4,Heat,sad", header="path,film,label"
    )
    assert reasons(clips) == [""] * 3
    assert [(clip.subject, clip.group_kind) for clip in clips] == [
        ("Heat", "film"),
        ("b", "clip"),
        ("Heat", "film"),
    ]
    assert group_words(clips) == "films and clips"
    both = read(videos, "a.mp4,Heat,Ann,angry", header="path,film,subject,label")
    assert [(clip.subject, clip.group_kind) for clip in both] == [("Ann", "subject")]
    with pytest.raises(ValueError, match="missing: subject"):
        read(videos, "a.mp4,angry", header="path,label")


def test_a_number_in_split_is_the_fold_that_tests_the_clip(videos: Path) -> None:
    clips = read(
        videos,
        "a.mp4,Ann,angry,1",
        "b.mp4,Bob,sad,3",
        "c.mp4,Cem,sad,Train",
        "c.mov,Dan,sad,0",
        header="path,subject,label,split",
    )
    assert [clip.split for clip in clips] == [
        "test train train",
        "train train test",
        "train",
        "0",
    ]
    assert reasons(clips) == ["", "", "", "unknown_split"]
