from pathlib import Path

import pandas as pd
import pytest

from pipeline.affect.custom_table import read_table
from pipeline.affect.labels import EXPRESSIONS, Labels
from pipeline.affect.listing import ImageFolder
from pipeline.affect.lsd import EXPRESSIONS as LSD_EXPRESSIONS
from pipeline.affect.lsd import read_folders


def touch(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def test_folders_are_known_by_name_and_not_by_their_order(tmp_path: Path) -> None:
    folders = ["ANGRER", "DISGUST", "FEAR", "HAPPINESS", "SADNESS", "SURPRISE"]
    touch(tmp_path, *(f"{name}/{i}.jpg" for name in folders for i in range(2)))
    touch(tmp_path, "FEAR/Thumbs.db", ".cache/1.jpg")
    found = read_folders(tmp_path, LSD_EXPRESSIONS, "train")
    by_folder = {image.path.partition("/")[0]: image.labels for image in found.images}
    assert by_folder == {
        folder: Labels(expression=name)
        for folder, name in zip(folders, LSD_EXPRESSIONS, strict=True)
    }
    assert len({image.group for image in found.images}) == len(found.images) == 12
    assert [line.path for line in found.refused] == ["FEAR/Thumbs.db"]


@pytest.mark.parametrize("extra", ["CONTEMPT", "anger"])
def test_a_folder_that_is_no_class_or_a_second_one_of_it_is_an_error(
    tmp_path: Path, extra: str
) -> None:
    touch(tmp_path, "ANGRER/1.jpg", "FEAR/1.jpg", f"{extra}/1.jpg")
    with pytest.raises(ValueError, match=extra):
        read_folders(tmp_path, LSD_EXPRESSIONS, "train")


TABLE = """path,group,Valence,expression,AU12,au26,age
a.jpg,Anna,0.5,anger,1,,30
b.jpg,Ben,,,,,
c.jpg,Ben,-1.0,,0,1.0,
missing.jpg,Ben,0,,,,
a.jpg,Anna,0.50,Angry,true,,31
d.jpg,Ben,1.5,,,,
d.jpg,,1,,,,
d.jpg,Ben,1,joy,,,
d.jpg,Ben,1,,0.5,,
"""


def test_a_table_has_any_labels_and_blanks_are_unknown(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    table = tmp_path / "images.csv"
    table.write_text(TABLE, encoding="utf-8")
    found = read_table(table, ImageFolder(tmp_path), EXPRESSIONS)
    unknown = (None,) * 12
    assert [(image.path, image.group, image.labels) for image in found.images] == [
        ("a.jpg", "Anna", Labels("angry", 0.5, None, (*unknown[:6], True, *unknown[7:]))),
        ("c.jpg", "Ben", Labels(None, -1, None, (*unknown[:6], False, *unknown[7:11], True))),
    ]
    assert (found.repeats, found.unlabelled) == (1, 1)
    said = {line.number: line.refusal.message for line in found.refused}
    assert list(said) == [5, 7, 8, 9, 10]
    assert said[7] == (
        "valence is 1.5, outside of [-1, 1]; where it is unknown, leave the cell blank"
    )
    assert said[8] == "the group is empty; fill it in or delete the row"
    assert said[9].startswith("expression 'joy' is none of neutral, angry")
    assert said[10].startswith("au12 is 0.5, neither 0 nor 1")


def test_a_parquet_table_is_read_like_one_of_text(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    columns = {
        "path": ["a.jpg", "b.jpg"],
        "group": ["1", "2"],
        "arousal": [0.25, None],
        "au1": [None, True],
        "part": ["train", None],
    }
    pd.DataFrame(columns).to_parquet(tmp_path / "images.parquet")
    first, second = read_table(
        tmp_path / "images.parquet", ImageFolder(tmp_path), EXPRESSIONS
    ).images
    assert (first.labels, first.part, first.line) == (Labels(arousal=0.25), "train", 1)
    assert second.labels == Labels(aus=(True, *[None] * 11))


def test_a_table_without_labels_is_an_error(tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    table.write_text("path,group\na.jpg,1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="1 rows and the label columns none"):
        read_table(table, ImageFolder(tmp_path), EXPRESSIONS)
    table.write_text("path,valence\na.jpg,1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="missing: group"):
        read_table(table, ImageFolder(tmp_path), EXPRESSIONS)
