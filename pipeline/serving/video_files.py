"""The videos and pictures that are looked at: found, and named."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.common.clips import unique_slugs
from pipeline.video.picture_file import SUFFIXES as PICTURES

# Of a folder these files are taken; a file that is named itself may be called as it likes.
_VIDEOS = {".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".flv", ".mpg", ".mpeg"}
_VIDEOS |= {".ts", ".mts", ".m2ts", ".ogv", ".wmv", ".asf"}


def find_videos(names: Sequence[str]) -> list[Path]:
    """The files that are named: files, folders with all below them, and patterns with `*`.

    Raises:
        ValueError: A folder or a pattern has none.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            known = _VIDEOS | PICTURES
            below = [
                file
                for file in sorted(path.rglob("*"))
                if file.suffix.lower() in known
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            ]
            if not below:
                raise ValueError(f"no video or picture in {path}")
            found += below
        elif not path.exists() and glob.has_magic(name):
            matches = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
            if not matches:
                raise ValueError(f"no file fits {name}")
            found += matches
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def names_of(videos: Sequence[Path]) -> list[str]:
    """File-safe names: the paths below the folder that all share, without the kind of file."""
    absolute = [video.absolute() for video in videos]
    shared = os.path.commonpath([path.parent for path in absolute])
    paths = [path.relative_to(shared) for path in absolute]
    stems = Counter(path.with_suffix("") for path in paths)
    return unique_slugs(
        [
            (path.with_suffix("") if stems[path.with_suffix("")] == 1 else path).as_posix()
            for path in paths
        ]
    )
