"""Where the videos of a data set lie: a folder of the user's, or the project's own copy.

Downloaded videos are not DVC outputs. DVC deletes a stage's outputs before the stage runs, which
would throw away an interrupted download, and copies them into its cache, which would double 10 GB.
What DVC keeps is the checksum of every video; the next stage depends on that.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.common.clips import Clip
from pipeline.common.files import is_only_in_project, project_root


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
    """The first of the folders' files of that relative path; of the first folder if none has it."""
    found = (folder / path for folder in folders if (folder / path).is_file())
    return next(found, folders[0] / path)


def is_hidden(path: Path) -> bool:
    """Whether a part of a relative path begins with a dot: what a killed unpacking leaves."""
    return any(part.startswith(".") for part in path.parts)
