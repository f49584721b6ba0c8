"""What stage faces leaves of a set: a manifest, the pictures as one array, and what is known of it.

    images.parquet   as `write_images` has it
    pixels.npy       (N, S, S, 3) RGB, uint8, in the manifest's order
    set.json         see `SetCard`
    challenge/       the same of the images of a test list, and `listed.json`, its lines

Pictures are decoded once for all folds and epochs, and read by their place afterwards.

Shape letters: N images, S side in pixels.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import PositiveInt

from pipeline.affect.labels import LabelledImage, read_images, write_images
from pipeline.common.files import atomic_path, write_json
from pipeline.common.params import Section

Picture = npt.NDArray[np.uint8]
"""RGB (S, S, 3)."""

IMAGES, PIXELS, CARD = "images.parquet", "pixels.npy", "set.json"
CHALLENGE, LISTED = "challenge", "listed.json"


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
