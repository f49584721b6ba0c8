"""Shards of small clips for tests, each of a colour of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.clips import Clip, StoredClip, write_stored
from pipeline.common.files import write_json
from pipeline.common.frames import FaceTrack, Frames
from pipeline.store.contents import CLIPS
from pipeline.store.contents import FRAMES as FRAMES_FILE
from pipeline.store.shards import write_shards
from pipeline.store.strips import encode_strip


def write_small_shards(
    folder: Path, clips: Sequence[tuple[str, str, Frames]], settings: dict[str, Any]
) -> list[StoredClip]:
    """Write shards with their manifest.

    Args:
        folder: A new one.
        clips: Subject, label and frames (T, S, S, 3) of each; clips are called clip00, clip01, ...
        settings: Sections `frames` and `faces`.
    """

    def track(frames: Frames) -> FaceTrack:
        side = frames.shape[1]
        boxes = np.tile(np.array([2, 2, side - 2, side - 2], np.float32), (len(frames), 1))
        points = np.full((len(frames), 5, 2), side / 2, np.float32)
        return FaceTrack(boxes, points, np.ones(len(frames), np.bool_))

    labelled = [
        (
            Clip(f"clip{i:02}", f"clip{i:02}.mp4", subject, label),
            encode_strip(frames, quality=95),
            track(frames),
        )
        for i, (subject, label, frames) in enumerate(clips)
    ]
    stored = write_shards(folder, labelled)
    write_stored(folder / CLIPS, stored)
    write_json(folder / FRAMES_FILE, settings)
    return stored
