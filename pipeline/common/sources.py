"""Where the videos of a data set lie: a folder of the user's, or the project's own copy.

Downloaded videos are not DVC outputs. DVC deletes a stage's outputs before the stage runs, which
would throw away an interrupted download, and copies them into its cache, which would double 10 GB.
What DVC keeps is the checksum of every video; the next stage depends on that.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.common.clips import Clip
from pipeline.common.files import is_only_in_project, project_root, sha256_of


class Videos(NamedTuple):
    """A data set's clips, the folders that their paths start from, and what is to be said."""

    clips: list[Clip]
    folders: list[Path]
    remarks: list[str]


def local_copy(dataset: str) -> Path:
    """The folder that a data set is downloaded or unpacked to: `downloads/<dataset>`.

    It is absolute, because DVC runs queued experiments in a copy of the project without it.
    """
    return project_root(Path.cwd()) / "downloads" / dataset


def videos_folder(source: Path | None, dataset: str) -> Path:
    """The user's folder of a data set's videos or, where none is named, the local copy.

    Raises:
        FileNotFoundError: The user's folder is not there, or only DVC's copy of the project lacks
            it.
    """
    if source is None:
        return local_copy(dataset)
    if source.is_dir():
        return source
    if is_only_in_project(source):
        absolute = project_root(Path.cwd()) / source
        raise FileNotFoundError(
            f"the folder {source} is not in the copy of the project that DVC runs this experiment "
            f"in, because git does not know it: name it in full, datasets.{dataset}.source="
            f"{absolute}"
        )
    raise FileNotFoundError(
        f"datasets.{dataset}.source is {source}, and "
        + ("that is no folder" if source.exists() else "there is no such folder")
        + f"; name the folder of the videos: -S datasets.{dataset}.source=/path/to/them"
    )


def find_video(path: str, folders: Sequence[Path]) -> Path:
    """The first video, file or folder of pictures, of that relative path.

    Where none of the folders has it, it is expected in the first.
    """
    found = (folder / path for folder in folders if (folder / path).exists())
    return next(found, folders[0] / path)


def sha256_of_video(path: Path) -> str:
    """SHA-256 of a file or, for a folder, of what `sha256sum` prints for its files.

    A folder has one sum: a line for each of a million pictures would outgrow the manifest. The
    lines are in the order of the names' bytes: `cd FOLDER && LC_ALL=C sha256sum * | sha256sum`.
    """
    if path.is_file():
        return sha256_of(path)
    whole = hashlib.sha256()
    for name in sorted(os.fsencode(entry.name) for entry in os.scandir(path) if entry.is_file()):
        if not name.startswith(b"."):
            digest = sha256_of(path / os.fsdecode(name))
            whole.update(digest.encode() + b"  " + name + b"\n")
    return whole.hexdigest()


def is_hidden(path: Path) -> bool:
    """Whether a part of a relative path begins with a dot: what a killed unpacking leaves."""
    return any(part.startswith(".") for part in path.parts)
