"""Whether a model's outputs stand for other classes than those that were said.

Shape letters: C classes, N clips.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.common.vocabulary import normalise_label
from pipeline.scores.metrics import Labels

# In which data sets and codes number their classes.
_ORDERS = {
    "RAVDESS's file names": "neutral calm happy sad angry fear disgust surprised",
    "AffectNet": "neutral happy sad surprised fear disgust angry contempt",
    "DFEW": "happy sad neutral angry surprised disgust fear",
    "FER2013": "angry disgust fear happy sad surprised neutral",
    "RAF-DB": "surprised fear disgust happy sad angry neutral",
}


class LabelOrder(NamedTuple):
    """What a model's outputs may stand for: C classes in the order of the outputs."""

    name: str
    classes: list[str]


def known_orders(classes: Sequence[str]) -> list[LabelOrder]:
    """The orders that occur elsewhere and hold all of these classes, those alone; not their own.

    Args:
        classes: C names in the order that was said.
    """
    own = [normalise_label(name) for name in classes]
    spelt = dict(zip(own, classes, strict=True))
    found = []
    orders = {"alphabetical": sorted(own)} | {name: text.split() for name, text in _ORDERS.items()}
    for name, words in orders.items():
        order = [word for word in words if word in own]
        if len(order) == len(own) and order != own:
            found.append(LabelOrder(name, [spelt[word] for word in order]))
    return found


def best_order(classes: Sequence[str], actual: Labels, predicted: Labels) -> LabelOrder:
    """Of all C! orders the one with the highest UAR on these clips, by which it is chosen.

    Args:
        classes: C names in the order that was said.
        actual: (N,) true class indices.
        predicted: (N,) numbers of the largest outputs.
    """
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (predicted, actual), 1)
    clips = counts.sum(axis=0)
    shares = np.divide(counts, clips, out=np.zeros_like(counts), where=clips > 0)
    # Where two orders are equally good, the one nearest to what was said.
    shares += 1e-9 * np.eye(len(classes))
    _, chosen = linear_sum_assignment(shares, maximize=True)
    order = [classes[i] for i in chosen]
    return LabelOrder(f"best of all on these clips: {', '.join(order)}", order)


def renumber(predicted: Labels, said: Sequence[str], order: LabelOrder) -> Labels:
    """Predictions (N,) as numbers of the classes that were said, were `order` the right one."""
    places = np.array([list(said).index(name) for name in order.classes], np.int64)
    renumbered: Labels = places[predicted]
    return renumbered
