"""Sixteen pictures out of a video file, decoded once.

The packets tell how many frames there are, and when each is shown; so the frames to keep are known
before anything is decoded. One pass decodes them, and leaves out the frames that nobody keeps and
nothing refers to.

Shape letters: T sampled pictures, H x W pixels of a picture, S side of a square one.
"""

from bisect import bisect_right
from collections.abc import Generator, Iterator, Set
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.common.files import is_lfs_pointer
from pipeline.common.frames import FrameSettings
from pipeline.video.container import (
    MAX_PIXELS,
    Deadline,
    UnusableVideo,
    open_video,
    too_large,
    unreadable,
)
from pipeline.video.pictures import Converter, Picture, same_size
from pipeline.video.sampling import kept_indices
from pipeline.video.shots import ShotFinder
from pipeline.video.streams import Stream, find_stream


class Notes(NamedTuple):
    """What is odd about a video that can be used.

    Attributes:
        holes: Frames that are damaged or missing.
        stream: Which of several streams was taken, in words; empty for the only one.
    """

    holes: int
    stream: str


class SampledVideo(NamedTuple):
    """What was read of a video.

    Attributes:
        pictures: (T, H, W, 3) uint8 RGB.
        times: (T,) when each is shown, in seconds after the first frame of the video.
        shots: (T,) which shot each is of, in ascending order from 0; see `pipeline.video.shots`.
        num_frames: Frames of the video.
        seconds: Its length as the container declares it; 0 where it declares none.
        notes: What is odd about it.
    """

    pictures: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]
    shots: npt.NDArray[np.int64]
    num_frames: int
    seconds: float
    notes: Notes


class _Choice(NamedTuple):
    """What a pass is to do.

    Attributes:
        by_time: Whether frames go by the time at which they are shown, or else by their number.
        kept: Those of which a picture is made.
        spare: Points of frames that are not decoded.
    """

    by_time: bool
    kept: Set[int]
    spare: Set[int]


class _Decoded(NamedTuple):
    """What a pass found.

    Attributes:
        pictures: Of the kept ones.
        shots: Which shot each of these is of; ascending.
        points: Of all frames that came out, in this order.
        num_damaged: How many of them are known to be damaged.
        has_fields: Whether frames are interlaced: their two halves can be packets of their own.
    """

    pictures: dict[int, Picture]
    shots: dict[int, int]
    points: list[int | None]
    num_damaged: int
    has_fields: bool


def read_pictures(path: Path, settings: FrameSettings) -> SampledVideo:
    """Sample a video evenly to RGB pictures in temporal order.

    With crop `square` and `none` they are frames, S x S. With `face`, which is cut out of them
    later (`pipeline.video.reader`), they are as large as in the video, and at most 1920 pixels;
    where the video changes its size they are as large as the largest of them.

    The frames are chosen by what the packets say. Where the decoder gives other ones (some are
    damaged, or need what was cut away before them) they are chosen anew among those.

    Args:
        path: The video file.
        settings: Which pictures, and how large.

    Raises:
        UnusableVideo: No such file, not a video, no video stream, truncated, or larger than 7680 x
        4320.
    """
    check_file(path)
    deadline = Deadline(path)
    stream = find_stream(path, deadline)
    timeline, spare = stream.timeline, stream.spare
    by_time = stream.is_timed
    # A pass that leaves frames out cannot know whether these would have come out. So the second,
    # which leaves out none, may have been told a wrong number, and the third cannot.
    for _ in range(3):
        num_frames = len(timeline.points)
        if not num_frames:
            raise UnusableVideo("no_frames", f"{path.name}: no frame could be decoded")
        names = timeline.points if by_time else range(num_frames)
        indices = kept_indices(timeline, settings)
        kept = {names[i] for i in indices}
        spare -= kept
        decoded = _decode(path, stream, _Choice(by_time, kept, spare), settings, deadline)
        found = decoded.points if by_time else range(len(decoded.points))
        if list(found) == [name for name in names if name not in spare]:
            break
        left_out = [point for point in stream.timeline.points if point in spare]
        timeline = stream.timeline_of(decoded.points, left_out)
        by_time, spare = False, frozenset()
    else:
        raise unreadable(path, "it decodes differently every time")
    missing = 0 if decoded.has_fields else len(stream.timeline.points) - num_frames
    return SampledVideo(
        same_size([decoded.pictures[names[i]] for i in indices]),
        timeline.seconds(indices),
        np.unique([decoded.shots[names[i]] for i in indices], return_inverse=True)[1],
        num_frames,
        stream.seconds,
        Notes(decoded.num_damaged + max(0, missing), stream.choice),
    )


