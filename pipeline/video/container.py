"""A video file that a stranger made, opened so that it can do no harm.

Demuxers and protocols are listed, so that a playlist named `.mp4` cannot make the library open
another file or address; pixels and time are bounded.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer

from pipeline.common.clips import Refusal

_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,live_flv,mpeg,mpegts,mpegvideo,ogg,asf"
# What else holds pictures, by its first bytes. It is not taken, because every demuxer more is one
# more way in: it is rare among clips of faces, knows no times (raw streams, IVF) or is no film
# (GIF, WebP), and one command away from a kind that is taken.
_OTHER_KINDS = {
    b"GIF8": "a GIF",
    b"\x89PNG": "a PNG or APNG picture",
    b"\xff\xd8\xff": "a JPEG picture or a raw MJPEG stream",
    b"YUV4MPEG2": "a raw stream (Y4M)",
    b"DKIF": "a raw stream (IVF)",
    b"nut/multimedia container": "a NUT file",
    b".RMF": "a RealMedia file",
    b"\x06\x0e\x2b\x34": "an MXF file",
    b"\x1f\x07\x00": "a raw stream (DV)",
}
MAX_PIXELS = 7680 * 4320
# AVFMT_FLAG_GENPTS, which PyAV sets.
_MADE_UP_TIMES = 1
_TIMEOUT_S = 600


class UnusableVideo(ValueError):
    """A video that cannot give frames; `refusal` says why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(reason, message)


def too_large(path: Path) -> UnusableVideo:
    """The refusal of a video with large pictures."""
    return UnusableVideo("too_large", f"{path.name}: larger than 7680 x 4320 pixels; shrink it")


class Deadline:
    """The end of the time that may be spent on a file.

    Args:
        path: The file.
        more: Seconds beyond those that every file has.
    """

    def __init__(self, path: Path, more: float = 0) -> None:
        self.name = path.name
        self.limit = _TIMEOUT_S + more
        self.end = time.monotonic() + self.limit

    def left(self) -> float:
        """Seconds that remain.

        Raises:
            UnusableVideo: None do.
        """
        left = self.end - time.monotonic()
        if left <= 0:
            raise UnusableVideo(
                "timeout", f"{self.name}: not decoded in {self.limit:.0f} s; cut it into clips"
            )
        return left


@contextmanager
def open_video(path: Path, deadline: Deadline) -> Iterator[InputContainer]:
    """The opened file; what libav raises before it is closed becomes an UnusableVideo.

    Raises:
        UnusableVideo: Not a video, of a kind that is not taken, or too slow.
    """
    try:
        container = av.open(
            f"file:{path.resolve()}",
            "r",
            options={
                "protocol_whitelist": "file",
                "format_whitelist": _CONTAINERS,
                "max_pixels": str(MAX_PIXELS),
            },
            metadata_errors="replace",
            timeout=deadline.left(),
        )
    except av.FFmpegError as error:
        deadline.left()
        raise _not_opened(path, error) from error
    with container:
        # Times that a file lacks are not to be made up: its frames are counted instead.
        container.flags &= ~_MADE_UP_TIMES
        try:
            yield container
        except av.FFmpegError as error:
            deadline.left()
            raise unreadable(path, str(error.strerror)) from error


def unreadable(path: Path, cause: str) -> UnusableVideo:
    """The refusal of a file that cannot be read as a video."""
    return UnusableVideo("unreadable", f"{path.name}: not a readable video ({cause})")


def _not_opened(path: Path, error: av.FFmpegError) -> UnusableVideo:
    if kind := _other_kind(path):
        return UnusableVideo(
            "container",
            f"{path.name}: {kind}, which is not taken; convert it: "
            "ffmpeg -i FILE -pix_fmt yuv420p FILE.mp4",
        )
    if isinstance(error, av.ArgumentError):
        return unreadable(path, "of a kind that is not taken; convert it to mp4")
    return unreadable(path, str(error.strerror))


def _other_kind(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(32)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "a WebP picture"
    for code in (b"\0\0\0\1", b"\0\0\1"):
        # After that, MPEG-1 and -2, which are taken, have a byte above 0x7f.
        if head.startswith(code) and head[len(code) : len(code) + 1] < b"\x80":
            return "a raw stream (H.264 or HEVC)"
    return next((kind for magic, kind in _OTHER_KINDS.items() if head.startswith(magic)), None)
