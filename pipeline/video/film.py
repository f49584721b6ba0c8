"""A video of any length, read from its beginning to its end without being held.

Shape letters: H x W pixels of a picture.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import av

from pipeline.common.frames import FrameSettings
from pipeline.video.container import Deadline, UnusableVideo, unreadable
from pipeline.video.decode import check_file, decode_frames
from pipeline.video.pictures import Converter, Picture, fit_into, upright_size
from pipeline.video.sampling import frames_on_screen
from pipeline.video.shots import FRAMES_AFTER, ShotFinder
from pipeline.video.streams import find_stream

# That the slowest decoder may take for a frame.
_SECONDS_PER_FRAME = 0.1


class FilmPicture(NamedTuple):
    """A picture of a film.

    Attributes:
        seconds: When it is shown, after the first frame of the film.
        shot: The number of the shot that it is of.
        picture: (H, W, 3).
    """

    seconds: float
    shot: int
    picture: Picture


class _Pending(NamedTuple):
    """A picture whose shot is not known yet: that takes the frames after it.

    Attributes:
        num_points: Of the film that it is shown at.
        number: Of its frame.
    """

    num_points: int
    number: int
    seconds: float
    picture: Picture


class Film:
    """A video of any length.

    Args:
        path: The video file.
        settings: How large its pictures are, and what is cut away, as for `read_pictures`.
        num_threads: That decode it.

    Attributes:
        seconds: From its first frame to the end of its last one.
        num_frames: As its packets have it.
        width: Of a whole picture, upright and of square pixels, in pixels.
        height: Likewise.

    Raises:
        UnusableVideo: See `read_pictures`.
    """

    def __init__(self, path: Path, settings: FrameSettings, *, num_threads: int = 1) -> None:
        check_file(path)
        self.path = path
        self.settings = settings
        self.num_threads = num_threads
        self._stream = find_stream(path, Deadline(path))
        timeline = self._stream.timeline
        self.num_frames = len(timeline.points)
        if not self.num_frames:
            raise UnusableVideo("no_frames", f"{path.name}: no frame could be decoded")
        self.seconds = float((timeline.end - timeline.points[0]) * timeline.tick)
        with closing(decode_frames(path, self._stream, frozenset(), Deadline(path))) as frames:
            first = next(frames, None)
        if first is None:
            raise UnusableVideo("no_frames", f"{path.name}: no frame could be decoded")
        self.width, self.height = upright_size(first, self._stream.pixel_aspect)

    def pictures(self, num_points: int) -> Iterator[FilmPicture]:
        """What is on screen at the centres of `num_points` equal intervals of the film.

        In place of a frame that is damaged the next one is taken, and after the last that can be
        decoded there are no more. All pictures are as large as the first: where the film changes
        its size, they are fitted into that.

        Raises:
            UnusableVideo: A frame is too large, or decoding takes too long.
        """
        timeline = self._stream.timeline
        wanted = [timeline.points[i] for i in frames_on_screen(timeline, num_points)]
        convert = Converter(self._stream.pixel_aspect, self.settings)
        finder = ShotFinder()
        pending: deque[_Pending] = deque()
        frames = decode_frames(
            self.path,
            self._stream,
            self._stream.spare - set(wanted),
            Deadline(self.path, more=_SECONDS_PER_FRAME * self.num_frames),
            num_threads=self.num_threads,
        )
        size: tuple[int, int] | None = None
        taken = 0
        with closing(frames):
            for number, frame in enumerate(frames):
                point = frame.pts if self._stream.is_timed else number
                is_wanted = taken < num_points and point is not None and point >= wanted[taken]
                try:
                    finder.add(frame)
                    picture = convert(frame) if is_wanted else None
                except av.FFmpegError as error:
                    raise unreadable(
                        self.path, f"its colours cannot be converted: {error}"
                    ) from error
                if picture is not None and point is not None:
                    size = size or (picture.shape[1], picture.shape[0])
                    seconds = float((point - timeline.points[0]) * timeline.tick)
                    count = bisect_right(wanted, point, lo=taken) - taken
                    pending.append(_Pending(count, number, seconds, fit_into(picture, *size)))
                    taken += count
                while pending and number >= pending[0].number + FRAMES_AFTER:
                    yield from _shown(pending.popleft(), finder)
                if taken == num_points and not pending:
                    return
        for shown in pending:
            yield from _shown(shown, finder)


def _shown(pending: _Pending, finder: ShotFinder) -> Iterator[FilmPicture]:
    """The picture, once for each of its points."""
    shot = bisect_right(finder.first_frames(), pending.number)
    yield from [FilmPicture(pending.seconds, shot, pending.picture)] * pending.num_points
