"""How good predictions are: UAR, WAR, F1, calibration, confusion, box overlap, landmark error.

Shape letters: N clips, C classes, T frames, M bins.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

Labels = npt.NDArray[np.int64]
Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
NUM_BINS = 15  # of confidences
MIN_EYES = 0.2  # fraction of a box's size


class Recalls(NamedTuple):
    """UAR, WAR and the recall of each of the C classes; NaN for a class without a clip."""

    uar: float
    war: float
    per_class: list[float]


def recalls(labels: Labels, predicted: Labels, num_classes: int) -> Recalls:
    """Recall of each class, their unweighted mean (UAR), and the accuracy (WAR).

    WAR is the mean of the recalls weighted by clips. A class without a clip does not count in UAR.

    Args:
        labels: (N,) true class indices.
        predicted: (N,) predicted class indices.
        num_classes: C.

    Source: MTCAE-DFER, section IV.A.
    """
    present = np.unique(labels)
    found = recall_score(labels, predicted, labels=present, average=None)
    per_class = np.full(num_classes, np.nan)
    per_class[present] = found
    return Recalls(
        float(found.mean()), float(accuracy_score(labels, predicted)), per_class.tolist()
    )


def macro_f1(labels: Labels, predicted: Labels, num_classes: int) -> float:
    """Unweighted mean of the F1 scores of the classes that occur in `labels`.

    A class that is only ever predicted, wrongly, counts through the recalls that it costs others.

    Args:
        labels: (N,) true class indices.
        predicted: (N,) predicted class indices.
        num_classes: C.
    """
    scores = f1_score(labels, predicted, labels=range(num_classes), average=None, zero_division=0)
    return float(scores[np.unique(labels)].mean())


def expected_calibration_error(
    labels: Labels, probabilities: npt.NDArray[np.floating], num_bins: int = NUM_BINS
) -> float:
    """How far the probability of the predicted class is from the share of right predictions.

    Mean over clips of the gap between the two within M bins of equal width, (m - 1) / M excluded
    and m / M included: 0 where probabilities can be taken at their word, at most 1.

    Args:
        labels: (N,) true class indices.
        probabilities: (N, C) in [0, 1], each row sums to 1.
        num_bins: M.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.ceil(confidence * num_bins).astype(np.int64)
    gaps = np.bincount(bins, weights=right - confidence)
    return float(np.abs(gaps).sum() / len(labels))


def confusion(labels: Labels, predicted: Labels, num_classes: int) -> npt.NDArray[np.int64]:
    """(C, C) counts of clips: row is the true class, column the predicted one."""
    counts: npt.NDArray[np.int64] = confusion_matrix(labels, predicted, labels=range(num_classes))
    return counts


def box_iou(boxes: Array, targets: Array, mask: Mask) -> Array:
    """Mean overlap of predicted and true boxes over the known frames of each clip.

    Args:
        boxes: (N, T, 4) x, y, w, h; a negative width or height counts as zero.
        targets: (N, T, 4) x, y, w, h.
        mask: (N, T) frames whose target is known.

    Returns:
        (N,) intersection over union in [0, 1]; NaN where no frame of a clip is known.
    """
    start = np.maximum(boxes[..., :2], targets[..., :2])
    sides, target_sides = np.maximum(boxes[..., 2:], 0), targets[..., 2:]
    end = np.minimum(boxes[..., :2] + sides, targets[..., :2] + target_sides)
    intersection = np.prod(np.maximum(end - start, 0), axis=-1)
    union = np.prod(sides, axis=-1) + np.prod(target_sides, axis=-1) - intersection
    return _mean_over_known(intersection / np.maximum(union, 1e-12), mask)


def landmark_error(points: Array, targets: Array, boxes: Array, mask: Mask) -> Array:
    """Mean distance of predicted from true landmarks, in sizes of the face's box.

    The size is the square root of the box's area. The distance between the eyes, the more common
    measure, vanishes in a profile: see `interocular_error`.

    Args:
        points: (N, T, 5, 2) x, y.
        targets: (N, T, 5, 2) x, y.
        boxes: (N, T, 4) x, y, w, h of the true faces, in the same units.
        mask: (N, T) frames whose targets are known.

    Returns:
        (N,) errors; NaN where no frame of a clip is known.

    Source: "NME box" of face alignment (Bulat and Tzimiropoulos, 2017, equation 1).
    """
    return _mean_over_known(_distances(points, targets) / _box_sizes(boxes), mask)


def interocular_error(points: Array, targets: Array, boxes: Array, mask: Mask) -> Array:
    """Mean distance of predicted from true landmarks, in distances between the true eyes.

    Only over frames in which the eyes are at least `MIN_EYES` of the box's size apart, about half
    of what they are in a frontal face. Arguments and result as in `landmark_error`.
    """
    eyes = np.linalg.norm(targets[..., 0, :] - targets[..., 1, :], axis=-1)
    frontal = mask & (eyes >= MIN_EYES * _box_sizes(boxes))
    return _mean_over_known(_distances(points, targets) / np.maximum(eyes, 1e-12), frontal)


def _distances(points: Array, targets: Array) -> Array:
    """(N, T) mean over the landmarks."""
    distances: Array = np.linalg.norm(points - targets, axis=-1).mean(axis=-1)
    return distances


def _box_sizes(boxes: Array) -> Array:
    sizes: Array = np.sqrt(np.maximum(boxes[..., 2] * boxes[..., 3], 1e-12))
    return sizes


def _mean_over_known(values: Array, mask: Mask) -> Array:
    known = mask.sum(axis=1)
    sums = np.where(mask, values, 0).sum(axis=1)
    means: Array = np.divide(sums, known, out=np.full(len(sums), np.nan), where=known > 0)
    return means
