"""WebDataset shards: one tar file per subject, so that any fold is a list of files.

A clip is five members of the tar: `<clip>.frames.jpg` (a strip, see strips.py),
`<clip>.boxes.npy` (T, 4), `<clip>.points.npy` (T, 5, 2), `<clip>.mask.npy` (T,) and
`<clip>.clip.json` (clip, subject, label, size S). Boxes are pixel x1, y1, x2, y2 and points pixel
x, y in the stored frame.

Shards lie on a disk and are read clip by clip, at any place: an epoch is then shuffled as a whole,
starts anywhere without reading what comes before, and is the same for any number of workers.

Shape letters: B clips in a batch, T frames, S side of a frame as stored, I side of a frame as the
model reads it.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import webdataset as wds
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.common.clips import Clip
from pipeline.common.files import atomic_path
from pipeline.store.strips import decode_strip, strip_size
from pipeline.video.tracks import FaceTrack

# In the shards' folder: the file of each subject, as JSON.
SHARD_NAMES = "shards.json"
# And the manifest of the clips in them.
CLIPS = "clips.parquet"


class Batch(NamedTuple):
    """Clips as the model reads them.

    Attributes:
        clips: B names.
        subjects: B names.
        frames: (B, T, 3, I, I) uint8 RGB.
        boxes: (B, T, 4) x, y of the top left corner, width, height, as fractions of the frame.
        points: (B, T, 5, 2) x, y as fractions of the frame.
        mask: (B, T) whether boxes and points of a frame are known.
        labels: (B,) index into the class list.
        tokens: (B, N, D) of the encoder, in place of the frames; None where frames are given.
    """

    clips: list[str]
    subjects: list[str]
    frames: Tensor
    boxes: Tensor
    points: Tensor
    mask: Tensor
    labels: Tensor
    tokens: Tensor | None = None


def write_shard(path: Path, clips: Iterable[tuple[Clip, bytes, FaceTrack]]) -> None:
    """Write clips with their strips and faces, in the order given; equal input, equal bytes."""
    with atomic_path(path) as temporary, wds.TarWriter(str(temporary), mtime=0) as writer:
        for clip, strip, track in clips:
            writer.write(
                {
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
            )


def subject_shards(folder: Path, subjects: list[str]) -> list[Path]:
    """The shards of these subjects."""
    names = json.loads((folder / SHARD_NAMES).read_text(encoding="utf-8"))
    return [folder / names[subject] for subject in subjects]


class LabelledClip(NamedTuple):
    """A clip as it is stored: its name, its strip and its face."""

    clip: str
    strip: bytes
    track: FaceTrack


def read_shard(path: Path) -> Iterator[LabelledClip]:
    """The clips of a shard, in the order in which they were written."""
    for sample in wds.DataPipeline(wds.SimpleShardList([str(path)]), wds.tarfile_to_samples()):
        track = FaceTrack(*(_array(sample[f"{name}.npy"]) for name in ("boxes", "points", "mask")))
        yield LabelledClip(sample["__key__"], sample["frames.jpg"], track)


class Clips(Dataset[Batch]):
    """The clips of shards, numbered from 0 in their order; an item is the batch of some numbers.

    Of a clip only its place in the files is held, in 32 bytes.

    Args:
        shards: Tar files.
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
        self, shards: list[Path], *, classes: list[str], image_size: int, keep_bytes: int = 0
    ) -> None:
        self.shards = shards
        self.image_size = image_size
        self.room = keep_bytes
        self.kept: dict[int, Batch] = {}
        places = [
            (number, *place)
            for number, path in enumerate(shards)
            for place in _places(path, classes)
        ]
        # An array, not a list: workers that count references would copy a list page by page.
        self.places = np.array(places, np.int64).reshape(-1, 4)
        self.labels = self.places[:, 3]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, numbers: list[int]) -> Batch:
        clips = [self._clip(number) for number in numbers]
        names, subjects, *columns, _ = zip(*clips, strict=True)
        return Batch(list(names), list(subjects), *(torch.stack(column) for column in columns))

    def _clip(self, number: int) -> Batch:
        if number in self.kept:
            return self.kept[number]
        clip = self._read(number)
        if clip.frames.nbytes <= self.room:
            self.room -= clip.frames.nbytes
            self.kept[number] = clip
        return clip

    def _read(self, number: int) -> Batch:
        """One clip, as a batch without the first axis."""
        shard, start, end, label = self.places[number].tolist()
        with self.shards[shard].open("rb") as file:
            file.seek(start)
            part = file.read(end - start)
        with tarfile.open(fileobj=io.BytesIO(part)) as tar:
            members = {name.partition(".")[2]: data for name, data in _members(tar)}
        record = json.loads(members["clip.json"])
        boxes, points, mask = (_array(members[f"{n}.npy"]) for n in ("boxes", "points", "mask"))
        frames = decode_strip(members["frames.jpg"], self.image_size)
        side = np.float32(record["size"])
        boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        return Batch(
            record["clip"],
            record["subject"],
            torch.from_numpy(frames).permute(0, 3, 1, 2),
            torch.from_numpy(boxes / side),
            torch.from_numpy(points / side),
            torch.from_numpy(mask),
            torch.tensor(label),
        )


def _places(path: Path, classes: list[str]) -> Iterator[tuple[int, int, int]]:
    """First byte, end and class index of every clip of a shard; reads no pictures."""
    with tarfile.open(path) as tar:
        for name, group in groupby(tar.getmembers(), lambda member: member.name.partition(".")[0]):
            members = list(group)
            file = tar.extractfile(f"{name}.clip.json")
            assert file
            label = json.load(file)["label"]
            if label not in classes:
                raise ValueError(f"{path}: the label of {name} is {label!r}, none of {classes}")
            end = members[-1].offset_data + members[-1].size
            # Members are padded to whole blocks.
            end = -(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            yield members[0].offset, end, classes.index(label)


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        file = tar.extractfile(member)
        assert file
        yield member.name, file.read()


def _array(data: bytes) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array
