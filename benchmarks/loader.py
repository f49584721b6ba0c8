"""The loader alone: clips per second for numbers of workers, memory for numbers of clips.

    python -m benchmarks.loader [--clips 256 1024 4096] [--workers 0 2 4] [--image-size 224]
        [--batch 16] [--augment]

Shards with clips of 16 x 224 x 224 pixels, JPEG of quality 95, are generated in a temporary folder.
Every row is a process of its own that reads each clip once, in the order of a training epoch, after
a first batch that pays for starting the workers. Memory is the peak resident set of that process,
and with workers the largest of theirs, over what it had before. Files are in the page cache; a disk
is measured by nobody.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.attention import machine
from pipeline.common.clips import Clip, write_stored
from pipeline.common.frames import FaceTrack
from pipeline.feed.augment import AugmentSettings
from pipeline.feed.batches import BatchPlan, TrainingBatches
from pipeline.feed.order import Rank
from pipeline.store.contents import CLIPS
from pipeline.store.folders import open_shards, read_clips
from pipeline.store.shards import write_shards
from pipeline.store.stored_frames import StoredFrames
from pipeline.store.strips import encode_strip

NUM_FRAMES, SIZE = 16, 224
# Those of the recipe `full`, but for its second copy of every clip.
AUGMENTED = AugmentSettings(
    flip_probability=0.5,
    shift=0,
    scale=0,
    rotation=0,
    crop_area=0.08,
    crop_aspect=1.3333,
    colour=0,
    rand_augment_ops=4,
    rand_augment_probability=0.5,
    rand_augment_magnitude=7.0,
    rand_augment_deviation=0.5,
    erase_probability=0.25,
    copies=1,
)
PLAIN = AUGMENTED.model_copy(
    update={"flip_probability": 0, "rand_augment_ops": 0, "erase_probability": 0}
)


class Cost(NamedTuple):
    """What an epoch took: seconds of indexing, clips per second, MB in this and in a worker."""

    indexing: float
    rate: float
    own_mb: float
    worker_mb: float


def write_clips(folder: Path, num_clips: int) -> None:
    """Moving gradients with some noise, about as large as a face in a studio."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 255, SIZE)
    picture = np.add.outer(ramp, ramp[::-1])[None, :, :, None] / 2 + np.arange(NUM_FRAMES)[
        :, None, None, None
    ] * np.array([1, 2, 3])
    noise = random.normal(0, 6, picture.shape)
    strip = encode_strip((picture + noise).clip(0, 255).astype(np.uint8), quality=95)
    boxes = np.tile(np.array([60, 40, 160, 180], np.float32), (NUM_FRAMES, 1))
    points = random.uniform(60, 160, (NUM_FRAMES, 5, 2)).astype(np.float32)
    track = FaceTrack(boxes, points, np.ones(NUM_FRAMES, np.bool_))
    names = [f"c{i:06}" for i in range(num_clips)]
    clips = ((Clip(name, f"{name}.mp4", "somebody", "happy"), strip, track) for name in names)
    write_stored(folder / CLIPS, write_shards(folder, clips))


def peak_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1000


def read_epoch(
    place: str, num_workers: int, image_size: int, batch_size: int, augment: AugmentSettings
) -> Cost:
    before = peak_mb(resource.RUSAGE_SELF)
    start = time.perf_counter()
    shards = open_shards(place)
    stored = read_clips(shards)
    clips = StoredFrames(shards, stored, classes=["happy"], image_size=image_size)
    indexing = time.perf_counter() - start
    batches = TrainingBatches(
        clips,
        augment,
        BatchPlan(
            batch_size=batch_size,
            class_balanced=False,
            min_steps=1,
            seed=1,
            rank=Rank(),
            num_workers=num_workers,
        ),
    )
    coming = batches.starting_at(epoch=1, step=0)
    next(coming)
    start = time.perf_counter()
    read = sum(len(batch) for batch in islice(coming, batches.steps_per_epoch - 1))
    rate = read / (time.perf_counter() - start)
    own = peak_mb(resource.RUSAGE_SELF) - before
    del coming  # ends the workers, whose memory counts only then
    worker = peak_mb(resource.RUSAGE_CHILDREN) - before if num_workers else 0.0
    return Cost(indexing, rate, own, worker)


def main(
    sizes: list[int], workers: list[int], image_size: int, batch_size: int, augmented: bool
) -> None:
    augment = AUGMENTED if augmented else PLAIN
    print(
        f"{machine()}; frames of {image_size} px, batches of {batch_size}, "
        f"{'augmented' if augmented else 'not augmented'}\n"
    )
    print(
        "| clips | workers | index (s) | clips/s | memory (MB) | of a worker (MB) |\n"
        "|---:|---:|---:|---:|---:|---:|"
    )
    # A forked process would begin with the memory of this one.
    context = multiprocessing.get_context("spawn")
    for num_clips in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_clips(Path(folder), num_clips)
            for num_workers in workers:
                with ProcessPoolExecutor(1, mp_context=context) as process:
                    cost = process.submit(
                        read_epoch, folder, num_workers, image_size, batch_size, augment
                    ).result()
                print(
                    f"| {num_clips} | {num_workers} | {cost.indexing:.2f} | {cost.rate:.1f} "
                    f"| {cost.own_mb:.0f} | {f'{cost.worker_mb:.0f}' if num_workers else '-'} |",
                    flush=True,
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--clips",
        type=int,
        nargs="+",
        default=[256, 1024, 4096],
        help="of the data set (%(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        nargs="+",
        default=[0, 2, 4],
        help="processes that read (%(default)s)",
    )
    parser.add_argument("--image-size", type=int, default=SIZE, help="pixels (%(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="clips at once (%(default)s)")
    parser.add_argument(
        "--augment", action="store_true", help="change the frames as recipe full does"
    )
    args = parser.parse_args()
    main(args.clips, args.workers, args.image_size, args.batch, args.augment)
