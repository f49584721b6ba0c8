"""A manifest of 100,000 rows: a start takes seconds, and reading takes no memory that stays."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
from small_videos import numbered_video

from pipeline.feed.batches import BatchPlan
from pipeline.feed.order import Rank
from pipeline.pretrain.batches import Form, PretrainBatches
from pipeline.pretrain.crops import AugmentSettings
from pipeline.pretrain.manifest import (
    HELD_OUT,
    MANIFEST,
    POINTS,
    SQUARES,
    TRAIN,
    Span,
    write_manifest,
)
from pipeline.pretrain.masks import tube_masking
from pipeline.pretrain.video_clips import ClipSettings, VideoClips
from pipeline.video.container import Deadline
from pipeline.video.streams import find_stream

NUM_FRAMES = 24


class Cost(NamedTuple):
    """Of a start, and of reading 300 clips after that."""

    seconds: float
    start_mb: float
    reading_mb: float


def many_rows(folder: Path, count: int) -> None:
    """So many rows, each of the same video under another name."""
    folder.mkdir()
    video = numbered_video(folder / "clip.mp4", NUM_FRAMES)
    points = find_stream(video, Deadline(video)).timeline.points
    np.array(points, np.int64).tofile(folder / POINTS)
    (folder / SQUARES).touch()
    with write_manifest(folder / MANIFEST, Span) as writer:
        for i in range(count):
            part = HELD_OUT if i % 50 == 0 else TRAIN
            writer.add(
                Span(
                    f"id{i // 30:05}/video-{i:07}/0001.mp4:0",
                    "clip.mp4",
                    "films",
                    f"id{i // 30:05}",
                    part,
                    seconds=60.0,
                    num_frames=NUM_FRAMES,
                    first_point=0,
                    stream=0,
                    is_timed=True,
                    pixel_width=1,
                    pixel_height=1,
                    first_square=0,
                    num_squares=0,
                    square_step=1,
                )
            )


def memory_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def begin_and_read(folder: Path) -> Cost:
    """A device's first batches of an epoch of ten clips per row."""
    before, started = memory_mb(), time.perf_counter()
    settings = ClipSettings(num_frames=4, stride=2, seconds_per_clip=6.0)
    clips = VideoClips(folder, folder, TRAIN, settings, num_frames=4, side=40)
    batches = PretrainBatches(
        clips,
        Form(num_frames=4, size=32, masking=tube_masking(2, 4, 0.5)),
        AugmentSettings(crop="multi_scale", flip_probability=0.5),
        BatchPlan(
            batch_size=64,
            class_balanced=False,
            min_steps=1,
            seed=1,
            rank=Rank(3, 16),
            num_workers=0,
        ),
    )
    coming = batches.starting_at(1, 5)
    first = next(coming)
    seconds, start_mb = time.perf_counter() - started, memory_mb() - before
    assert len({name.rpartition(":")[0] for name in first.ids}) == 4
    before = memory_mb()
    for batch in islice(coming, 75):
        assert len(batch) == 4
    return Cost(seconds, start_mb, memory_mb() - before)


@pytest.mark.slow
def test_memory_is_flat_over_100000_rows(tmp_path: Path) -> None:
    costs = []
    for count in (1_000, 100_000):
        many_rows(tmp_path / str(count), count)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            costs.append(process.submit(begin_and_read, tmp_path / str(count)).result())
    few, many = costs
    # A million clips of an epoch: their order, and the shares of this device.
    assert many.start_mb - few.start_mb < 250
    assert many.reading_mb < 40
    assert many.seconds < 60
