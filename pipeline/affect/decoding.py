"""The image files of a set, decoded in parallel into one array.

Shape letters: S side in pixels.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from pipeline.affect.labels import LabelledImage, write_images
from pipeline.affect.pictures import read_picture
from pipeline.affect.stored import IMAGES, PIXELS, Picture
from pipeline.common.clips import Refusal
from pipeline.common.files import atomic_path
from pipeline.common.workers import Folders, map_in_processes

# Pictures that a process reads before it hands them over.
_AT_ONCE = 64


class Broken(NamedTuple):
    """An image that is no picture."""

    image: LabelledImage
    refusal: Refusal


def store_pictures(
    folder: Path, root: Path, images: Sequence[LabelledImage], side: int
) -> tuple[list[LabelledImage], list[Broken]]:
    """Decode the images, and write manifest and pixels of those that can be.

    Args:
        folder: To write.
        root: Of the images.
        images: As their lists name them.
        side: S.
    """
    parts = [list(images[i : i + _AT_ONCE]) for i in range(0, len(images), _AT_ONCE)]
    read = partial(_read_part, root=root, side=side)
    good: list[LabelledImage] = []
    broken: list[Broken] = []
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / PIXELS) as temporary:
        results = map_in_processes(read, parts, "pictures", folders=Folders(read=[root]))
        found = _sorted_apart(results, parts, good, broken)
        _write_array(temporary, found, len(images), side, good)
    write_images(folder / IMAGES, good)
    return good, broken


def _read_part(part: list[LabelledImage], root: Path, side: int) -> list[Picture | Refusal]:
    """Pictures, or why there is none."""
    found: list[Picture | Refusal] = []
    for image in part:
        try:
            found.append(read_picture(root / image.path, side))
        except ValueError as error:
            found.append(Refusal("unreadable", str(error)))
    return found


def _sorted_apart(
    results: Iterable[list[Picture | Refusal]],
    parts: Sequence[Sequence[LabelledImage]],
    good: list[LabelledImage],
    broken: list[Broken],
) -> Iterable[Picture]:
    for part, found in zip(parts, results, strict=True):
        for image, one in zip(part, found, strict=True):
            if isinstance(one, Refusal):
                broken.append(Broken(image, one))
            else:
                good.append(image)
                yield one


def _write_array(
    file: Path, pictures: Iterable[Picture], most: int, side: int, good: Sequence[LabelledImage]
) -> None:
    """Write pictures one after the other; how many there are is known only after the last one."""
    shape = (side, side, 3)
    with file.open("wb") as opened:
        start = opened.tell()
        _write_header(opened, (most, *shape))
        for picture in pictures:
            opened.write(picture.tobytes())
        opened.seek(start)
        _write_header(opened, (len(good), *shape))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Of the same length for every number of pictures: NumPy leaves room for it to grow."""
    described = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
