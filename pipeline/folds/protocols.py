"""Who is tested with whom: published blocks of test subjects.

Source: MAE-DFER (Sun et al. 2023) and its code's splits of RAVDESS (8 classes, calm kept) and
CREMA-D (6 classes). Its authors choose the epoch on the test subjects; here some of the training
subjects choose it.
"""


def _numbers(first: int, last: int, name: str) -> list[str]:
    return [name.format(i) for i in range(first, last + 1)]


MAE_DFER_TESTS = {
    "ravdess": [_numbers(first, first + 3, "actor_{:02}") for first in range(1, 25, 4)],
    "cremad": [
        _numbers(1001, 1018, "{}"),
        _numbers(1019, 1036, "{}"),
        _numbers(1037, 1054, "{}"),
        _numbers(1055, 1072, "{}"),
        _numbers(1073, 1091, "{}"),
    ],
}
"""Test subjects of each fold; together they are all subjects of the data set."""

MAE_DFER_CLASSES = {
    "ravdess": {"angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprised"},
    "cremad": {"angry", "disgust", "fear", "happy", "neutral", "sad"},
}
