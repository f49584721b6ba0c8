"""WebDataset shards: tar files filled by size, and a manifest that knows every clip's place.

A clip is five members of a tar: `<clip>.frames.jpg` (a strip, see strips.py), `<clip>.boxes.npy`
(T, 4), `<clip>.points.npy` (T, 5, 2), `<clip>.mask.npy` (T,) and `<clip>.clip.json` (clip, subject,
label, size S). Boxes are pixel x1, y1, x2, y2 and points pixel x, y in the stored frame.

Plain webdataset reads the shards from front to back. Here a clip is read by its bytes, at any
place: an epoch is then shuffled as a whole, starts anywhere without reading what comes before, and
is the same for any number of workers. A start reads the manifest, and no shard.

T frames of side S, as stored.
"""

from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path
from typing import Any

import webdataset as wds

from pipeline.common.clips import Clip, StoredClip
from pipeline.common.files import atomic_path
from pipeline.common.frames import FaceTrack
from pipeline.store.contents import ClipContent, content_digest
from pipeline.store.strips import strip_size

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
        digest=content_digest(ClipContent(strip, track)),
        shard=shard,
        first_byte=start,
        end=end,
        times=clip.times,
        group_kind=clip.group_kind,
    )
