from pathlib import Path

import pytest
from small_lists import SOME_AUS, UNKNOWN_AUS, row, write_list

from pipeline.affect.labels import (
    AUS,
    EXPRESSIONS,
    Labels,
    read_images,
    targets_of,
    truth_from,
    truth_of,
    write_images,
)
from pipeline.affect.listing import ImageFolder
from pipeline.affect.s_aff_wild2 import (
    PUBLISHED,
    Annotations,
    compare_counts,
    group_of,
    parse_labels,
    read_annotations,
)
from pipeline.affect.submission import Answer, read_test_list, write_submission


def read(folder: Path, *rows: str, end: str = "\n", start: str = "") -> Annotations:
    file = write_list(folder, rows, end=end, start=start)
    return read_annotations(file, ImageFolder(folder / "cropped_aligned"), "train")


def reasons(annotations: Annotations) -> dict[int, str]:
    return {line.number: line.refusal.reason for line in annotations.listing.refused}


def test_a_row_is_read_by_place_though_the_header_names_five_columns(tmp_path: Path) -> None:
    (image,), *_ = read(tmp_path, row("v1/00001.jpg", 0.25, -0.5, 6)).listing
    assert (image.path, image.group, image.part, image.line) == ("v1/00001.jpg", "v1", "train", 2)
    assert image.id == "v1_00001"
    active = {1: True, 12: True, 25: True}
    assert image.labels == Labels(
        "surprised", 0.25, -0.5, tuple(active.get(unit, False) for unit in AUS)
    )


def test_a_valence_of_minus_1_is_a_value_and_minus_5_is_not() -> None:
    def numbers(valence: str, arousal: str) -> tuple[float | None, float | None]:
        labels = parse_labels(["x.jpg", valence, arousal, "-1", *["-1"] * 12])
        return labels.valence, labels.arousal

    assert numbers("-1.0", "-1") == (-1, -1)
    assert numbers("-5", "-5.0") == (None, None)
    assert numbers("0.5", "-5") == (0.5, None)


def test_an_unknown_number_costs_neither_the_line_nor_its_other_labels(tmp_path: Path) -> None:
    """Public readers `pass` or `continue` at -5, and drop a row of units for a single -1."""
    partly = "1,-1,0,-1,0,0,1,0,0,0,1,-1"
    rows = [
        row("v/1.jpg", -5, -5, 3, SOME_AUS),
        row("v/2.jpg", "-5.0", "-5.0", -1, partly),
        row("v/3.jpg", 0.5, 0.5, -1, UNKNOWN_AUS),
    ]
    first, second, third = (image.labels for image in read(tmp_path, *rows).listing.images)
    assert (first.valence, first.expression, first.aus[0]) == (None, "fear", True)
    assert second.aus == (True, None, False, None, False, False, True, *[False] * 3, True, None)
    assert third == Labels(None, 0.5, 0.5)


