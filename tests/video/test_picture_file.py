import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.common.frames import Frames
from pipeline.pretrain.crops import shrink_to
from pipeline.video.container import UnusableVideo
from pipeline.video.picture_file import open_picture

RAMP = np.linspace(0, 255, 24).round().astype(np.uint8)


def gradient() -> Image.Image:
    """24 x 16 pixels, darker to the left; red, green and blue alike."""
    return Image.fromarray(np.tile(RAMP[None, :, None], (16, 1, 3)))


def read_picture(path: Path) -> Frames:
    """(H, W, 3)."""
    return np.asarray(open_picture(path))


def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG file."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def test_every_kind_of_pixel_becomes_the_same_rgb(tmp_path: Path) -> None:
    expected = np.asarray(gradient()).astype(int)
    grey = gradient().convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    pictures = {
        "grey.png": grey,
        "deep.png": deep,
        "palette.png": gradient().convert("P", palette=Image.Palette.ADAPTIVE, colors=256),
        "opaque.png": gradient().convert("RGBA"),
        "cmyk.tiff": gradient().convert("CMYK"),
        "rgb.bmp": gradient(),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
        read = read_picture(tmp_path / name)
        assert read.shape == (16, 24, 3), name
        assert np.abs(read.astype(int) - expected).max() <= 1, name
    gradient().convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(read_picture(tmp_path / "cmyk.jpg").astype(int) - expected).max() <= 4


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    picture = gradient().convert("RGBA")
    picture.putalpha(Image.fromarray(np.tile(np.repeat([0, 255], 12), (16, 1)).astype(np.uint8)))
    picture.save(tmp_path / "half.png")
    read = read_picture(tmp_path / "half.png")
    assert not read[:, :12].any()
    assert np.array_equal(read[:, 12:], np.asarray(gradient())[:, 12:])


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, -1), (8, 1)])
def test_a_photograph_is_turned_as_its_camera_says(
    orientation: int, turns: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    gradient().save(tmp_path / "turned.png", exif=exif)
    expected = np.rot90(np.asarray(gradient()), turns)
    assert np.array_equal(read_picture(tmp_path / "turned.png"), expected)


def test_a_large_picture_is_shrunk_to_its_shorter_side(tmp_path: Path) -> None:
    Image.new("RGB", (900, 600), (10, 200, 30)).save(tmp_path / "large.jpg", quality=100)
    read = shrink_to(np.asarray(open_picture(tmp_path / "large.jpg", 40))[None], 40)
    assert read.shape == (1, 40, 60, 3)
    assert np.abs(read[0, 20, 30].astype(int) - (10, 200, 30)).max() <= 2


def test_files_that_are_no_pictures_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    gradient().save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    gradient().save(tmp_path / "animation.gif")
    (tmp_path / "animation.jpg").write_bytes((tmp_path / "animation.gif").read_bytes())
    for side in (6_000, 60_000):
        header = struct.pack(">II5B", side, side, 8, 2, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", bytes(8))
        (tmp_path / f"{side}.png").write_bytes(bomb)
    expected = {
        "text.jpg": "unreadable",
        "empty.png": "unreadable",
        "cut.png": "unreadable",
        "animation.jpg": "unreadable",
        "absent.png": "missing",
        "6000.png": "too_large",
        "60000.png": "too_large",
    }
    for name, reason in expected.items():
        with pytest.raises(UnusableVideo, match=name) as error:
            open_picture(tmp_path / name, 64)
        assert error.value.refusal.reason == reason, name
