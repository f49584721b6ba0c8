"""Decoded frames, of whatever form, as RGB pictures.

Shape letters: H x W pixels of a picture, S side of a square one.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame

from pipeline.common.frames import FrameSettings

Picture = npt.NDArray[np.uint8]
"""RGB (H, W, 3)."""

# The longer side, in pixels, of pictures from which a face is cut: 16 of them are 100 MB.
LONGER_SIDE = 1920
# Exact rounding makes the result the same on every processor.
_FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int+bitexact"
# Pixels of a picture, each way, that may share one of chroma.
_CHROMA = 4
# By the quarter turns that a frame needs, clockwise, and whether it is mirrored as well.
_TURNS: dict[tuple[int, bool], tuple[tuple[str, str], ...]] = {
    (0, False): (),
    (1, False): (("transpose", "clock"),),
    (2, False): (("hflip", ""), ("vflip", "")),
    (3, False): (("transpose", "cclock"),),
    (0, True): (("vflip", ""),),
    (1, True): (("transpose", "cclock_flip"),),
    (2, True): (("hflip", ""),),
    (3, True): (("transpose", "clock_flip"),),
}


class _Form(NamedTuple):
    """All that a conversion depends on."""

    width: int
    height: int
    pixels: str
    colorspace: int
    color_range: int
    turn: tuple[int, bool]


class Converter:
    """Makes pictures of a stream's frames: upright, of square pixels, cropped and scaled.

    Size, pixel format and colours are those of each frame, as they may change on the way.

    Args:
        pixel_aspect: Width of a pixel over its height.
        settings: What is cropped, and how large. With crop `face`, and without any, a picture is as
            large as it is shown, and at most 1920 pixels.
    """

    def __init__(self, pixel_aspect: Fraction, settings: FrameSettings | None = None) -> None:
        self._settings = settings
        self._aspect = pixel_aspect
        self._form: _Form | None = None
        self._graph = Graph()

    def __call__(self, frame: VideoFrame) -> Picture:
        """Raises av.FFmpegError for a frame of a form that cannot be converted."""
        form = _form_of(frame)
        if form != self._form:
            self._graph = self._build(form)
            self._form = form
        self._graph.vpush(frame)
        return np.asarray(self._graph.vpull().to_ndarray(), np.uint8)

    def _build(self, form: _Form) -> Graph:
        width, height = _upright_size(form, self._aspect)
        steps = list(_TURNS[form.turn])
        crop = self._settings.crop if self._settings else "face"
        if crop == "square":
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            if self._aspect != 1 or left % _CHROMA or top % _CHROMA:
                # Chroma at full size, because the crop begins between two pixels of chroma.
                steps += [("scale", f"{width}:{height}:{_FLAGS}"), ("format", "yuv444p|gbrp")]
            steps += [("crop", f"{side}:{side}:{left}:{top}")]
        if self._settings and crop != "face":
            target = self._settings.size, self._settings.size
        else:
            factor = min(Fraction(1), Fraction(LONGER_SIDE, max(width, height)))
            target = _whole(width * factor), _whole(height * factor)
        return _graph(form, [*steps, *_scaled_to_rgb(*target)])


def _scaled_to_rgb(width: int, height: int) -> list[tuple[str, str]]:
    # By way of planes: two thirds of the time that it takes at once, for the same bytes.
    scale = ("scale", f"{width}:{height}:{_FLAGS}")
    return [scale, ("format", "gbrp"), ("format", "rgb24")]


def upright_size(frame: VideoFrame, pixel_aspect: Fraction) -> tuple[int, int]:
    """Width and height of the frame as it is shown, with square pixels."""
    return _upright_size(_form_of(frame), pixel_aspect)


def _form_of(frame: VideoFrame) -> _Form:
    return _Form(
        frame.width,
        frame.height,
        frame.format.name,
        frame.colorspace,
        frame.color_range,
        _turn(frame),
    )


def _upright_size(form: _Form, pixel_aspect: Fraction) -> tuple[int, int]:
    if form.turn[0] % 2:
        return _whole(form.height / pixel_aspect), form.width
    return _whole(form.width * pixel_aspect), form.height


def _graph(form: _Form, steps: Sequence[tuple[str, str]]) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add(
        "buffer",
        f"video_size={form.width}x{form.height}:pix_fmt={form.pixels}:time_base=1/1000"
        f":colorspace={form.colorspace}:range={form.color_range}",
    )
    filters = [graph.add(name, arguments or None) for name, arguments in steps]
    graph.link_nodes(source, *filters, graph.add("buffersink"))
    graph.configure()
    return graph


def _whole(number: Fraction) -> int:
    """The nearest whole number of pixels."""
    return max(1, int(number + Fraction(1, 2)))


def _turn(frame: VideoFrame) -> tuple[int, bool]:
    """Of the frame's display matrix; a key of `_TURNS`, the nearest."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(data, SideData):
        return 0, False
    a, b, _, c, d = np.frombuffer(memoryview(data), np.int32)[:5].astype(float)
    quarters = round(np.degrees(np.arctan2(b, a)) / 90) % 4
    return quarters, bool(a * d - b * c < 0)


def same_size(pictures: Sequence[Picture]) -> npt.NDArray[np.uint8]:
    """Pictures (T, H, W, 3) as large as the largest: the others scaled to fit, on black."""
    height, width, _ = max((picture.shape for picture in pictures), key=lambda s: s[0] * s[1])
    return np.stack([fit_into(picture, width, height) for picture in pictures])


def fit_into(picture: Picture, width: int, height: int) -> Picture:
    """A picture scaled to fit, in the middle of a black one of that size in pixels."""
    own_height, own_width, _ = picture.shape
    if (own_width, own_height) == (width, height):
        return picture
    factor = min(Fraction(width, own_width), Fraction(height, own_height))
    size = _whole(own_width * factor), _whole(own_height * factor)
    form = _Form(own_width, own_height, "rgb24", 0, 0, (0, False))
    steps = [("scale", f"{size[0]}:{size[1]}:{_FLAGS}"), ("format", "rgb24")]
    steps += [("pad", f"{width}:{height}:-1:-1")]
    graph = _graph(form, steps)
    graph.vpush(VideoFrame.from_ndarray(picture, "rgb24"))
    return np.asarray(graph.vpull().to_ndarray(), np.uint8)
