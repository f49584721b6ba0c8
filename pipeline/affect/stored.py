"""What stage faces leaves of a set: a manifest, the pictures as one array, and what is known of it.

    images.parquet   as `write_images` has it
    pixels.npy       (N, S, S, 3) RGB, uint8, in the manifest's order
    set.json         see `SetCard`
    challenge/       the same of the images of a test list, and `listed.json`, its lines

Pictures are decoded once for all folds and epochs, and read by their place afterwards.

Shape letters: N images, S side in pixels.
"""

import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from pydantic import PositiveInt

from pipeline.affect.labels import LabelledImage, read_images, write_images
from pipeline.affect.pictures import Picture, read_picture
from pipeline.common.clips import Refusal
from pipeline.common.files import atomic_path, write_json
from pipeline.common.params import Section
from pipeline.common.workers import Folders, map_in_processes

IMAGES, PIXELS, CARD = "images.parquet", "pixels.npy", "set.json"
CHALLENGE, LISTED = "challenge", "listed.json"
# Pictures that a process reads before it hands them over.
_AT_ONCE = 64


class SetCard(Section):
    """What is known of a set.

    Attributes:
        identity: Under which a prior or a CNN remembers whom of it they have seen.
        classes: Expressions, in the order of the scores.
        side: S.
    """

    identity: str
    classes: tuple[str, ...]
    side: PositiveInt


class StoredSet(NamedTuple):
    """A set as it was stored.

    Attributes:
        card: What is known of it.
        images: N of them.
        pixels: (N, S, S, 3), which stay on the disk until they are read.
    """

    card: SetCard
    images: list[LabelledImage]
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


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


def write_drawn(folder: Path, images: Sequence[LabelledImage], pixels: Sequence[Picture]) -> None:
    """Write manifest and pixels of pictures that were drawn here."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / PIXELS) as temporary, temporary.open("wb") as file:
        np.save(file, np.stack(pixels))
    write_images(folder / IMAGES, images)


def write_card(folder: Path, card: SetCard) -> None:
    write_json(folder / CARD, card.model_dump())


def read_stored(folder: Path) -> StoredSet:
    """What stage faces left."""
    card = SetCard.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
    return read_pictures(folder, card)


def read_challenge(folder: Path) -> StoredSet:
    """The images of the test list, which may be none."""
    return read_pictures(folder / CHALLENGE, read_stored(folder).card)


def read_pictures(folder: Path, card: SetCard) -> StoredSet:
    """Manifest and pixels of a folder."""
    images = read_images(folder / IMAGES)
    # An array of nothing cannot be mapped into memory.
    pixels = np.load(folder / PIXELS, mmap_mode="r" if images else None)
    return StoredSet(card, images, pixels)


def write_challenge_list(folder: Path, listed: Sequence[str]) -> None:
    """The lines of a test list beside the images of `folder`."""
    write_json(folder / LISTED, list(listed))


def read_challenge_list(folder: Path) -> list[str]:
    """What `write_challenge_list` wrote."""
    listed: list[str] = json.loads((folder / LISTED).read_text(encoding="utf-8"))
    return listed


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
