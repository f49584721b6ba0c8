"""Images in a folder for each expression, as those of ABAW4's learning from synthetic data (LSD).

Folders are known by their names and never by their order: that of the alphabet is not that of the
challenge's class numbers, and one folder is published as ANGRER.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.affect.labels import Labels
from pipeline.affect.listing import ImageFolder, Line, Listing, RefusedLine, settle
from pipeline.common.clips import Refusal
from pipeline.common.vocabulary import normalise_label

# ABAW4's six, in the order of its numbers.
EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprised")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_MISSPELT = {"angrer": "angry"}


def read_folders(root: Path, classes: Sequence[str], part: str) -> Listing:
    """Every image of the folders; what is no image is refused, as line 0.

    Nobody says who is seen, so that every image is a group of its own.

    Args:
        root: Of the folders.
        classes: Expressions that are known.
        part: `train` or `validation`.

    Raises:
        ValueError: A folder's name is no expression, two are the same one, or there is none.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    names = {folder: _expression(folder.name) for folder in folders}
    if unknown := [folder.name for folder, name in names.items() if name not in classes]:
        raise ValueError(
            f"{root} has the folders {', '.join(unknown)}, which are none of {', '.join(classes)}"
        )
    if not folders or len(set(names.values())) < len(folders):
        found = ", ".join(folder.name for folder in folders) or "none"
        raise ValueError(f"{root}: one folder for each expression is needed; found: {found}")
    lines, refused = [], []
    for folder, name in names.items():
        for file in sorted(folder.iterdir()):
            path = f"{folder.name}/{file.name}"
            if file.suffix.casefold() in IMAGE_SUFFIXES:
                lines.append(Line(0, path, path, part, Labels(expression=name)))
            elif file.name[0] != ".":
                refused.append(RefusedLine(0, path, Refusal("no_image", f"{path} is no image")))
    return settle(lines, refused, ImageFolder(root))


def _expression(folder: str) -> str:
    word = folder.strip().casefold()
    return normalise_label(_MISSPELT.get(word, word))
