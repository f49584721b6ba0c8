"""How good predictions of valence, arousal, expression and action units are.

Shape letters: N images, C classes, U action units.

Source: the multi-task challenge of ABAW4 (arXiv 2202.10659), section 2, whose P_MTL is the sum of a
mean CCC, a macro F1 and a mean F1 over the action units.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score

Numbers = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Truth(NamedTuple):
    """What is known of N images; what the arrays hold where it is not known does not matter.

    Attributes:
        valence_arousal: (N, 2) in [-1, 1].
        valence_arousal_known: (N, 2).
        expression: (N,) class indices.
        expression_known: (N,).
        aus: (N, U) whether a unit is active.
        aus_known: (N, U): every unit has a mask of its own.
    """

    valence_arousal: Numbers
    valence_arousal_known: Mask
    expression: Labels
    expression_known: Mask
    aus: Mask
    aus_known: Mask


class Answers(NamedTuple):
    """What is said of N images: numbers (N, 2), class indices (N,), active or not (N, U)."""

    valence_arousal: Numbers
    expression: Labels
    aus: Mask


class Scores(NamedTuple):
    """CCC of valence and arousal, F1 of each class and of each unit; NaN where nothing is known."""

    valence: float
    arousal: float
    classes: list[float]
    aus: list[float]

    @property
    def valence_arousal(self) -> float:
        """The mean CCC."""
        return (self.valence + self.arousal) / 2

    @property
    def expression(self) -> float:
        """The macro F1 over all classes of the list."""
        return float(np.mean(self.classes))

    @property
    def mean_au(self) -> float:
        """The mean F1 over the units of which something is known."""
        known = [f1 for f1 in self.aus if not np.isnan(f1)]
        return float(np.mean(known)) if known else float("nan")

    @property
    def p_mtl(self) -> float:
        """The challenge's measure, at most 3; NaN where one of its three terms is."""
        return self.valence_arousal + self.expression + self.mean_au


def concordance(predicted: Numbers, labels: Numbers) -> float:
    """The concordance correlation coefficient (CCC) of N numbers with N labels.

    2 cov / (var + var + (mean - mean)^2), with population variances: 1 for equal numbers; 0 where
    numbers or labels are constant, also the same constant; NaN where N is 0.

    Source: Lin, A Concordance Correlation Coefficient to Evaluate Reproducibility, 1989.
    """
    if not len(labels):
        return float("nan")
    x, y = predicted.astype(np.float64), labels.astype(np.float64)
    if not (np.ptp(x) and np.ptp(y)):  # rounding would leave some variance
        return 0.0
    x_mean, y_mean = x.mean(), y.mean()
    covariance = ((x - x_mean) * (y - y_mean)).mean()
    return float(2 * covariance / (x.var() + y.var() + (x_mean - y_mean) ** 2))


def class_f1(labels: Labels, predicted: Labels, num_classes: int) -> list[float]:
    """F1 of each of C classes; 0 for a class that nobody names rightly, also if it never occurs.

    The mean over all C is the challenge's macro F1. A mean over the classes present would rise with
    every class that a split happens to lack.

    Args:
        labels: (N,) true class indices.
        predicted: (N,) predicted class indices.
        num_classes: C.

    Returns:
        C numbers; all NaN where N is 0.
    """
    if not len(labels):
        return [float("nan")] * num_classes
    found = f1_score(labels, predicted, labels=range(num_classes), average=None, zero_division=0)
    return [float(f1) for f1 in found]


def au_f1(aus: Mask, predicted: Mask, known: Mask) -> list[float]:
    """F1 of each unit's positives, over the images in which that unit is known.

    Args:
        aus: (N, U) whether a unit is active.
        predicted: (N, U).
        known: (N, U).

    Returns:
        U numbers: 0 where no image is rightly called active, NaN where a unit is never known.
    """
    right = (aus & predicted & known).sum(axis=0)
    named = ((aus.astype(int) + predicted) * known).sum(axis=0)
    f1 = np.divide(2 * right, named, out=np.zeros(len(right)), where=named > 0)
    values: list[float] = np.where(known.any(axis=0), f1, np.nan).tolist()
    return values


def score(answers: Answers, truth: Truth, num_classes: int) -> Scores:
    """Every score over the images in which its own label is known.

    Args:
        answers: For N images.
        truth: Of the same images.
        num_classes: C, of the named list, whether they occur or not.
    """
    valence, arousal = (
        concordance(answers.valence_arousal[known, i], truth.valence_arousal[known, i])
        for i, known in enumerate(truth.valence_arousal_known.T)
    )
    named = truth.expression_known
    return Scores(
        valence,
        arousal,
        class_f1(truth.expression[named], answers.expression[named], num_classes),
        au_f1(truth.aus, answers.aus, truth.aus_known),
    )


class Prevalence(NamedTuple):
    """How often something occurs among the images in which it is known; NaN where it never is.

    Attributes:
        classes: Share of each class, C numbers.
        aus: Share of the images in which a unit is active, U numbers.
    """

    classes: list[float]
    aus: list[float]


def prevalence(truth: Truth, num_classes: int) -> Prevalence:
    """The shares beside which F1 scores are to be read."""
    named = truth.expression[truth.expression_known]
    counts = np.bincount(named, minlength=num_classes)
    classes = counts / len(named) if len(named) else np.full(num_classes, np.nan)
    active, known = (truth.aus & truth.aus_known).sum(axis=0), truth.aus_known.sum(axis=0)
    aus = np.divide(active, known, out=np.full(len(known), np.nan), where=known > 0)
    return Prevalence(classes.tolist(), aus.tolist())


def constant_answers(training: Truth, num_images: int, num_classes: int) -> Answers:
    """What a predictor says that looks at no image, and is as good as such a one can be.

    Mean valence and arousal (CCC 0), the most frequent class (F1 2 p / (1 + p) for it, 0 for the
    others), and every unit active (F1 2 p / (1 + p); never active would score 0).

    Args:
        training: Of which it knows the frequencies.
        num_images: N.
        num_classes: C.
    """
    known = training.valence_arousal_known
    sums = np.where(known, training.valence_arousal, 0).sum(axis=0)
    means = sums / np.maximum(known.sum(axis=0), 1)
    named = training.expression[training.expression_known]
    majority = np.bincount(named, minlength=num_classes).argmax()
    return Answers(
        np.tile(means, (num_images, 1)),
        np.full(num_images, majority, np.int64),
        np.ones((num_images, training.aus.shape[1]), np.bool_),
    )
