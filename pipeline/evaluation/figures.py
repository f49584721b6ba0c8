"""Figures of one experiment: SVG for the inside of a page, and PNG.

An SVG carries neither size nor style attributes, so the page's style sheet and its content policy
rule over it; what is black here is drawn in the colour of the page's text. Equal input gives equal
bytes.

Shape letters: N clips, C classes, M bins.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.scores.metrics import Labels

# Readable on white and on black.
_BLUE = "#3b82f6"
# Of a full cell: it takes white text, and its lighter shades text of the page's colour.
_DARK_BLUE = "#1d4ed8"
_WHITE_TEXT = 0.75  # share of a row from which white is the more readable
_MAX_FOLD_COLOURS = 10

STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "grid.alpha": 0.15,
    "grid.color": "black",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of classes are plain text, with or without a dollar sign
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


class Bin(NamedTuple):
    """Clips whose predicted classes have about the same probability.

    Attributes:
        clips: How many.
        confidence: Mean probability of the predicted class; NaN without clips.
        accuracy: Share of right predictions; NaN without clips.
    """

    clips: int
    confidence: float
    accuracy: float


@style.context(STYLE, after_reset=True)
def confusion_svg(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    """Counts and shares of each true class in a coloured grid.

    Args:
        counts: (C, C) clips: row is the true class, column the predicted one.
        classes: C names.
    """
    return _svg(_confusion(counts, classes), "Confusion matrix")


@style.context(STYLE, after_reset=True)
def save_confusion(path: Path, counts: npt.NDArray[np.int64], classes: Sequence[str]) -> None:
    """Write the figure of `confusion_svg` as a PNG on white."""
    # Without the entry that names the version of Matplotlib.
    _confusion(counts, classes).savefig(path, format="png", dpi=150, metadata={"Software": None})


def _confusion(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> Figure:
    count = len(classes)
    clips = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, clips, out=np.zeros(counts.shape), where=clips > 0)
    side = 1.4 + 0.62 * max(count, 3)  # inches
    figure = Figure(figsize=(side, side - 0.3))
    axes = figure.subplots()
    for i, j in np.ndindex(count, count):
        share = shares[i, j]
        # Bars and not a picture: a cell is a shape that any background shines through.
        axes.barh(i, 0.96, 0.96, j - 0.48, color=_DARK_BLUE, alpha=share, linewidth=0)
        colour = "white" if share > _WHITE_TEXT else "black"
        if counts[i, j]:
            axes.text(j, i - 0.03, f"{counts[i, j]}", color=colour, ha="center", size=11)
            axes.text(j, i + 0.27, f"{share:.0%}", color=colour, ha="center", size=8)
        else:
            axes.text(j, i + 0.1, "0", alpha=0.35, ha="center", size=9)
    axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal")
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_xticks(range(count), classes, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), classes)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return figure


@style.context(STYLE, after_reset=True)
def recall_svg(recalls: Sequence[float], classes: Sequence[str]) -> str:
    """A bar for each of the C classes; recalls in [0, 1], NaN for a class without a clip."""
    figure = Figure(figsize=(5.2, 0.8 + 0.36 * len(classes)))
    axes = figure.subplots()
    axes.barh(range(len(classes)), np.nan_to_num(recalls), 0.7, color=_BLUE)
    for i, recall in enumerate(recalls):
        known = not np.isnan(recall)
        text = f"{recall:.0%}" if known else "no clips"
        axes.text(recall + 0.01 if known else 0.01, i, text, va="center", size=9)
    axes.set(xlim=(0, 1.08), ylim=(len(classes) - 0.5, -0.5), xlabel="recall")
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_yticks(range(len(classes)), classes)
    axes.grid(axis="y", visible=False)
    return _svg(figure, "Recall per class")


@style.context(STYLE, after_reset=True)
def learning_curve_svg(histories: Mapping[int, pd.DataFrame], column: str, name: str) -> str:
    """A line per fold over its epochs.

    Args:
        histories: Of each fold, a row per epoch.
        column: What is drawn, besides `epoch`.
        name: The same for people.
    """
    figure = Figure(figsize=(4.2, 3.2))
    axes = figure.subplots()
    few = len(histories) <= _MAX_FOLD_COLOURS
    for i, (fold, history) in enumerate(histories.items()):
        look = {"color": f"C{i}"} if few else {"color": _BLUE, "alpha": 0.4}
        axes.plot(history["epoch"], history[column], label=f"fold {fold}", linewidth=1.4, **look)
    axes.set(xlabel="epoch", ylabel=name)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if few:
        figure.legend(loc="outside lower center", ncols=5, fontsize=8, handlelength=1)
    return _svg(figure, f"{name} over the epochs")


@style.context(STYLE, after_reset=True)
def reliability_svg(bins: Sequence[Bin]) -> str:
    """Accuracy over probability, and below it how many clips each of the M bins holds."""
    figure = Figure(figsize=(4.6, 4.8))
    above: Axes
    below: Axes
    above, below = figure.subplots(2, height_ratios=(3, 1), sharex=True)
    width = 1 / len(bins)
    centres = (np.arange(len(bins)) + 0.5) * width
    above.bar(centres, [np.nan_to_num(b.accuracy) for b in bins], width * 0.92, color=_BLUE)
    above.plot([0, 1], [0, 1], "--", color="black", linewidth=1)
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right")
    below.bar(centres, [b.clips for b in bins], width * 0.92, color=_BLUE, alpha=0.5)
    below.set(xlabel="probability of the predicted class", ylabel="clips")
    for axis in (above.xaxis, above.yaxis):
        axis.set_major_formatter("{x:.0%}")
    return _svg(figure, "Reliability diagram")


def reliability_bins(
    labels: Labels, probabilities: npt.NDArray[np.floating], num_bins: int
) -> list[Bin]:
    """The M bins of `expected_calibration_error`, from the lowest probability to the highest.

    Args:
        labels: (N,) true class indices.
        probabilities: (N, C) in [0, 1].
        num_bins: M.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    places = np.minimum(np.ceil(confidence * num_bins), num_bins).astype(np.int64) - 1
    return [
        Bin(int(there.sum()), confidence[there].mean(), right[there].mean())
        if (there := places == place).any()
        else Bin(0, np.nan, np.nan)
        for place in range(num_bins)
    ]


def _svg(figure: Figure, title: str) -> str:
    """The figure as an element of an HTML page."""
    stream = io.StringIO()
    # The salt makes ids the same in every run; with the title, those of two figures differ.
    with matplotlib.rc_context({"svg.hashsalt": title}):
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=metadata)
    drawn = stream.getvalue()
    root = ElementTree.fromstring(drawn)
    for definitions in root.findall("{*}defs"):
        for rules in definitions.findall("{*}style"):
            definitions.remove(rules)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        looks = [look.split(":", 1) for look in attributes.pop("style", "").split(";") if look]
        attributes |= {name.strip(): value.strip() for name, value in looks}
        attributes.pop("font-family", None)
        if f"#{attributes.get('id')}" not in drawn:
            attributes.pop("id", None)
        element.attrib = {
            name: "currentColor" if value == "#000000" else value
            for name, value in attributes.items()
        }
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": title,
        "fill": "currentColor",
        "stroke-linejoin": "round",
    }
    return ElementTree.tostring(root, encoding="unicode")
