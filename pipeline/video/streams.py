"""The video stream of a file: chosen, its packets counted. Nothing is decoded here."""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from pipeline.video.container import (
    MAX_PIXELS,
    Deadline,
    UnusableVideo,
    open_video,
    too_large,
    unreadable,
)
from pipeline.video.cut_off import is_cut_off
from pipeline.video.declared import num_declared
from pipeline.video.nal_units import PictureHeader, picture_header

_MAX_FRAMES = 1_000_000
# Samples of all tracks that a header may declare: of such a video, its sound and an edit list.
_MAX_DECLARED = 4 * _MAX_FRAMES
# Of the two sides of a pixel. Anamorphic films and old discs stay below 3.
_MAX_PIXEL_ASPECT = 4
_NO_FILM = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
# Of a stream that does not say how fast its frames follow one another, per second.
_USUAL_RATE = Fraction(25)


class Timeline(NamedTuple):
    """When the frames of a video are shown.

    Attributes:
        tick: Seconds of a unit of the other two.
        points: When each frame is first shown, ascending.
        end: When the last one is over.
    """

    tick: Fraction
    points: Sequence[int]
    end: int

    def seconds(self, indices: Sequence[int]) -> npt.NDArray[np.float64]:
        """When some of the frames are shown, in seconds after the first of all."""
        ticks = [self.points[i] - self.points[0] for i in indices]
        return np.array([float(number * self.tick) for number in ticks])


class Stream(NamedTuple):
    """What the packets of a stream tell before anything is decoded.

    Attributes:
        number: Its place in the file, from 0.
        seconds: Length of the file as it declares it; 0 where it declares none.
        timeline: Of the shown frames: those that no edit list hides.
        is_timed: Whether the timeline is what the packets say. Else (they say nothing, as in AVI,
            or the same for two frames) it is made of their number and the rate.
        rate: Frames per second.
        spare: Points of frames that no other frame refers to, where this is certain.
        corrupt: Points of packets that are known to be damaged.
        pixel_aspect: Width of a pixel over its height; 1 where what the file says is absurd.
        choice: Which of several streams this is, and what of it is not believed; mostly empty.
    """

    number: int
    seconds: float
    timeline: Timeline
    is_timed: bool
    rate: Fraction
    spare: frozenset[int]
    corrupt: frozenset[int]
    pixel_aspect: Fraction
    choice: str

    def timeline_of(self, points: Sequence[int | None], left_out: Sequence[int]) -> Timeline:
        """Of frames that came out in this order, and of others that were not decoded."""
        known = [point for point in points if point is not None]
        is_timed = len(known) == len(points) and known == sorted(set(known))
        number = len(points) + len(left_out)
        if not is_timed or not self.is_timed:
            return Timeline(1 / self.rate, range(number), number)
        return Timeline(self.timeline.tick, sorted([*known, *left_out]), self.timeline.end)


def find_stream(path: Path, deadline: Deadline) -> Stream:
    """The stream with most frames that is no cover, still or thumbnail; of equals the first.

    Raises:
        UnusableVideo: Not a video, no video stream, truncated, or larger than 7680 x 4320.
    """
    if (declared := num_declared(path)) > _MAX_DECLARED:
        raise _too_long(path, f"its header declares {declared:,} frames and pieces of sound")
    with open_video(path, deadline) as container:
        candidates = _candidates(container, path)
        if is_cut_off(path, container.format.name):
            raise UnusableVideo("truncated", f"{path.name}: the file ends too early; copy it again")
        seconds = (container.duration or 0) / av.time_base
        packets = {stream.index: _Packets(stream) for stream in candidates}
        for packet in container.demux(candidates):
            deadline.left()
            if packet.size:
                packets[packet.stream_index].add(packet)
                if packets[packet.stream_index].count > _MAX_FRAMES:
                    raise _too_long(path, f"more than {_MAX_FRAMES:,} frames")
        chosen = max(packets.values(), key=lambda found: len(found.shown))
        choice = ""
        if len(packets) > 1:
            counts = ", ".join(f"{found.number}: {len(found.shown)}" for found in packets.values())
            choice = f"stream {chosen.number} of {len(packets)} (frames of each: {counts})"
        return chosen.summary(seconds, choice)


def _too_long(path: Path, what: str) -> UnusableVideo:
    return UnusableVideo("too_long", f"{path.name}: {what}; cut the video into clips")


def _candidates(container: InputContainer, path: Path) -> list[VideoStream]:
    """The streams of moving pictures; the others are not to be read."""
    streams = [stream for stream in container.streams.video if not stream.disposition & _NO_FILM]
    if not streams:
        raise UnusableVideo("no_video_stream", f"{path.name}: holds no video stream (sound only?)")
    # Annotated as if there always were one.
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable:
        raise unreadable(path, "nothing here decodes its format")
    for stream in container.streams:
        stream.discard = Discard.default if stream in decodable else Discard.all
    for stream in decodable:
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise too_large(path)
    return decodable


class _Packets:
    """The packets of one stream, as they are read one after the other."""

    def __init__(self, stream: VideoStream) -> None:
        self.number = stream.index
        self.count = 0
        self.shown: list[int | None] = []
        self._points: Counter[int | None] = Counter()
        self._corrupt: set[int] = set()
        self._unreferenced: dict[int, PictureHeader] = {}
        self._layers: set[int] = set()
        self._stream = stream
        self._key = math.inf
        self._last: tuple[float, int] = (-math.inf, 0)

    def add(self, packet: "Packet[Any]") -> None:
        point = packet.pts
        self.count += 1
        self._points[point] += 1
        if not packet.is_discard:
            self.shown.append(point)
        if point is None:
            return
        if not packet.is_discard:
            self._last = max(self._last, (point, packet.duration or 0))
        if packet.is_keyframe:
            self._key = point
        if packet.is_corrupt:
            self._corrupt.add(point)
            return
        header = picture_header(packet, self._stream.codec_context)
        if header:
            self._layers.add(header.layer)
            # A frame that is shown before the key frame that it follows in the file may refer to
            # frames that were cut away. Whether it comes out is up to the decoder.
            if not header.is_reference and point > self._key:
                self._unreferenced[point] = header

    def summary(self, seconds: float, choice: str) -> Stream:
        rate = self._stream.average_rate or self._stream.guessed_rate or _USUAL_RATE
        tick = self._stream.time_base or 1 / rate
        points = [point for point in self.shown if point is not None]
        timed = len(set(points)) == len(self.shown) > 0
        if timed:
            points.sort()
            step = self._last[1] or (points[-1] - points[0]) // max(1, len(points) - 1)
            timeline = Timeline(tick, points, points[-1] + max(1, step))
        else:
            timeline = Timeline(1 / rate, range(len(self.shown)), len(self.shown))
        spare = {
            point
            for point, header in self._unreferenced.items()
            if header.layer == max(self._layers) and self._points[point] == 1
        }
        pixel_aspect = self._stream.sample_aspect_ratio or Fraction(1)
        if max(pixel_aspect, 1 / pixel_aspect) > _MAX_PIXEL_ASPECT:
            # Most often a display size that nobody meant; the decoded picture is what there is.
            remark = f"pixels {float(pixel_aspect):.4g} times as wide as high are taken as square"
            choice = f"{choice}; {remark}" if choice else remark
            pixel_aspect = Fraction(1)
        return Stream(
            self.number,
            seconds,
            timeline,
            timed,
            rate,
            frozenset(spare if timed else ()),
            frozenset(self._corrupt),
            pixel_aspect,
            choice,
        )
