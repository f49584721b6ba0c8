"""Sixteen pictures out of a video file, through the ffmpeg binary.

Video files come from strangers: the demuxers and protocols are listed, so that a playlist named
`.mp4` cannot make ffmpeg open another file or address, and size and time are bounded.

Shape letters: T sampled pictures, H x W pixels of a picture, S side of a square one.
"""

import io
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import ffmpeg
import numpy as np
import numpy.typing as npt

from pipeline.common.clips import Refusal
from pipeline.common.files import is_lfs_pointer
from pipeline.common.frames import FrameSettings, Sampling

_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,live_flv,mpeg,mpegts,mpegvideo,ogg,asf"
_MAX_PIXELS = 7680 * 4320
# The longer side, in pixels, of pictures from which a face is cut: 16 of them are 100 MB.
_LONGER_SIDE = 1920
_TIMEOUT_S = 600


class UnusableVideo(ValueError):
    """A video that cannot give frames; `refusal` says why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(reason, message)


class SampledVideo(NamedTuple):
    """What was read of a video.

    Attributes:
        pictures: (T, H, W, 3) uint8 RGB.
        num_frames: Frames of the video.
        seconds: Its length as the container declares it; 0 where it declares none.
    """

    pictures: npt.NDArray[np.uint8]
    num_frames: int
    seconds: float


def sample_indices(
    num_frames: int, num_samples: int = 16, sampling: Sampling = "uniform"
) -> list[int]:
    """Indices of the frames to keep, in temporal order; a short video repeats frames.

    `uniform` takes the centre of each of `num_samples` equal segments: 32 frames -> [1, 3, 5, ...,
    31]. `stride` steps by num_frames // num_samples from frame 0 and drops the tail: 47 frames ->
    [0, 2, 4, ..., 30].

    Raises:
        ValueError: The video has no frames.

    Source: MTCAE-DFER, section IV.B ("average down sampling"); `stride` is the authors' notebook.
    """
    if num_frames < 1:
        raise ValueError("a video without frames cannot be sampled")
    if sampling == "stride" and num_frames >= num_samples:
        step = num_frames // num_samples
        return [i * step for i in range(num_samples)]
    return [(2 * i + 1) * num_frames // (2 * num_samples) for i in range(num_samples)]


def read_pictures(path: Path, settings: FrameSettings, binary: str) -> SampledVideo:
    """Sample a video evenly to RGB pictures in temporal order.

    With crop `square` and `none` they are frames, S x S. With `face`, which is cut out of them
    later (`pipeline.video.reader`), they are as large as in the video, and at most 1920 pixels.

    The packets are counted without decoding; then one decoding pass picks the pictures, and only
    those are cropped and scaled. The pass also reports how many frames it decoded. Where that
    differs from the packets (an edit list hides some, a damaged file lacks some) the pass is
    repeated with the true number.

    Args:
        path: The video file.
        settings: Which pictures, and how large.
        binary: The ffmpeg executable.

    Raises:
        UnusableVideo: No such file, not a video, no video stream, truncated, or larger than 7680 x
        4320.
    """
    _check_file(path)
    num_frames, seconds = _count_packets(path, binary)
    pictures, decoded = _decode(path, num_frames, settings, binary)
    if decoded != num_frames:
        pictures, _ = _decode(path, decoded, settings, binary)
    return SampledVideo(pictures, decoded, seconds)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UnusableVideo("missing", f"{path.name}: no such file; check the path in the table")
    if not path.stat().st_size:
        raise UnusableVideo("empty", f"{path.name}: the file has zero bytes; copy it again")
    if is_lfs_pointer(path):
        raise UnusableVideo(
            "lfs_pointer",
            f"{path.name}: a Git LFS pointer, not a video; run `git lfs pull` where it was cloned",
        )


def _input(path: Path) -> ffmpeg.nodes.FilterableStream:
    return ffmpeg.input(
        f"file:{path.resolve()}",
        protocol_whitelist="file,pipe",
        format_whitelist=_CONTAINERS,
        max_pixels=_MAX_PIXELS,
        threads=1,
    )


def _run(stream: ffmpeg.nodes.OutputStream, path: Path, binary: str) -> tuple[bytes, str]:
    stream = stream.global_args("-hide_banner", "-nostdin", "-nostats")
    try:
        done = subprocess.run(
            stream.compile(cmd=binary), capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnusableVideo(
            "timeout", f"{path.name}: not decoded in {_TIMEOUT_S} s; cut the video into clips"
        ) from error
    # It also holds what the file says of itself, in lines that begin with spaces: only lines of
    # ffmpeg's own are searched.
    log = done.stderr.decode(errors="replace")
    if re.search(r"^Stream map '.*' matches no streams", log, re.M):
        raise UnusableVideo("no_video_stream", f"{path.name}: holds no video stream (sound only?)")
    if re.search(r"^\[in#0/.*(: partial file|File ended prematurely)$", log, re.M):
        raise UnusableVideo("truncated", f"{path.name}: the file ends too early; copy it again")
    if done.returncode:
        raise UnusableVideo("unreadable", f"{path.name}: not a readable video ({_cause(log)})")
    return done.stdout, log


def _cause(log: str) -> str:
    """The first thing ffmpeg complained about, without addresses and paths."""
    lines = re.findall(
        r"^\[(?!AVIOContext)[^\]]*\] (.*(?:not found|[Ee]rror|[Ii]nvalid|exceed).*)$", log, re.M
    )
    return re.sub(r"file:\S+", "the file", lines[0]) if lines else "ffmpeg gave no reason"


def _count_packets(path: Path, binary: str) -> tuple[int, float]:
    """Number of video packets, and the declared length in seconds."""
    copied = _input(path)["V:0"].output("pipe:", format="null", codec="copy", loglevel="verbose")
    _, log = _run(copied, path, binary)
    declared = re.search(r"^  Duration: (\d+):(\d\d):(\d\d\.\d+)", log, re.M)
    hours, minutes, seconds = map(float, declared.groups()) if declared else (0.0, 0.0, 0.0)
    return _read_count("packets read", log, path), 3600 * hours + 60 * minutes + seconds


def _decode(
    path: Path, num_frames: int, settings: FrameSettings, binary: str
) -> tuple[npt.NDArray[np.uint8], int]:
    """Pictures at the places that suit `num_frames`, and how many frames were decoded.

    When the two numbers differ the pictures may be too few, and are not to be used.
    """
    if num_frames == 0:
        raise UnusableVideo("no_frames", f"{path.name}: no frame could be decoded")
    indices = sample_indices(num_frames, settings.num_stored, settings.sampling)
    size = settings.size
    picked = sorted(set(indices))
    video = _input(path)["V:0"].filter("select", "+".join(f"eq(n,{i})" for i in picked))
    # Pixels need not be square (sar); exact rounding makes the result the same on every processor.
    video = video.filter(
        "scale", w="max(1,round(iw*sar))", h="ih", flags="bicubic+accurate_rnd+bitexact"
    )
    if settings.crop == "square":
        video = video.filter("crop", w="min(iw,ih)", h="min(iw,ih)", exact=1)
    width, height = (size, size) if settings.crop != "face" else (_at_most("iw"), _at_most("ih"))
    video = video.filter(
        "scale", w=width, h=height, flags="bicubic+accurate_rnd+full_chroma_int+bitexact"
    )
    stream = video.output(
        "pipe:",
        format="image2pipe",
        vcodec="ppm",
        pix_fmt="rgb24",
        fps_mode="passthrough",
        loglevel="verbose",
    )
    data, log = _run(stream, path, binary)
    pictures = _read_ppm(data)
    decoded = _read_count("frames decoded", log, path)
    if decoded == num_frames:
        pictures = pictures[np.searchsorted(picked, indices)]
    return pictures, decoded


def _at_most(side: str) -> str:
    """ffmpeg's expression of a side, `iw` or `ih`, of a picture that is shrunk if it is large."""
    return f"max(1,round({side}*min(1,{_LONGER_SIDE}/max(iw,ih))))"


def _read_ppm(data: bytes) -> npt.NDArray[np.uint8]:
    """The pictures (T, H, W, 3) of a stream of PPM files of one size, as ffmpeg writes them."""
    if not data:
        return np.zeros((0, 0, 0, 3), np.uint8)
    stream = io.BytesIO(data)
    stream.readline()  # P6
    width, height = map(int, stream.readline().split())
    header = stream.tell() + len(stream.readline())
    pictures = np.frombuffer(data, np.uint8).reshape(-1, header + height * width * 3)
    return pictures[:, header:].reshape(-1, height, width, 3)


def _read_count(what: str, log: str, path: Path) -> int:
    """The count that ffmpeg logged for the video stream."""
    found = re.search(
        rf"^\[in#0/[^]]*\]   Input stream #0:\d+ \(video\): .*?(\d+) {what}", log, re.M
    )
    if not found:
        raise UnusableVideo(
            "unreadable", f"{path.name}: ffmpeg does not say how many frames it has"
        )
    return int(found[1])
