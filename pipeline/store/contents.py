"""A clip out of the bytes of its shard; see shards.py for what a shard holds."""

import hashlib
import io
import tarfile
from typing import Any, NamedTuple, Self

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


class Place(NamedTuple):
    """Where a clip is stored, as in `StoredClip`."""

    clip: str
    digest: str
    shard: str
    first_byte: int
    end: int

    @classmethod
    def of(cls, clip: StoredClip) -> Self:
        """As the manifest says."""
        return cls(clip.clip, clip.digest, clip.shard, clip.first_byte, clip.end)


def content_digest(content: ClipContent) -> str:
    """SHA-256 of frames, boxes, points and mask, in hexadecimal."""
    digest = hashlib.sha256(content.strip)
    for array in (content.track.boxes, content.track.points, content.track.mask):
        digest.update(array.tobytes())
    return digest.hexdigest()


def unpack(part: bytes, place: Place, folder: object) -> ClipContent:
    """The clip in the bytes at its place.

    Args:
        part: From the clip's first byte to its end.
        place: Where that was.
        folder: Of the shard, for the message.

    Raises:
        ValueError: The bytes are not those of the clip.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(part), mode="r:") as tar:
            files = (member for member in tar if member.isfile())
            members = {file.name: tar.extractfile(file).read() for file in files}  # type: ignore[union-attr]
    except tarfile.TarError:
        members = {}
    if members.keys() != {f"{place.clip}.{kind}" for kind in KINDS}:
        raise _misplaced(place, folder)
    arrays = (_array(members[f"{place.clip}.{kind}.npy"]) for kind in ("boxes", "points", "mask"))
    return ClipContent(members[f"{place.clip}.frames.jpg"], FaceTrack(*arrays))


def unpack_verified(part: bytes, place: Place, folder: object) -> ClipContent:
    """As `unpack`, and every byte of frames, boxes, points and mask is what the manifest says."""
    content = unpack(part, place, folder)
    if content_digest(content) != place.digest:
        raise _misplaced(place, folder)
    return content


def _misplaced(place: Place, folder: object) -> ValueError:
    return ValueError(
        f"{folder}/{place.shard} does not hold {place.clip} where its manifest says: they are of "
        "two runs, or the shard is damaged; `dvc repro --force label` makes them anew"
    )


def _array(data: bytes) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array
