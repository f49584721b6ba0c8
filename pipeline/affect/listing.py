"""From the lines of a list of images to those that can be used, whatever list it is.

A line that cannot be used is refused with its number and what to do about it; it never stops the
others.
"""

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from pipeline.affect.labels import LabelledImage, Labels
from pipeline.common.clips import Refusal, unique_slugs


class Line(NamedTuple):
    """A line as it was read: an image that nobody has looked for yet."""

    number: int
    path: str
    group: str
    part: str
    labels: Labels


@dataclass(frozen=True)
class RefusedLine:
    """A line that cannot be used.

    Attributes:
        number: In the file, from 1, the header included.
        path: Of the image, as far as it could be read.
        refusal: Why.
    """

    number: int
    path: str
    refusal: Refusal


class Listing(NamedTuple):
    """What became of all lines of a list.

    Attributes:
        images: Those that can be used, each once, in the order of their first lines.
        refused: By number.
        repeats: Lines that say of an image what an earlier one said.
        unlabelled: Images of which nothing is known; they are left out.
    """

    images: list[LabelledImage]
    refused: list[RefusedLine]
    repeats: int
    unlabelled: int


class ImageFolder:
    """The images of a set, of which many lie in one folder: each folder is read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[Path, frozenset[str]] = {}

    def posix(self, path: str) -> str:
        """The path with slashes where Windows writes back slashes, unless a file has them."""
        return path.replace("\\", "/") if "\\" in path and self.check(path) else path

    def check(self, path: str) -> Refusal | None:
        """Why no image can be read from a relative path."""
        pure = PurePosixPath(path)
        if pure.is_absolute() or PureWindowsPath(path).is_absolute() or ".." in pure.parts:
            return Refusal("outside", f"{path} leads out of the images' folder")
        folder = self.root / pure.parent
        if folder not in self._names:
            files = folder.iterdir() if folder.is_dir() else ()
            self._names[folder] = frozenset(file.name for file in files if file.is_file())
        if pure.name not in self._names[folder]:
            return Refusal("missing", f"{path} is not in {self.root}; no other image stands in")
        return None


def settle(lines: Iterable[Line], refused: Sequence[RefusedLine], folder: ImageFolder) -> Listing:
    """Decide about every line: missing images, repeated and contradicting lines.

    Args:
        lines: That could be read.
        refused: Those that could not.
        folder: Of the images.
    """
    out = list(refused)
    by_path: dict[str, list[Line]] = {}
    for line in lines:
        path = posixpath.normpath(folder.posix(line.path))
        if refusal := folder.check(path):
            out.append(RefusedLine(line.number, path, refusal))
        else:
            by_path.setdefault(path, []).append(line._replace(path=path))
    found: list[Line] = []
    repeats = 0
    for path, same in by_path.items():
        if refusal := _contradiction(same):
            out += [RefusedLine(line.number, path, refusal) for line in same]
        else:
            found.append(same[0])
            repeats += len(same) - 1
    labelled = [line for line in found if line.labels]
    return Listing(
        _named(labelled),
        sorted(out, key=lambda line: line.number),
        repeats,
        len(found) - len(labelled),
    )


def _contradiction(lines: Sequence[Line]) -> Refusal | None:
    if len({(line.group, line.part, line.labels) for line in lines}) == 1:
        return None
    numbers = ", ".join(str(line.number) for line in lines)
    return Refusal(
        "contradiction",
        f"lines {numbers} say different things of {lines[0].path}; keep the one that is right",
    )


def _named(lines: Sequence[Line]) -> list[LabelledImage]:
    """The images under names of their own, which their paths give."""
    stems = [posixpath.splitext(line.path)[0] for line in lines]
    distinct = len(set(stems)) == len(stems)
    names = unique_slugs(stems if distinct else [line.path for line in lines])
    return [
        LabelledImage(name, line.path, line.group, line.part, line.labels, line.number)
        for name, line in zip(names, lines, strict=True)
    ]


def refuse_images(listing: Listing, broken: Iterable[tuple[LabelledImage, Refusal]]) -> Listing:
    """The listing without images whose files turned out to be of no use."""
    why = {image.id: RefusedLine(image.line, image.path, refusal) for image, refusal in broken}
    refused = sorted([*listing.refused, *why.values()], key=lambda line: line.number)
    images = [image for image in listing.images if image.id not in why]
    return listing._replace(images=images, refused=refused)
