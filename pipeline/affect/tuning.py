"""Thresholds of action units and smoothing over frames, chosen on groups that are not tested.

Shape letters: N pictures, U action units, K numbers of a picture.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from pipeline.affect.labels import LabelledImage
from pipeline.affect.metrics import Answers, Mask, Numbers, au_f1, score
from pipeline.affect.predictions import HALF, Evaluation

# Candidates: probabilities, and frames on either side over which a mean is taken.
THRESHOLDS = np.linspace(0.05, 0.95, 19)
RADII = (0, 1, 2, 4, 8, 16)


class Frames(NamedTuple):
    """Which frame of which track each of N pictures is; tracks are single people's."""

    tracks: list[str]
    numbers: list[int]


class Tuning(NamedTuple):
    """How probabilities become answers.

    Attributes:
        thresholds: (U,) probability from which on a unit is said to be active.
        radius: Frames on either side over which numbers and probabilities are averaged.
    """

    thresholds: Numbers
    radius: int

    def answers(self, evaluation: Evaluation, frames: Frames) -> Answers:
        """What is said of the pictures."""
        return smooth(evaluation, frames, self.radius).answers(self.thresholds)


UNTUNED = Tuning(HALF, 0)


def tune(validation: Evaluation, frames: Frames, *, radii: Sequence[int] = RADII) -> Tuning:
    """The radius with the highest P_MTL, each with the thresholds that are best for it.

    Terms of P_MTL that have no labels do not count. Of equal ones the smaller radius is taken, and
    the threshold closest to one half.

    Args:
        validation: Of groups that the model was not trained on and is not tested on.
        frames: Of its pictures.
        radii: Candidates; (0,) for no smoothing.
    """
    best, highest = UNTUNED, -np.inf
    for radius in sorted(radii):
        smoothed = smooth(validation, frames, radius)
        truth = validation.truth
        thresholds = best_thresholds(smoothed.aus, truth.aus, truth.aus_known)
        found = score(smoothed.answers(thresholds), truth, smoothed.expression.shape[1])
        terms = [found.valence_arousal, found.expression, found.mean_au]
        if np.nansum(terms) > highest:
            best, highest = Tuning(thresholds, radius), float(np.nansum(terms))
    return best


def check_groups(validation: Evaluation, tested: Evaluation) -> None:
    """Refuse to test on what thresholds and smoothing have seen.

    Raises:
        ValueError: A group is in both.
    """
    if shared := sorted(set(validation.groups) & set(tested.groups)):
        raise ValueError(
            f"{len(shared)} groups, such as {shared[0]}, are tested and have chosen the thresholds "
            "and the smoothing: take others for one of the two"
        )


def best_thresholds(probabilities: Numbers, aus: Mask, known: Mask) -> Numbers:
    """(U,) the threshold of each unit with the highest F1; one half where none is better.

    Args:
        probabilities: (N, U).
        aus: (N, U) whether a unit is active.
        known: (N, U).
    """
    # The first of equal ones is taken: the one closest to one half.
    candidates = THRESHOLDS[np.argsort(np.abs(THRESHOLDS - 0.5), kind="stable")]
    found = np.array([au_f1(aus, probabilities >= one, known) for one in candidates])
    best: Numbers = candidates[np.nan_to_num(found).argmax(axis=0)]
    return best


def frames_of(images: Sequence[LabelledImage]) -> Frames:
    """By the paths: a folder for a track, the number of the frame for a name.

    Raises:
        ValueError: A file's name is no number.
    """
    paths = [PurePosixPath(image.path) for image in images]
    for path in paths:
        if not path.stem.isdecimal():
            raise ValueError(f"{path} is not named by the number of its frame: no smoothing")
    return Frames([str(path.parent) for path in paths], [int(path.stem) for path in paths])


def smooth(evaluation: Evaluation, frames: Frames, radius: int) -> Evaluation:
    """Means over the frames of a track that are at most `radius` frames away; missing ones lack.

    Args:
        evaluation: Of N pictures.
        frames: Which they are.
        radius: 0 leaves all as it is.
    """
    if not radius:
        return evaluation
    width = evaluation.expression.shape[1]
    columns = [evaluation.valence_arousal, evaluation.expression, evaluation.aus]
    values = np.concatenate(columns, axis=1)
    means = np.empty_like(values)
    tracks, numbers = np.asarray(frames.tracks), np.asarray(frames.numbers)
    for track in np.unique(tracks):
        own = np.flatnonzero(tracks == track)
        own = own[np.argsort(numbers[own], kind="stable")]
        sums = np.concatenate([np.zeros((1, values.shape[1])), values[own].cumsum(axis=0)])
        first = np.searchsorted(numbers[own], numbers[own] - radius)
        end = np.searchsorted(numbers[own], numbers[own] + radius, side="right")
        means[own] = (sums[end] - sums[first]) / (end - first)[:, None]
    return evaluation._replace(
        valence_arousal=means[:, :2],
        expression=means[:, 2 : 2 + width],
        aus=means[:, 2 + width :],
    )
