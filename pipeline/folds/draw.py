"""A few subjects who stand for all: those who choose the epoch, and a test part that is drawn."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.common.clips import StoredClip

# Few subjects have few subsets, which the most draws nearly exhaust. Of many subjects almost every
# draw is close to the whole, so the fewest will do.
MOST_DRAWS, FEWEST_DRAWS = 10_000, 100
# Random numbers in all, between these two limits, and at once, which bounds the memory.
NUMBERS_IN_ALL, NUMBERS_AT_ONCE = 2**21, 2**19


def draw_subjects(clips: Sequence[StoredClip], size: int, seed: int) -> list[str]:
    """So many of the subjects, sorted, whose clips are most like those of all.

    It is the best of many random draws, and of equal ones the first. Better is, in this order:

    1. Fewer classes are left without a clip of the other subjects.
    2. Fewer classes are missing in the draw.
    3. The draw is nearer to the share of the clips that so many of the subjects should have: of
       every class, of every class and sex, and of all.

    The draw depends on clips, size and seed alone, on every machine.

    Args:
        clips: Of all subjects to choose from.
        size: From 1 to one less than the number of subjects.
        seed: Of the draws.
    """
    subjects = np.unique([clip.group for clip in clips])
    by_class = _counts(clips, [clip.label for clip in clips])
    by_class_and_sex = _counts(clips, [f"{clip.label} {clip.sex}" for clip in clips])
    counts = np.hstack([by_class, by_class_and_sex, by_class.sum(1, keepdims=True)])
    num_classes = by_class.shape[1]
    # Who alone shows a class is drawn last, when there is nobody else.
    late = ((by_class > 0) & ((by_class > 0).sum(0) == 1)).any(1)
    random = np.random.default_rng(seed)

    def best_of(num_draws: int) -> tuple[tuple[int, ...], npt.NDArray[np.bool_]]:
        order = random.random((num_draws, len(subjects))) + late
        drawn = order <= np.partition(order, size - 1)[:, size - 1 : size]
        ranks = _ranks(drawn, counts, num_classes, size)
        first = np.lexsort(ranks.T[::-1])[0]
        return tuple(ranks[first].tolist()), drawn[first]

    _, best = min(map(best_of, _blocks(len(subjects))), key=lambda found: found[0])
    return [str(subject) for subject in subjects[best]]


def _counts(clips: Sequence[StoredClip], kinds: Sequence[str]) -> npt.NDArray[np.int64]:
    """Clips of every subject and kind, both in alphabetical order."""
    subjects, rows = np.unique([clip.group for clip in clips], return_inverse=True)
    names, columns = np.unique(kinds, return_inverse=True)
    counts = np.zeros((len(subjects), len(names)), np.int64)
    np.add.at(counts, (rows, columns), 1)
    return counts


def _blocks(num_subjects: int) -> list[int]:
    """Number of draws that are made at once, in each of several rounds."""
    draws = min(MOST_DRAWS, max(FEWEST_DRAWS, NUMBERS_IN_ALL // num_subjects))
    at_once = max(1, NUMBERS_AT_ONCE // num_subjects)
    return [min(at_once, draws - done) for done in range(0, draws, at_once)]


def _ranks(
    drawn: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64], num_classes: int, size: int
) -> npt.NDArray[np.int64]:
    """What each draw, a row, is compared by: the smaller, the better, the first column first.

    Args:
        drawn: (draws, subjects).
        counts: (subjects, kinds) of clips; the first kinds are the classes.
        num_classes: How many of them.
        size: Subjects of a draw.
    """
    # The product of floating-point numbers is fast, and exact: whole numbers far below 2**53.
    part = (drawn.astype(np.float64) @ counts.astype(np.float64)).astype(np.int64)
    whole = counts.sum(0)
    lost = (part[:, :num_classes] == whole[:num_classes]).sum(1)
    lacking = (part[:, :num_classes] == 0).sum(1)
    # Whole numbers again, where shares would be rounded and ties decided by the machine.
    deviation = np.abs(len(counts) * part - size * whole).sum(1)
    return np.stack([lost, lacking, deviation], axis=1)
