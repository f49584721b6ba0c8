"""Stored clips as the model reads them: frames, face and label.

Shape letters: B clips in a batch, T frames, I side of a frame as the model reads it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.common.clips import StoredClip
from pipeline.store.batch import Batch, Target
from pipeline.store.contents import ClipContent, Place
from pipeline.store.folders import Shards
from pipeline.store.strips import decode_strip, strip_size


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
        shards: Where the clips are.
        clips: Of their manifest, in the order of their numbers.
        classes: Class names in the order of the model's logits.
        image_size: I; the stored size or a half, quarter or eighth of it is the cheapest.
        segments: Samplings that the stored frames hold; see `FrameSettings`.
        keep_bytes: Decoded frames that may stay in memory, for clips that are read many times; the
            clips that are read first stay. Every process that reads keeps its own.

    Attributes:
        labels: A class index per clip.

    Raises:
        ValueError: A clip's label is none of the classes.
    """

    def __init__(
        self,
        shards: Shards,
        clips: Sequence[StoredClip],
        *,
        classes: Sequence[str],
        image_size: int,
        segments: int = 1,
        keep_bytes: int = 0,
    ) -> None:
        self.shards = shards
        self.image_size = image_size
        self.segments = segments
        self.room = keep_bytes
        self.kept: dict[int, tuple[Tensor, ...]] = {}
        self.labels = class_numbers(clips, classes)
        # Arrays, not lists: workers that count references would copy a list page by page.
        self.names = np.array([clip.clip for clip in clips], np.str_)
        self.groups = np.array([clip.group for clip in clips], np.str_)
        self.digests = np.array([clip.digest for clip in clips], np.bytes_)
        self.files = np.array([clip.shard for clip in clips], np.str_)
        places = [(clip.first_byte, clip.end) for clip in clips]
        self.places = np.array(places, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, numbers: list[int]) -> Batch:
        columns = zip(*self._clips(numbers), strict=True)
        frames, boxes, points, mask = (torch.stack(column) for column in columns)
        labels = torch.from_numpy(self.labels[numbers])
        return Batch(
            ids=self.names[numbers].tolist(),
            groups=self.groups[numbers].tolist(),
            inputs=frames,
            targets=face_targets(boxes, points, mask, labels),
        )

    def _clips(self, numbers: list[int]) -> list[tuple[Tensor, ...]]:
        """Frames, boxes, points and mask of each clip."""
        missing = [number for number in dict.fromkeys(numbers) if number not in self.kept]
        contents = self.shards.read(map(self._place, missing))
        found = self.kept | dict(zip(missing, map(self._decode, contents), strict=True))
        for number in missing:
            num_bytes = found[number][0].nbytes
            if num_bytes <= self.room:
                self.room -= num_bytes
                self.kept[number] = found[number]
        return [found[number] for number in numbers]

    def _place(self, number: int) -> Place:
        start, end = self.places[number].tolist()
        digest = self.digests[number].decode()
        return Place(str(self.names[number]), digest, str(self.files[number]), start, end)

    def _decode(self, content: ClipContent) -> tuple[Tensor, ...]:
        strip, track = content
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