def check_file(path: Path) -> None:
    """Raises UnusableVideo for a path where there is nothing that could be a video."""
    if not path.is_file():
        raise UnusableVideo("missing", f"{path.name}: no such file; check the path in the table")
    if not path.stat().st_size:
        raise UnusableVideo("empty", f"{path.name}: the file has zero bytes; copy it again")
    if is_lfs_pointer(path):
        raise UnusableVideo(
            "lfs_pointer",
            f"{path.name}: a Git LFS pointer, not a video; run `git lfs pull` where it was cloned",
        )


def _decode(
    path: Path, stream: Stream, choice: _Choice, settings: FrameSettings, deadline: Deadline
) -> _Decoded:
    converter = Converter(stream.pixel_aspect, settings)
    finder = ShotFinder()
    pictures: dict[int, Picture] = {}
    positions: dict[int, int] = {}
    points: list[int | None] = []
    num_damaged, has_fields = 0, False
    for frame in decode_frames(path, stream, choice.spare, deadline):
        name = frame.pts if choice.by_time else len(points)
        points.append(frame.pts)
        num_damaged += frame.is_corrupt or frame.pts in stream.corrupt
        has_fields |= frame.interlaced_frame
        try:
            finder.add(frame)
            if name is not None and name in choice.kept:
                pictures[name] = converter(frame)
                positions[name] = len(points) - 1
        except av.FFmpegError as error:
            raise unreadable(path, f"its colours cannot be converted: {error}") from error
    first_frames = finder.first_frames()
    shots = {name: bisect_right(first_frames, position) for name, position in positions.items()}
    return _Decoded(pictures, shots, points, num_damaged, has_fields)


def decode_frames(
    path: Path, stream: Stream, spare: Set[int], deadline: Deadline, *, num_threads: int = 1
) -> Generator[VideoFrame]:
    """All frames but the spare ones, in the order in which they are shown.

    Raises:
        UnusableVideo: A frame is larger than 7680 x 4320, or the time is over.
    """
    with open_stream(path, stream.number, deadline, num_threads=num_threads) as opened:
        yield from opened.frames(stream.pixel_aspect, spare)


class OpenStream(NamedTuple):
    """A stream that is about to be decoded, from wherever its container stands."""

    path: Path
    container: InputContainer
    video: VideoStream
    deadline: Deadline

    def frames(self, pixel_aspect: Fraction, spare: Set[int]) -> Iterator[VideoFrame]:
        """As `decode_frames`."""
        for packet in self.container.demux(self.video):
            self.deadline.left()
            if packet.pts in spare:
                continue
            try:
                frames = self.video.decode(packet)
            except av.FFmpegError:
                continue  # A hole: the other frames are used, and the missing ones counted.
            for frame in frames:
                if frame.width * frame.height * max(pixel_aspect, 1 / pixel_aspect) > MAX_PIXELS:
                    raise too_large(self.path)
                yield frame


@contextmanager
def open_stream(
    path: Path, number: int, deadline: Deadline, *, num_threads: int = 1
) -> Iterator[OpenStream]:
    """A video's stream of that number, the only one that is read.

    Raises:
        UnusableVideo: Not a video, or the time is over.
    """
    with open_video(path, deadline) as container:
        video = container.streams[number]
        assert isinstance(video, VideoStream)
        for other in container.streams:
            other.discard = Discard.default if other is video else Discard.all
        video.codec_context.thread_count = num_threads
        video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        yield OpenStream(path, container, video, deadline)
