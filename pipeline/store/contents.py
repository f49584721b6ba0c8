"""A clip out of its shard, by its bytes; see shards.py for what a shard holds."""

import io
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.common.clips import StoredClip
from pipeline.common.frames import FaceTrack

# In the shards' folder: the manifest of the clips in them, in their order.
CLIPS = "clips.parquet"
# And `FrameSettings` and `FaceSettings`, as the frames were made.
FRAMES = "frames.json"
# The members of a clip, behind its name.
KINDS = ("boxes.npy", "clip.json", "frames.jpg", "mask.npy", "points.npy")


class ClipContent(NamedTuple):
    """What a shard holds of a clip: its strip, and its face in pixels of the stored frame."""

    strip: bytes
    track: FaceTrack


def read_content(folder: Path, clip: StoredClip) -> ClipContent:
    """A clip of the manifest out of the shards of a folder.

    Raises:
        ValueError: It is not at its place.
    """
    return read_place(folder / clip.shard, clip.clip, clip.first_byte, clip.end)


def read_place(shard: Path, clip: str, first_byte: int, end: int) -> ClipContent:
    """The clip that lies in these bytes of a shard.

    Raises:
        ValueError: It is not at its place.
    """
    with shard.open("rb") as file:
        file.seek(first_byte)
        part = file.read(end - first_byte)
    try:
        with tarfile.open(fileobj=io.BytesIO(part), mode="r:") as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    except tarfile.TarError:
        members = {}
    if members.keys() != {f"{clip}.{kind}" for kind in KINDS}:
        raise ValueError(
            f"{shard} does not hold {clip} where its manifest says: they are of two runs, or the "
            "shard is damaged; `dvc repro --force label` makes them anew"
        )
    arrays = (_array(members[f"{clip}.{kind}.npy"]) for kind in ("boxes", "points", "mask"))
    return ClipContent(members[f"{clip}.frames.jpg"], FaceTrack(*arrays))


def _array(data: bytes) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array
