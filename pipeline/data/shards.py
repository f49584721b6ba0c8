"""WebDataset shards: one tar file per subject, so that any fold is a list of files.

A clip is five members of the tar: `<clip>.frames.jpg` (a strip, see strips.py),
`<clip>.boxes.npy` (T, 4), `<clip>.points.npy` (T, 5, 2), `<clip>.mask.npy` (T,) and
`<clip>.clip.json` (clip, subject, label, size S). Boxes are pixel x1, y1, x2, y2 and points pixel
x, y in the stored frame.

Shape letters: B clips in a batch, T frames, S side of a frame as stored, I side of a frame as the
model reads it.
"""

import io
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import webdataset as wds
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.data.clips import Clip
from pipeline.data.strips import decode_strip, strip_size
from pipeline.data.tracks import FaceTrack
from pipeline.files import atomic_path

# In the shards' folder: the file of each subject, as JSON.
SHARD_NAMES = "shards.json"
# Compressed clips held back for shuffling; about 250 kB each.
_SHUFFLE_BUFFER = 1000


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
    """

    clips: list[str]
    subjects: list[str]
    frames: Tensor
    boxes: Tensor
    points: Tensor
    mask: Tensor
    labels: Tensor


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


def load_batches(
    shards: list[Path],
    *,
    classes: list[str],
    image_size: int,
    batch_size: int,
    num_workers: int = 0,
    shuffle_seed: tuple[int, int] | None = None,
) -> DataLoader[Batch]:
    """Every clip of the shards once, in batches.

    Args:
        shards: Tar files, read in this order unless shuffled.
        classes: Class names in the order of the model's logits.
        image_size: I; the stored size or a half, quarter or eighth of it is the cheapest.
        batch_size: B; the last batch may be smaller.
        num_workers: Processes that read and decode; 0 does it in this one.
        shuffle_seed: Seed and epoch; the order is a function of both, so an epoch takes a new
            loader. None keeps the order of the shards.
    """
    urls = [str(path) for path in shards]
    stages: list[Any] = [wds.split_by_worker, wds.tarfile_to_samples()]
    if shuffle_seed is not None:
        generator = np.random.default_rng(shuffle_seed)
        generator.shuffle(urls)
        seed = int(generator.integers(2**31))
        stages.append(wds.detshuffle(_SHUFFLE_BUFFER, initial=_SHUFFLE_BUFFER, seed=seed))
    dataset = wds.DataPipeline(
        wds.SimpleShardList(urls),
        *stages,
        wds.map(partial(_decode, classes=classes, image_size=image_size)),
    )
    return DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
    )


def _decode(sample: dict[str, Any], classes: list[str], image_size: int) -> Batch:
    """One clip, as a batch without the first axis."""
    record = json.loads(sample["clip.json"])
    boxes, points, mask = (_array(sample[f"{name}.npy"]) for name in ("boxes", "points", "mask"))
    frames = decode_strip(sample["frames.jpg"], image_size)
    side = np.float32(record["size"])
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return Batch(
        record["clip"],
        record["subject"],
        torch.from_numpy(frames).permute(0, 3, 1, 2),
        torch.from_numpy(boxes / side),
        torch.from_numpy(points / side),
        torch.from_numpy(mask),
        torch.tensor(classes.index(record["label"])),
    )


def _array(data: bytes) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _collate(samples: list[Batch]) -> Batch:
    clips, subjects, *tensors = zip(*samples, strict=True)
    return Batch(list(clips), list(subjects), *(torch.stack(column) for column in tensors))
