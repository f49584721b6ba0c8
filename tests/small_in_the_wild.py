"""Copies of DFEW, MAFW and FERV39k in their true layouts: lists of any size, and a few clips."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pipeline.common.frames import Frames

Rows = list[tuple[str, str]]
"""Name and label of every clip, as a list has them."""

WORDS = {
    "mafw": "anger disgust fear happiness neutral sadness surprise contempt anxiety helplessness "
    "disappointment".split(),
    "ferv39k": "Happy Sad Neutral Angry Surprise Disgust Fear".split(),
    "dfew": list("1234567"),
}
CLIPS = {"dfew": "Clip/jpg_256", "mafw": "clips", "ferv39k": "2_ClipsforFaceCrop"}


class Text(NamedTuple):
    """How the lists are written."""

    start: str = ""
    end: str = "\n"


PLAIN, WINDOWS = Text(), Text("\ufeff", "\r\n")


def list_path(dataset: str, fold: int, part: str) -> str:
    """Where a list is in a copy."""
    return {
        "dfew": f"EmoLabel_DataSplit/{part}(single-labeled)/set_{fold}.csv",
        "mafw": f"single/no_caption/set_{fold}/{part}.txt",
        "ferv39k": f"4_setups/All_scenes/{part}_All.csv",
    }[dataset]


def write_list(root: Path, dataset: str, fold: int, part: str, rows: Rows, text: Text) -> None:
    path = root / list_path(dataset, fold, part)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = ["video_name,label"] if dataset == "dfew" else []
    separator = "," if dataset == "dfew" else " "
    lines = [*header, *(separator.join(row) for row in rows)]
    path.write_bytes((text.start + "".join(f"{line}{text.end}" for line in lines)).encode())


def write_folds(
    root: Path, dataset: str, rows: Rows, sizes: Sequence[int], text: Text = PLAIN
) -> None:
    """Lists of folds that test as many of the rows as `sizes` says, one after the other.

    FERV39k has one fold: `sizes` has the number that is tested.
    """
    ends = list(accumulate(sizes))
    for fold, (size, end) in enumerate(zip(sizes, ends, strict=True), start=1):
        train = [*rows[: end - size], *rows[end:]]
        write_list(root, dataset, fold, "train", train, text)
        write_list(root, dataset, fold, "test", rows[end - size : end], text)


def rows_of(dataset: str, counts: Mapping[str, int], *, seed: int = 0) -> Rows:
    """Rows with so many clips of each label word, in any order, named as the data set does."""
    labels = [word for word, number in counts.items() for _ in range(number)]
    labels = [str(word) for word in np.random.default_rng(seed).permutation(labels)]
    return [(clip_name(dataset, i, word), word) for i, word in enumerate(labels, start=1)]


def clip_name(dataset: str, number: int, word: str) -> str:
    """The name of a clip with that label word; those of FERV39k are in 22 scenes."""
    if dataset == "ferv39k":
        return f"Scene{number % 22}/{word}/{number:04}"
    return f"{number:05}.mp4" if dataset == "mafw" else f"{number:05}"


def write_pictures(
    folder: Path, frames: Frames, numbers: Sequence[int], suffix: str = ".jpg"
) -> None:
    """Frames as pictures `<number><suffix>`, whose names are not in the order of the numbers."""
    folder.mkdir(parents=True)
    for number, frame in zip(numbers, frames, strict=True):
        Image.fromarray(frame).save(folder / f"{number}{suffix}", quality=90)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def numbered_frames(num_frames: int, size: tuple[int, int] = (64, 96)) -> Frames:
    """Grey frames (T, H, W, 3), of which frame i is 10 i bright."""
    return np.stack([np.full((*size, 3), 10 * i, np.uint8) for i in range(num_frames)])
