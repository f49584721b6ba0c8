"""Frames from anywhere in a long video: a jump to the key frame before, and forward from there.

Frames are named by their points, the times at which they are first shown in ticks of the stream,
as `pipeline.video.streams` lists them. What comes out is what a pass from the beginning gives.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.video.container import Deadline, UnusableVideo, unreadable
from pipeline.video.decode import open_stream
from pipeline.video.pictures import Converter, Picture

# How much earlier to begin where the first jump does not give all frames: it may land behind them,
# or at a picture that refers to earlier ones. In seconds.
_LEADS_S = (0, 10, 100)


class VideoTrack(NamedTuple):
    """What must be known of a stream before it is read.

    Attributes:
        number: Its place in the file, from 0.
        is_timed: Whether frames go by their points. Else these are the frames' numbers, and
            reading begins at the first one.
        pixel_aspect: Width of a pixel over its height.
    """

    number: int
    is_timed: bool
    pixel_aspect: Fraction


def read_moments(path: Path, track: VideoTrack, points: Sequence[int]) -> list[Picture]:
    """Pictures (H, W, 3) of frames as they are shown, at most 1920 pixels long.

    Args:
        path: The video file.
        track: Of which stream.
        points: Of the frames, ascending; one may be there several times.

    Raises:
        UnusableVideo: No such file; or a frame does not decode, or is damaged.
    """
    if not path.is_file():
        raise missing(path)
    deadline = Deadline(path)
    wanted = set(points)
    found: dict[int, Picture] = {}
    for lead in _LEADS_S if track.is_timed else (0,):
        found = {}
        converter = Converter(track.pixel_aspect)
        for point, frame in frames_from(path, track, points[0], lead, deadline):
            if point > points[0] and not found:
                break  # It begins too late.
            if point in wanted and not frame.is_corrupt:
                try:
                    found[point] = converter(frame)
                except av.FFmpegError as error:
                    raise unreadable(path, f"its colours cannot be converted: {error}") from error
            if point >= points[-1]:
                break
        if found.keys() == wanted:
            return [found[point] for point in points]
    raise unreadable(path, f"{len(wanted) - len(found)} of {len(wanted)} frames do not decode")


def missing(path: Path) -> UnusableVideo:
    """The refusal of a file that is not there."""
    return UnusableVideo("missing", f"{path.name}: no such file")


def frames_from(
    path: Path, track: VideoTrack, point: int, lead: float, deadline: Deadline
) -> Iterator[tuple[int, VideoFrame]]:
    """Points and frames in the order in which they are shown, from a key frame on.

    Args:
        path: The video file.
        track: Of which stream.
        point: At which frames are wanted; the first one that comes is mostly earlier.
        lead: Seconds before the point from where the key frame is looked for.
        deadline: Of all reading.

    Raises:
        UnusableVideo: Not a video any more, too slow, or larger than 7680 x 4320 pixels.
    """
    with open_stream(path, track.number, deadline) as opened:
        if track.is_timed:
            _jump(opened.container, opened.video, point, lead)
        for number, frame in enumerate(opened.frames(track.pixel_aspect, frozenset())):
            if not track.is_timed:
                yield number, frame
            elif frame.pts is not None:
                yield frame.pts, frame


def _jump(container: InputContainer, video: VideoStream, point: int, lead: float) -> None:
    """Go to a key frame before the point; stay at the beginning where the file knows no way."""
    first = video.start_time or 0
    target = point - int(lead / (video.time_base or 1))
    if target <= first:
        return
    try:
        container.seek(target, stream=video, backward=True)
    except av.FFmpegError:
        container.seek(first, stream=video, backward=True)
