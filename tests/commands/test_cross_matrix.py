from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from commands.cross_matrix import Cell, matrix_page, matrix_table, save_heat_map
from pipeline.evaluation.classes import class_mapping

# Of every subject two clips: one of each class.
SUBJECTS = [f"s{number}" for number in range(12)]


def predictions(right: int, sure: float, classes: tuple[str, str], fold: int = 1) -> pd.DataFrame:
    """Each class is answered right for so many subjects, always with this probability."""
    rows = []
    for number, subject in enumerate(SUBJECTS):
        for actual, other in (classes, classes[::-1]):
            answer = actual if number < right else other
            shares = {f"probability_{name}": 1 - sure for name in classes}
            rows.append(
                {
                    "fold": fold,
                    "clip": f"{subject}{actual}",
                    "subject": subject,
                    "actual": actual,
                    "predicted": answer,
                    "box_iou": np.nan,
                    "landmark_error": np.nan,
                    **shares,
                    f"probability_{answer}": sure,
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture
def table() -> pd.DataFrame:
    """Two models of `one` on `two`, and each on its own; `two` calls sad sadness."""
    own = class_mapping(["happy", "sad"], ["happy", "sad"])
    other = class_mapping(["happy", "sad"], ["happy", "sadness"])
    pooled = pd.concat(
        [predictions(6, 0.9, ("happy", "sad")), predictions(9, 0.9, ("happy", "sad"), fold=2)]
    )
    scratch = ["Encoder from_scratch: random numbers"]
    return matrix_table(
        [
            Cell("one", "one", predictions(9, 0.75, ("happy", "sad")), own, scratch),
            Cell("one", "two", pooled, other, scratch),
            Cell("two", "two", predictions(12, 0.6, ("happy", "sad")), own, scratch),
        ]
    )


def test_scores_and_calibration_are_those_counted_by_hand(table: pd.DataFrame) -> None:
    assert table["uar"].tolist() == pytest.approx([9 / 12, 15 / 24, 1.0])
    assert table["war"].tolist() == pytest.approx([9 / 12, 15 / 24, 1.0])
    # One confidence each, so that one bin has all clips: | share that is right - confidence |.
    gaps = [0.0, 0.9 - 15 / 24, 0.4]
    assert table["calibration_error"].tolist() == pytest.approx(gaps)
    assert table["clips"].tolist() == [24, 24, 24]
    assert table["subjects"].tolist() == [12, 12, 12]
    assert table["classes"].tolist() == ["happy sad"] * 3
    assert all(table["uar_low"][:2] < table["uar"][:2])
    assert all(table["uar"][:2] < table["uar_high"][:2])


def test_the_page_has_a_row_and_a_column_per_data_set(table: pd.DataFrame) -> None:
    page = matrix_page(table, ["two on one: other frames"], restrict=False)
    lines = page.splitlines()
    assert lines[2] == "| trained on | one | two |"
    one, two = lines[4].split(" | "), lines[5].split(" | ")
    assert one[0] == "| one"
    assert one[1].startswith("75.0% (")
    assert one[2].startswith("62.5% (")
    assert two[:2] == ["| two", "-"]
    assert "| one | two | 24 | 12 | 2: happy sad | 62.5%" in page
    assert "15 bins of equal width" in page
    assert "- Not filled: two on one: other frames" in page


def test_the_heat_map_is_darker_where_the_uar_is_higher(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    for name in ("a.png", "b.png"):
        save_heat_map(tmp_path / name, table)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    colours = np.unique(picture.reshape(-1, 3), axis=0)
    # Matplotlib's map `Blues` at the three UARs; the PNG may round a level otherwise.
    for uar in table["uar"]:
        expected = np.array(matplotlib.colormaps["Blues"](uar, bytes=True)[:3], int)
        assert np.abs(colours - expected).max(axis=1).min() <= 1
