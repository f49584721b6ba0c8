"""Who is tested with whom: how folds are chosen, and published blocks of test subjects.

Sources: `mae-dfer`: MAE-DFER (Sun et al. 2023) and its code's splits of RAVDESS and CREMA-D. Its
authors choose the epoch on the test subjects; here some of the training subjects choose it.
`emobox`: EmoBox (Ma et al. 2024), a benchmark of speech, whose folds of RAVDESS make video
comparable with it.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from pipeline.common.params import Section


class SplitSettings(Section):
    """The protocol, how many folds, and how much of each training part chooses the epoch.

    Attributes:
        partial: That only some folds of a protocol are trained is meant so.
    """

    protocol: Literal["paper", "mae-dfer", "emobox", "loso", "holdout", "official"]
    partial: bool
    num_folds: Annotated[int, Field(ge=2)]
    test_fraction: Annotated[float, Field(gt=0, le=0.5)]
    validation_fraction: Annotated[float, Field(gt=0, le=0.5)]


class PublishedProtocol(NamedTuple):
    """The folds of one data set.

    Attributes:
        tests: Test subjects of each fold; together they are all subjects of the data set.
        classes: What the clips must show, to the last one.
    """

    tests: list[list[str]]
    classes: set[str]


def _numbers(first: int, last: int, name: str) -> list[str]:
    return [name.format(i) for i in range(first, last + 1)]


# Calm is a class of its own.
_RAVDESS_CLASSES = {"angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprised"}

PUBLISHED = {
    "mae-dfer": {
        "ravdess": PublishedProtocol(
            [_numbers(first, first + 3, "actor_{:02}") for first in range(1, 25, 4)],
            _RAVDESS_CLASSES,
        ),
        "cremad": PublishedProtocol(
            [
                _numbers(1001, 1018, "{}"),
                _numbers(1019, 1036, "{}"),
                _numbers(1037, 1054, "{}"),
                _numbers(1055, 1072, "{}"),
                _numbers(1073, 1091, "{}"),
            ],
            {"angry", "disgust", "fear", "happy", "neutral", "sad"},
        ),
    },
    "emobox": {
        "ravdess": PublishedProtocol(
            [
                ["actor_01", "actor_11", "actor_20", "actor_21"],
                ["actor_04", "actor_10", "actor_12", "actor_14"],
                ["actor_08", "actor_09", "actor_19", "actor_23"],
                ["actor_03", "actor_05", "actor_07", "actor_24"],
                ["actor_02", "actor_15", "actor_16", "actor_18"],
                ["actor_06", "actor_13", "actor_17", "actor_22"],
            ],
            _RAVDESS_CLASSES,
        ),
    },
}
"""Protocol -> data set -> its folds."""
