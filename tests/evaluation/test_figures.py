from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.evaluation.figures import (
    Bin,
    confusion_svg,
    learning_curve_svg,
    recall_svg,
    reliability_bins,
    reliability_svg,
    save_confusion,
)
from pipeline.scores.metrics import expected_calibration_error

COUNTS = np.array([[3, 1], [0, 4]])


def test_a_cell_is_as_opaque_as_its_share_of_the_row() -> None:
    cells = [
        path
        for path in ElementTree.fromstring(confusion_svg(COUNTS, ["a", "b"])).iter("path")
        if path.get("fill") == "#1d4ed8"
    ]
    # A full cell needs no opacity; one without clips is not drawn.
    assert [cell.get("opacity", "1") for cell in cells] == ["0.75", "0.25", "1"]


def test_the_picture_of_the_confusion_shows_full_cells_on_white(tmp_path: Path) -> None:
    save_confusion(tmp_path / "one.png", np.diag([2, 1, 5]), ["a", "b", "c"])
    save_confusion(tmp_path / "two.png", np.diag([2, 1, 5]), ["a", "b", "c"])
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
        assert not picture.info.keys() & {"Software", "Creation Time"}
    assert pixels[0, 0].tolist() == [255, 255, 255]
    blue = (pixels == (0x1D, 0x4E, 0xD8)).all(axis=2)
    rows, columns = np.nonzero(blue)
    # Three squares down the diagonal: a third of the rows and columns are blue at a time.
    extent = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert blue.sum() / extent == pytest.approx(1 / 3, abs=0.03)


def test_figures_do_not_depend_on_the_settings_of_matplotlib() -> None:
    plain = recall_svg([0.5, np.nan], ["a", "b"])
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        assert recall_svg([0.5, np.nan], ["a", "b"]) == plain


def test_bars_are_as_long_as_the_recalls() -> None:
    drawing = ElementTree.fromstring(recall_svg([0.5, 1, np.nan], ["a", "b", "c"]))
    lengths = []
    for path in drawing.iter("path"):
        if path.get("fill") == "#3b82f6":
            numbers = [float(x) for x in str(path.get("d")).split()[1::3]]
            lengths.append(max(numbers) - min(numbers))
    assert np.divide(lengths, lengths[1]) == pytest.approx([0.5, 1, 0])


def test_a_curve_is_drawn_for_every_fold() -> None:
    history = pd.DataFrame({"epoch": [1, 2, 3], "validation_uar": [0.1, 0.4, 0.3]})
    for num_folds, num_names in ((3, 3), (24, 0)):
        folds = {fold: history + 0.01 * fold for fold in range(1, num_folds + 1)}
        drawing = ElementTree.fromstring(learning_curve_svg(folds, "validation_uar", "UAR"))
        names = [word.text for word in drawing.iter("text") if str(word.text).startswith("fold")]
        lines = [path for path in drawing.iter("path") if path.get("stroke-width") == "1.4"]
        assert len(names) == num_names
        assert len(lines) == num_folds + num_names  # those of the legend are lines as well


def test_bins_hold_the_clips_between_their_edges() -> None:
    confidence = np.array([0.5, 0.6, 0.7, 0.8, 1])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    bins = reliability_bins(np.array([0, 0, 1, 0, 0]), probabilities, num_bins=4)
    assert [row.clips for row in bins] == [0, 1, 2, 2]
    assert bins[1] == Bin(1, 0.5, 1)
    assert bins[2] == pytest.approx(Bin(2, 0.65, 0.5))
    assert bins[3] == pytest.approx(Bin(2, 0.9, 1))
    assert np.isnan(bins[0].confidence)


def test_bins_are_those_of_the_calibration_error() -> None:
    random = np.random.default_rng(1)
    probabilities = random.dirichlet(np.full(7, 0.3), 500)
    labels = random.integers(7, size=500)
    bins = reliability_bins(labels, probabilities, num_bins=15)
    gaps = [row.clips * abs(row.confidence - row.accuracy) for row in bins if row.clips]
    error = expected_calibration_error(labels, probabilities, num_bins=15)
    assert sum(gaps) / 500 == pytest.approx(error)


def test_bars_of_the_reliability_diagram_are_as_high_as_the_accuracies() -> None:
    svg = reliability_svg([Bin(0, np.nan, np.nan), Bin(2, 0.65, 0.5), Bin(4, 0.9, 1)])
    heights = []
    for path in ElementTree.fromstring(svg).iter("path"):
        if path.get("fill") == "#3b82f6":
            numbers = [float(y) for y in str(path.get("d")).split()[2::3]]
            heights.append(max(numbers) - min(numbers))
    accuracies, clips = heights[:3], heights[3:]
    assert np.divide(accuracies, accuracies[2]) == pytest.approx([0, 0.5, 1])
    assert np.divide(clips, clips[2]) == pytest.approx([0, 0.5, 1])
