"""Small collections of videos and pictures for tests of pre-training."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small import FACES
from small_videos import numbered_video

from pipeline.pretrain.collect import collect_pictures, collect_videos
from pipeline.pretrain.listing import (
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    Collection,
    Split,
    list_files,
)
from pipeline.pretrain.spans import FaceSearch

WHOLE = FaceSearch(crop="whole", margin=1.5, step=5, faces=FACES)
SPLIT = Split(share=0.3, seed=1)


def look_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at without the seconds that processes take to start."""

    def map_here(
        function: Callable[[Any], Any],
        items: Sequence[Any],
        _: str,
        initializer: Callable[..., None],
        initargs: Sequence[Any],
        on_crash: object,
        folders: object,
    ) -> Iterator[Any]:
        initializer(*initargs)
        return map(function, items)

    monkeypatch.setattr("pipeline.pretrain.collect.map_in_processes", map_here)


def make_videos(folder: Path, **num_frames: int) -> Path:
    """Videos whose frames tell their number; `anna_1=30` becomes `anna/1.mp4` of 30 frames."""
    for name, count in num_frames.items():
        path = folder / f"{name.replace('_', '/')}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        numbered_video(path, count, "-g", "12")
    return folder


def make_pictures(folder: Path, *names: str) -> Path:
    """Noise, 40 x 30 pixels."""
    random = np.random.default_rng(len(names))
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    return folder


def videos_of(source: Path, out: Path, search: FaceSearch = WHOLE) -> Collection:
    """The manifest of a folder of videos."""
    return collect_videos(out, list_files(source, VIDEO_SUFFIXES, "folder"), "films", SPLIT, search)


def pictures_of(source: Path, out: Path) -> Collection:
    """The manifest of a folder of pictures."""
    return collect_pictures(out, list_files(source, PICTURE_SUFFIXES, "folder"), "faces", SPLIT)
