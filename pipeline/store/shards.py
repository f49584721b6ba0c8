"""WebDataset shards: tar files filled by size, and a manifest that knows every clip's place.

A clip is five members of a tar: `<clip>.frames.jpg` (a strip, see strips.py), `<clip>.boxes.npy`
(T, 4), `<clip>.points.npy` (T, 5, 2), `<clip>.mask.npy` (T,) and `<clip>.clip.json` (clip, subject,
label, size S). Boxes are pixel x1, y1, x2, y2 and points pixel x, y in the stored frame.

Plain webdataset reads the shards from front to back. Here a clip is read by its bytes, at any
place: an epoch is then shuffled as a whole, starts anywhere without reading what comes before, and
is the same for any number of workers. A start reads the manifest, and no shard.

Shape letters: B clips in a batch, T frames, S side of a frame as stored, I side of a frame as the
model reads it.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterable, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import webdataset as wds
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.common.clips import Clip, StoredClip
from pipeline.common.files import atomic_path
from pipeline.common.frames import FaceTrack
from pipeline.store.batch import Batch, Target
from pipeline.store.strips import decode_strip, strip_size

# In the shards' folder: the manifest of the clips in them, in their order.
CLIPS = "clips.parquet"
# The members of a clip, behind its name.
KINDS = ("boxes.npy", "clip.json", "frames.jpg", "mask.npy", "points.npy")
# A shard is closed by the clip that fills it.
SHARD_BYTES = 128 * 2**20

LabelledClip = tuple[Clip, bytes, FaceTrack]
"""A clip with its strip and its face."""


def write_shards(
    folder: Path, clips: Iterable[LabelledClip], *, shard_bytes: int = SHARD_BYTES
) -> list[StoredClip]:
    """Write clips, in the order given, to 000000.tar, 000001.tar and so on.

    Equal input gives equal bytes. Every shard appears only when it is whole.

    Args:
        folder: Of the shards.
        clips: Usable ones.
        shard_bytes: Size from which on a shard is full.

    Returns:
        The manifest: what was written, and where.
    """
    stored: list[StoredClip] = []
    remaining = iter(clips)
    for number in count():
        first = next(remaining, None)
        if first is None:
            return stored
        path = folder / f"{number:06}.tar"
        with atomic_path(path) as temporary, wds.TarWriter(str(temporary), mtime=0) as writer:
            for labelled in chain([first], remaining):
                start = writer.tarstream.offset
                writer.write(_members(*labelled))
                end = writer.tarstream.offset
                stored.append(_stored(labelled, path.name, start, end))
                if end >= shard_bytes:
                    break
    raise AssertionError("count() has no end")


def _members(clip: Clip, strip: bytes, track: FaceTrack) -> dict[str, Any]:
    return {
        "__key__": clip.clip,
        "frames.jpg": strip,
        "boxes.npy": track.boxes,
        "points.npy": track.points,
        "mask.npy": track.mask,
        "clip.json": {
            "clip": clip.clip,
            "subject": clip.subject,
            "label": clip.label,
            "size": strip_size(strip),
        },
    }


def _stored(labelled: LabelledClip, shard: str, start: int, end: int) -> StoredClip:
    clip, strip, track = labelled
    digest = hashlib.sha256(strip)
    for array in (track.boxes, track.points, track.mask):
        digest.update(array.tobytes())
    return StoredClip(
        clip=clip.clip,
        path=clip.path,
        group=clip.subject,
        label=clip.label,
        sex=clip.sex,
        split=clip.split,
        num_frames=clip.num_frames,
        seconds=clip.seconds,
        content=clip.content,
        digest=digest.hexdigest(),
        shard=shard,
        first_byte=start,
        end=end,
    )


class ClipContent(NamedTuple):
    """What a shard holds of a clip: its strip, and its face in pixels of the stored frame."""

    strip: bytes
    track: FaceTrack


def read_content(folder: Path, clip: StoredClip) -> ClipContent:
    """A clip out of the shards of a folder.

    Raises:
        ValueError: It is not at its place.
    """
    return _read(folder / clip.shard, clip.clip, clip.first_byte, clip.end)


def _read(shard: Path, clip: str, start: int, end: int) -> ClipContent:
    with shard.open("rb") as file:
        file.seek(start)
        part = file.read(end - start)
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


def class_numbers(clips: Sequence[StoredClip], classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """The place of each clip's label in the list of classes.

    Raises:
        ValueError: A clip's label is none of the classes.
    """
    places = {name: number for number, name in enumerate(classes)}
    for clip in clips:
        if clip.label not in places:
            raise ValueError(f"the label of {clip.clip} is {clip.label!r}, none of {classes}")
    return np.array([places[clip.label] for clip in clips], np.int64)


class StoredFrames(Dataset[Batch]):
    """Clips of shards, numbered from 0; an item is the batch of some numbers.

    Inputs are frames (B, T, 3, I, I), uint8 RGB. Targets are `boxes` (B, T, 4) with x, y of the top
    left corner, width and height, `points` (B, T, 5, 2) with x, y, both as fractions of the frame,
    and `expression` (B,), the place in the list of classes.

    Args:
        folder: Of the shards.
        clips: Of their manifest, in the order of their numbers.
        classes: Class names in the order of the model's logits.
        image_size: I; the stored size or a half, quarter or eighth of it is the cheapest.
        keep_bytes: Decoded frames that may stay in memory, for clips that are read many times; the
            clips that are read first stay. Every process that reads keeps its own.

    Attributes:
        labels: A class index per clip.

    Raises:
        ValueError: A clip's label is none of the classes.
    """

    def __init__(
        self,
        folder: Path,
        clips: Sequence[StoredClip],
        *,
        classes: Sequence[str],
        image_size: int,
        keep_bytes: int = 0,
    ) -> None:
        self.folder = folder
        self.image_size = image_size
        self.room = keep_bytes
        self.kept: dict[int, tuple[Tensor, ...]] = {}
        self.labels = class_numbers(clips, classes)
        # Arrays, not lists: workers that count references would copy a list page by page.
        self.names = np.array([clip.clip for clip in clips], np.str_)
        self.groups = np.array([clip.group for clip in clips], np.str_)
        self.shards = np.array([clip.shard for clip in clips], np.str_)
        places = [(clip.first_byte, clip.end) for clip in clips]
        self.places = np.array(places, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, numbers: list[int]) -> Batch:
        columns = zip(*(self._clip(number) for number in numbers), strict=True)
        frames, boxes, points, mask = (torch.stack(column) for column in columns)
        labels = torch.from_numpy(self.labels[numbers])
        return Batch(
            ids=self.names[numbers].tolist(),
            groups=self.groups[numbers].tolist(),
            inputs=frames,
            targets=face_targets(boxes, points, mask, labels),
        )

    def _clip(self, number: int) -> tuple[Tensor, ...]:
        if number in self.kept:
            return self.kept[number]
        clip = self._decode(number)
        if clip[0].nbytes <= self.room:
            self.room -= clip[0].nbytes
            self.kept[number] = clip
        return clip

    def _decode(self, number: int) -> tuple[Tensor, ...]:
        """Frames, boxes, points and mask of one clip."""
        start, end = self.places[number].tolist()
        shard = self.folder / self.shards[number]
        strip, track = _read(shard, self.names[number], start, end)
        frames = decode_strip(strip, self.image_size)
        side = np.float32(strip_size(strip))
        boxes = np.concatenate(
            [track.boxes[:, :2], track.boxes[:, 2:] - track.boxes[:, :2]], axis=1
        )
        return (
            torch.from_numpy(frames).permute(0, 3, 1, 2),
            torch.from_numpy(boxes / side),
            torch.from_numpy(track.points / side),
            torch.from_numpy(track.mask),
        )


def face_targets(boxes: Tensor, points: Tensor, mask: Tensor, labels: Tensor) -> dict[str, Target]:
    """The targets of B clips with a face; boxes and points are known in the frames of the mask."""
    return {
        "boxes": Target(boxes, mask),
        "points": Target(points, mask),
        "expression": Target(labels, torch.ones_like(labels, dtype=torch.bool)),
    }
