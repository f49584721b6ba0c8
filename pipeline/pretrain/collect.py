"""What a pre-training is made of, as a manifest: which files serve, and which samples are held out.

Everything is looked at once; a file that cannot be used is refused by name, and the others go on.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch

from pipeline.common.clips import Refusal
from pipeline.common.files import atomic_path
from pipeline.common.workers import Folders, map_in_processes
from pipeline.pretrain.listing import Collection, ListedFile, Listing, Refused, Split
from pipeline.pretrain.manifest import (
    MANIFEST,
    POINTS,
    SQUARES,
    ManifestWriter,
    Picture,
    Span,
    write_manifest,
)
from pipeline.pretrain.spans import FaceSearch, FoundVideo, look_at
from pipeline.video.container import UnusableVideo
from pipeline.video.faces import FaceDetector
from pipeline.video.picture_file import open_picture

# Files that are looked at before the processes start anew: what waits for them takes memory.
_AT_ONCE = 20_000
# Pixels of a picture that is tried.
_TRIED_SIDE = 64

Found = TypeVar("Found")


def collect_videos(
    out: Path, listing: Listing, dataset: str, split: Split, search: FaceSearch
) -> Collection:
    """Look at every video of a listing; write the manifest of spans.

    Args:
        out: Of the manifest.
        listing: The files.
        dataset: Name of them all.
        split: What is held out.
        search: What of a video is taken.
    """
    part_of = split.part_of([file.group for file in listing.files])
    look = partial(_look_at_video, folder=listing.folder, search=search)
    looked = _look_at_all(look, listing, search)
    refused: list[Refused] = []
    with (
        write_manifest(out / MANIFEST, Span) as writer,
        atomic_path(out / POINTS) as points_path,
        atomic_path(out / SQUARES) as squares_path,
        points_path.open("wb") as points,
        squares_path.open("wb") as squares,
    ):
        for file, found in looked:
            if isinstance(found, Refusal):
                refused.append(Refused(file.path, found))
            else:
                common = (dataset, file.group, part_of(file.group))
                _add_video(writer, file.path, common, found, search.step, points, squares)
    return Collection(len(listing.files), writer.count, refused, {})


def _add_video(
    writer: ManifestWriter[Span],
    path: str,
    common: tuple[str, str, str],
    video: FoundVideo,
    step: int,
    points: BinaryIO,
    squares: BinaryIO,
) -> None:
    base = points.tell() // 8
    points.write(video.points.tobytes())
    for number, span in enumerate(video.spans):
        last = span.first + span.num_frames - 1
        ticks = int(video.points[last] - video.points[span.first])
        writer.add(
            Span(
                f"{path}:{number}",
                path,
                *common,
                seconds=ticks * video.tick,
                num_frames=span.num_frames,
                first_point=base + span.first,
                stream=video.track.number,
                is_timed=video.track.is_timed,
                pixel_width=video.track.pixel_aspect.numerator,
                pixel_height=video.track.pixel_aspect.denominator,
                first_square=squares.tell() // 16,
                num_squares=len(span.squares),
                square_step=step,
            )
        )
        squares.write(span.squares.tobytes())


def collect_pictures(out: Path, listing: Listing, dataset: str, split: Split) -> Collection:
    """Look at every picture of a listing; write the manifest. See `collect_videos`."""
    part_of = split.part_of([file.group for file in listing.files])
    refused: list[Refused] = []
    look = partial(_look_at_picture, folder=listing.folder)
    with write_manifest(out / MANIFEST, Picture) as writer:
        for file, found in _look_at_all(look, listing, None):
            if isinstance(found, Refusal):
                refused.append(Refused(file.path, found))
            else:
                group = file.group
                writer.add(Picture(file.path, file.path, dataset, group, part_of(group)))
    return Collection(len(listing.files), writer.count, refused, {})


def _look_at_all(
    look: Callable[[ListedFile], Found], listing: Listing, search: FaceSearch | None
) -> Iterator[tuple[ListedFile, Found | Refusal]]:
    """Every file with what is found in it, in their order."""
    for begin in range(0, len(listing.files), _AT_ONCE):
        some = listing.files[begin : begin + _AT_ONCE]
        found: Iterator[Any] = map_in_processes(
            look,
            some,
            f"looking at files from {begin + 1}" if begin else "looking at files",
            initializer=_start_worker,
            initargs=(search,),
            on_crash=_crashed,
            folders=Folders(read=[listing.folder]),
        )
        yield from zip(some, found, strict=True)


_detector: FaceDetector | None


def _start_worker(search: FaceSearch | None) -> None:
    global _detector
    torch.set_num_threads(1)
    wanted = search is not None and search.crop == "face"
    _detector = FaceDetector(search.faces.min_face_size) if search and wanted else None


def _look_at_video(file: ListedFile, folder: Path, search: FaceSearch) -> FoundVideo | Refusal:
    try:
        return look_at(folder / file.path, search, _detector)
    except UnusableVideo as error:
        return error.refusal


def _look_at_picture(file: ListedFile, folder: Path) -> Refusal | None:
    try:
        open_picture(folder / file.path, _TRIED_SIDE)
    except UnusableVideo as error:
        return error.refusal
    return None


def _crashed(file: ListedFile) -> Refusal:
    return Refusal(
        "crashed", f"{file.path}: the decoder crashed or ran out of memory; convert the file"
    )
