"""Paths of a table on a disk that may write accents in another way.

`ë` is one character, or `e` and a character that sets two dots above it. Both look alike; macOS
hands over the second where a keyboard gives the first, and Linux keeps them apart.
"""

import unicodedata
from pathlib import Path, PurePosixPath


class VideoFolder:
    """A folder of videos, which are found under either way of writing.

    A video is a file, or a folder of pictures.

    It is read once, when a path is first not found as it is: what is added later may be missed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[PurePosixPath, dict[str, list[str]]] = {}

    def find(self, path: str) -> list[str]:
        """The video of exactly that relative path, or all that differ in accents' writing.

        Back slashes, as Windows writes them, part folders unless a file has them in its name.

        Raises:
            OSError: A folder on the way cannot be read.
        """
        if (self.root / path).exists():
            return [path]
        path = path.replace("\\", "/")
        places = [PurePosixPath()]
        for part in PurePosixPath(path).parts:
            places = [
                place / name
                for place in places
                for name in self._listing(place).get(unicodedata.normalize("NFC", part), [])
            ]
        return sorted(str(place) for place in places if (self.root / place).exists())

    def _listing(self, place: PurePosixPath) -> dict[str, list[str]]:
        """The names in a folder, by their composed writing; none where it is a file."""
        if place not in self._names:
            names = self._names[place] = {}
            folder = self.root / place
            for path in folder.iterdir() if folder.is_dir() else ():
                names.setdefault(unicodedata.normalize("NFC", path.name), []).append(path.name)
        return self._names[place]
