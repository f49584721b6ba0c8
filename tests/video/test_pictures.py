"""Colours, orientation and shape of pixels: the picture that a player shows."""

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame
from small_videos import read, render

from pipeline.video.pictures import Converter

ORANGE = (200, 100, 50)


def flat(path: Path, size: str, *arguments: str, source_filter: str = "") -> Path:
    source = f"color=0x{bytes(ORANGE).hex()}:s={size}:r=5:d=1,format=gbrp{source_filter}"
    return render(path, "-f", "lavfi", "-i", source, *arguments)


def assert_orange(pictures: npt.NDArray[np.uint8], tolerance: int = 3) -> None:
    assert np.abs(pictures.astype(int) - ORANGE).max() <= tolerance


@pytest.mark.parametrize("crop", ["square", "face", "none"])
@pytest.mark.parametrize("size", ["100x64", "102x64", "64x102", "426x240", "90x64"])
@pytest.mark.parametrize(
    "pixels", ["yuv420p", "yuv420p10le", "yuv422p10le", "yuv444p12le"], ids=str
)
def test_colours_are_right_at_every_depth_and_offset(
    pixels: str, size: str, crop: str, tmp_path: Path
) -> None:
    path = flat(tmp_path / "v.mkv", size, "-c:v", "ffv1", "-pix_fmt", pixels)
    assert_orange(read(path, crop=crop))


@pytest.mark.parametrize("pixels", ["nv12", "yuyv422", "bgr24"])
def test_colours_of_raw_pixels_are_right(pixels: str, tmp_path: Path) -> None:
    path = flat(tmp_path / "v.avi", "102x64", "-c:v", "rawvideo", "-pix_fmt", pixels)
    assert_orange(read(path), tolerance=5)


@pytest.mark.parametrize("colours", ["bt709", "smpte170m", "bt2020nc", "smpte240m"])
@pytest.mark.parametrize("levels", ["tv", "pc"])
def test_colours_follow_the_matrix_and_the_range_of_the_stream(
    colours: str, levels: str, tmp_path: Path
) -> None:
    matrix = f",scale=out_color_matrix={colours}:out_range={levels},format=yuv420p"
    matrix += f",setparams=colorspace={colours}:range={levels}"
    path = flat(tmp_path / "v.mp4", "102x64", "-qp", "0", source_filter=matrix)
    for crop in ("square", "face", "none"):
        assert_orange(read(path, crop=crop))


def test_a_matrix_that_changes_on_the_way_is_followed(tmp_path: Path) -> None:
    parts = []
    for colours in ("bt709", "smpte170m"):
        matrix = f",scale=out_color_matrix={colours},format=yuv420p"
        matrix += f",setparams=colorspace={colours}"
        parts.append(
            flat(tmp_path / f"{colours}.ts", "96x64", "-qp", "0", source_filter=matrix).read_bytes()
        )
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    assert_orange(read(tmp_path / "joined.ts"))


@pytest.mark.parametrize(
    ("options", "turns", "mirrored"),
    [
        (["-display_rotation", "90"], 1, False),
        (["-display_rotation", "180"], 2, False),
        (["-display_rotation", "270"], 3, False),
        (["-display_hflip"], 0, True),
        (["-display_vflip"], 2, True),
        (["-display_rotation", "90", "-display_hflip"], 1, True),
    ],
    ids=["90", "180", "270", "hflip", "vflip", "90_and_hflip"],
)
def test_pictures_are_upright(
    options: list[str], turns: int, mirrored: bool, tmp_path: Path
) -> None:
    corner = "color=black:s=96x64:r=5:d=1,drawbox=w=24:h=16:color=white:t=fill"
    upright = render(tmp_path / "upright.mp4", "-f", "lavfi", "-i", corner, "-qp", "0")
    turned = render(tmp_path / "turned.mp4", *options, "-i", str(upright), "-c", "copy")
    expected = np.rot90(read(upright, crop="face"), turns, axes=(1, 2))
    if mirrored:
        expected = expected[:, :, ::-1]
    pictures = read(turned, crop="face")
    assert pictures.shape == expected.shape
    assert np.abs(pictures.astype(int) - expected).max() <= 2


def test_pixels_of_a_turned_picture_are_square_too(tmp_path: Path) -> None:
    # 48 x 64 pixels, each twice as wide as high, seen from the side.
    source = "color=gray:s=48x64:r=5:d=1,setsar=2"
    path = render(tmp_path / "wide.mp4", "-f", "lavfi", "-i", source)
    assert read(path, crop="face").shape == (16, 64, 96, 3)
    turned = ["-display_rotation", "90", "-i", str(path), "-c", "copy"]
    height, width = read(render(tmp_path / "turned.mp4", *turned), crop="face").shape[1:3]
    assert height / width == pytest.approx(96 / 64)


def test_converted_frames_are_freed_at_once(tmp_path: Path) -> None:
    # A display matrix, so that frames have side data.
    path = flat(tmp_path / "v.mp4", "96x64")
    turned = tmp_path / "turned.mp4"
    render(turned, "-display_rotation", "90", "-i", str(path), "-c", "copy")
    convert = Converter(Fraction(1))
    gc.collect()
    gc.disable()
    try:
        for _ in range(8):
            with av.open(str(turned)) as container:
                for frame in container.decode(video=0):
                    assert convert(frame).shape == (96, 64, 3)
        # Of 40: those that the last decoder gave, and the first, whose side data were read.
        assert sum(isinstance(one, VideoFrame) for one in gc.get_objects()) <= 10
    finally:
        gc.enable()