@pytest.mark.parametrize(("end", "start"), [("\r\n", ""), ("\n", "\ufeff"), (",\r\n", "\ufeff")])
def test_windows_lines_byte_order_marks_and_trailing_commas_are_no_content(
    tmp_path: Path, end: str, start: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    rows = [row("v/1.jpg"), row("v/2.jpg", -5, -5, -1)]
    plain, other = read(tmp_path / "a", *rows), read(tmp_path / "b", *rows, end=end, start=start)
    assert plain == other
    assert len(plain.listing.images) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (row("1.jpg"), "the image is 1.jpg, without the folder of its video"),
        ("v/1.jpg,0.1,0.2,4", "4 cells where 16 belong"),
        (row("v/1.jpg") + ",0", "17 cells where 16 belong"),
        (row("v/1.jpg", 1.5), "valence is 1.5, outside of [-1, 1]; where it is unknown, -5"),
        (row("v/1.jpg", arousal="-2"), "arousal is -2, outside"),
        (row("v/1.jpg", "nan"), "valence is 'nan', which is no number"),
        (row("v/1.jpg", ""), "valence is '', which is no number"),
        (row("v/1.jpg", expression=8), "expression is 8, none of 0 to 7 and -1"),
        (row("v/1.jpg", expression=2.5), "expression is 2.5, none of"),
        (row("v/1.jpg", aus=SOME_AUS[:-1] + "2"), "AU26 is 2, none of 0 to 1"),
        (row("v/1.jpg", aus="x" + SOME_AUS[1:]), "AU1 is 'x', which is no number"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_the_others_are_read(
    tmp_path: Path, line: str, message: str
) -> None:
    found = read(tmp_path, row("v/0.jpg"), line, row("v/2.jpg"))
    assert [image.path for image in found.listing.images] == ["v/0.jpg", "v/2.jpg"]
    assert reasons(found) == {3: "malformed"}
    (refused,) = found.listing.refused
    assert refused.refusal.message.startswith(message)


def test_missing_images_are_refused_and_no_other_image_stands_in(tmp_path: Path) -> None:
    found = read(tmp_path, row("v/1.jpg"), row("v/missing.jpg"), row("../1.jpg"), row("/v/1.jpg"))
    assert [image.path for image in found.listing.images] == ["v/1.jpg"]
    assert reasons(found) == {3: "missing", 4: "outside", 5: "outside"}
    # They count as lines of the file, which is what is published.
    assert found.counts.labelled == 4


def test_of_repeated_lines_one_is_kept_and_contradictions_are_all_refused(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        row("v/1.jpg"),
        row("v/2.jpg", 0.1),
        row("v/1.jpg"),
        row("./v/1.jpg", "0.10"),
        row("v/2.jpg", 0.2),
    )
    assert [(image.path, image.line) for image in found.listing.images] == [("v/1.jpg", 2)]
    assert found.listing.repeats == 2
    assert reasons(found) == {3: "contradiction", 6: "contradiction"}
    assert "lines 3, 6 say different things of v/2.jpg" in found.listing.refused[0].refusal.message


def test_images_of_which_nothing_is_known_are_counted_and_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, row("v/1.jpg"), row("v/2.jpg", -5, -5, -1, UNKNOWN_AUS))
    assert len(found.listing.images) == 1
    assert found.listing.unlabelled == 1
    assert found.counts.labelled == 1


def test_two_people_of_one_recording_are_one_group() -> None:
    assert group_of("video12_left/00001.jpg") == group_of("video12_right/3.jpg") == "video12"
    assert group_of("left_video/1.jpg") == "left_video"
    assert group_of("video12_left_2/1.jpg") == "video12_left_2"


def test_a_header_in_another_order_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("image,arousal,valence,expression,aus\n" + row("v/1.jpg"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"list.txt has the columns image, arousal, valence"):
        read_annotations(file, ImageFolder(tmp_path), "train")
    file.write_bytes(b"\xff\xfe1")
    with pytest.raises(ValueError, match="no text in UTF-8"):
        read_annotations(file, ImageFolder(tmp_path), "train")


def test_a_file_without_a_header_begins_with_its_first_line(tmp_path: Path) -> None:
    file = write_list(tmp_path, [row("v/1.jpg")])
    file.write_text(row("v/1.jpg") + "\n", encoding="utf-8")
    (image,), *_ = read_annotations(file, ImageFolder(tmp_path / "cropped_aligned"), "").listing
    assert image.line == 1


def test_counts_are_of_lines_and_stand_beside_the_published_ones(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        row("v/1.jpg", 0.1, 0.1, 0),
        row("v/1.jpg", 0.1, 0.1, 0),
        row("v/2.jpg", -5, -5, 7, UNKNOWN_AUS),
        row("v/3.jpg", 0.1, -5, -1, "-1," * 11 + "1"),
    )
    assert found.counts[:4] == (4, 2, 3, 3)
    assert found.counts.classes == (2, 0, 0, 0, 0, 0, 0, 1)
    assert found.counts.positives == (2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 1)
    said = compare_counts(found.counts, "train")
    assert said[0] == "lines with a label: 4, published 142,333"
    assert "happy: 0, published 18,135" in said
    assert said[-1] == "AU26 active: 1, published 10,756"
    assert (
        compare_counts(PUBLISHED["train"], "train")[0]
        == "lines with a label: 142,333, as published"
    )


def test_the_published_counts_agree_with_one_another() -> None:
    for counts in PUBLISHED.values():
        assert sum(counts.classes) == counts.expression
        assert len(counts.classes) == len(EXPRESSIONS)
        assert len(counts.positives) == len(AUS)
        assert max(counts.positives) < counts.aus
    lines = sum(counts.labelled for counts in PUBLISHED.values())
    assert lines - 168_097 == 1_112  # images in the folders; so many lines are repeats at least


def test_a_submission_has_a_line_for_each_line_of_the_test_list(tmp_path: Path) -> None:
    listed = ["v/2.jpg", "v/1.jpg", "v/2.jpg"]
    file = tmp_path / "test.txt"
    file.write_bytes(("\ufeffimage,\r\n" + ",\r\n".join(listed) + ",\r\n").encode())
    assert read_test_list(file) == listed
    aus = (True, *[False] * 11)
    answers = {
        "v/1.jpg": Answer(1.25, -0.5, "other", aus),
        "v/2.jpg": Answer(0.123456789, 0, "neutral", aus[::-1]),
    }
    out = tmp_path / "submission.txt"
    write_submission(out, read_test_list(file), answers)
    header, *lines = out.read_text(encoding="utf-8").splitlines()
    assert header == "image,valence,arousal,expression,aus"
    assert lines[0] == lines[2] == "v/2.jpg,0.123457,0.000000,0,0,0,0,0,0,0,0,0,0,0,0,1"
    # A reader of the format takes it; a prediction beyond the scale ends at it.
    assert parse_labels(lines[1].split(",")) == Labels("other", 1, -0.5, aus)
    with pytest.raises(ValueError, match=r"1 listed images have no prediction, such as v/3\.jpg"):
        write_submission(out, [*listed, "v/3.jpg"], answers)


def test_a_test_list_with_labels_is_refused(tmp_path: Path) -> None:
    file = write_list(tmp_path, [row("v/1.jpg")])
    with pytest.raises(ValueError, match="line 2: 16 cells where one image belongs"):
        read_test_list(file)


def test_a_manifest_keeps_what_is_known_and_what_is_not(tmp_path: Path) -> None:
    rows = [row("v/1.jpg", -5, 0.3, -1, "1,-1,0" + ",-1" * 9), row("w_left/1.jpg")]
    images = read(tmp_path, *rows).listing.images
    write_images(tmp_path / "images.parquet", images)
    assert read_images(tmp_path / "images.parquet") == images
    truth = truth_of(images, EXPRESSIONS)
    assert truth.valence_arousal_known.tolist() == [[False, True], [True, True]]
    assert truth.valence_arousal[0, 1] == 0.3
    assert truth.expression_known.tolist() == [False, True]
    assert truth.expression[1] == 4
    assert truth.aus_known[0].tolist() == [True, False, True, *[False] * 9]
    assert truth.aus[0].tolist() == [True, *[False] * 11]
    again = truth_from(targets_of(truth))
    assert all((a == b).all() for a, b in zip(again[1:], truth[1:], strict=True))
    with pytest.raises(ValueError, match=r"of w_left/1\.jpg is 'happy', none of sad"):
        truth_of(images, ("sad",))
