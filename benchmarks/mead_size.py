"""Seconds per 1,000 clips and memory of finding MEAD's clips: all views, all levels, all sentences.

    python -m benchmarks.mead_size 20000 [--packed 4]

A tree of empty files is generated in the layout of the data set; some actors are packed, with files
of a kilobyte. The first collection unpacks them, the second finds them unpacked. Then the manifest
is written and read.
"""

import argparse
import os
import resource
import tarfile
import time
from collections.abc import Callable
from io import BytesIO
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.common.clips import read_manifest, write_manifest
from pipeline.datasets.mead import ACTORS, EMOTIONS, LEVELS, VIEWS, Settings, collect

CELLS = [
    f"{view}/{emotion}/level_{level}"
    for view, emotion, level in product(VIEWS, EMOTIONS, LEVELS)
    if emotion != "neutral" or level == 1
]


def write_tree(source: Path, num_clips: int, num_packed: int) -> int:
    """About so many clips of all actors; how many they are."""
    num_sentences = max(1, round(num_clips / len(ACTORS) / len(CELLS)))
    names = [f"{i:03}.mp4" for i in range(1, num_sentences + 1)]
    for actor in ACTORS[num_packed:]:
        for cell in CELLS:
            folder = source / actor / "video" / cell
            folder.mkdir(parents=True)
            for name in names:
                (folder / name).touch()
    for actor in ACTORS[:num_packed]:
        (source / actor).mkdir(parents=True)
        with tarfile.open(source / actor / "video.tar", "w") as archive:
            for cell, name in product(CELLS, names):
                member = tarfile.TarInfo(f"video/{cell}/{name}")
                member.size = 1024
                archive.addfile(member, BytesIO(bytes(1024)))
    return len(ACTORS) * len(CELLS) * num_sentences


def measure(work: Callable[..., int], *arguments: object) -> tuple[int, float, float]:
    """In a process of its own: the work's answer, its seconds, and by how many MB memory grew."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, *arguments))


def _measured(work: Callable[..., int], *arguments: object) -> tuple[int, float, float]:
    before, started = _peak_mb(), time.perf_counter()
    answer = work(*arguments)
    return answer, time.perf_counter() - started, _peak_mb() - before


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def find(source: Path) -> int:
    settings = Settings(classes=[], source=source, view="all", subset="all", accept_licence=True)
    return len(collect(settings, source, source).clips)


def write(source: Path, manifest: Path) -> int:
    settings = Settings(classes=[], source=source, view="all", subset="all", accept_licence=True)
    write_manifest(manifest, collect(settings, source, source).clips)
    return len(read_manifest(manifest))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=int, help="how many are generated")
    parser.add_argument("--packed", type=int, default=4, help="actors that are still archives")
    args = parser.parse_args()
    with TemporaryDirectory() as name:
        # Unpacked files go below the current folder.
        os.chdir(name)
        source = Path(name) / "MEAD"
        num_clips = write_tree(source, args.clips, args.packed)
        print(f"{num_clips} clips, {args.packed} of {len(ACTORS)} actors packed")
        for what, work, arguments in (
            ("unpacked and found", find, (source,)),
            ("found again", find, (source,)),
            ("found, manifest written and read", write, (source, Path(name) / "raw.parquet")),
        ):
            found, seconds, grown = measure(work, *arguments)
            if found != num_clips:
                raise SystemExit(f"{found} clips were found")
            per_thousand = 1000 * seconds / num_clips
            print(f"{what}: {per_thousand:.3f} s per 1,000 clips, {grown:.0f} MB more memory")


if __name__ == "__main__":
    main()
