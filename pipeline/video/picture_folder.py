"""A folder of pictures in place of a video: its frames as files, in the order of their numbers.

Of the pictures that nobody keeps only the names are read. A folder has no rate: its numbers count
as frames of a video of 25 per second.

Shape letters: T sampled pictures, H x W pixels of a picture.
"""

import os
import re
from fractions import Fraction
from math import gcd
from pathlib import Path

import numpy as np

from pipeline.common.frames import FrameSettings
from pipeline.video.container import UnusableVideo
from pipeline.video.decode import Notes, SampledVideo, check_file
from pipeline.video.picture_file import is_picture, read_picture
from pipeline.video.pictures import Picture
from pipeline.video.sampling import kept_indices
from pipeline.video.streams import Timeline

_RATE = 25


def read_folder(path: Path, settings: FrameSettings) -> SampledVideo:
    """Sample a folder evenly, as `read_pictures` samples a video; it is one shot.

    Numbers that are not there are counted as holes.

    Raises:
        UnusableVideo: There is no picture, no one order, or a picture that is kept is damaged, too
            large, or not as large as the others.
    """
    numbers = picture_numbers(path)
    names = sorted(numbers, key=numbers.__getitem__)
    points = [numbers[name] for name in names]
    step = gcd(*(point - points[0] for point in points)) or 1
    timeline = Timeline(Fraction(1, _RATE), points, points[-1] + step)
    indices = kept_indices(timeline, settings)
    kept = {i: _read(path, names[i], settings) for i in sorted(set(indices))}
    _refuse_two_sizes(path, {names[i]: size for i, (_, size) in kept.items()})
    return SampledVideo(
        np.stack([kept[i][0] for i in indices]),
        timeline.seconds(indices),
        np.zeros(len(indices), np.int64),
        len(names),
        0.0,
        Notes((points[-1] - points[0]) // step + 1 - len(names), ""),
    )


def picture_numbers(path: Path) -> dict[str, int]:
    """The names of a folder's pictures, each with its number: the last one in the name.

    `00001_00012.jpg` -> 12. Files of other kinds and hidden ones do not count.

    Raises:
        UnusableVideo: There is none, one has no number, or two have the same.
    """
    numbers: dict[str, int] = {}
    name_of: dict[int, str] = {}
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries if is_picture(Path(entry.name)))
    for name in names:
        if name.startswith("."):
            continue
        found = re.findall(r"\d+", Path(name).stem)
        if not found:
            raise UnusableVideo(
                "no_number", f"{path.name}/{name}: its name has no number that says its place"
            )
        number = int(found[-1])
        if number in name_of:
            raise UnusableVideo(
                "same_number",
                f"{path.name}: {name_of[number]} and {name} have the same number; keep one",
            )
        name_of[number], numbers[name] = name, number
    if not numbers:
        raise UnusableVideo("no_pictures", f"{path.name}: a folder without pictures (JPEG, PNG)")
    return numbers


def _read(path: Path, name: str, settings: FrameSettings) -> tuple[Picture, tuple[int, int]]:
    try:
        check_file(path / name)
        return read_picture(path / name, settings)
    except UnusableVideo as error:
        # A name such as 00012.jpg says little without its folder's.
        reason, message = error.refusal.reason, error.refusal.message
        raise UnusableVideo(reason, f"{path.name}/{message}") from error


def _refuse_two_sizes(path: Path, sizes: dict[str, tuple[int, int]]) -> None:
    first, size = next(iter(sizes.items()))
    for name, other in sizes.items():
        if other != size:
            raise UnusableVideo(
                "two_sizes",
                f"{path.name}/{name}: has {other[0]} x {other[1]} pixels, and {first} has "
                f"{size[0]} x {size[1]}; the pictures of a clip have one size",
            )
