from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.affect.labels import LabelledImage, Labels
from pipeline.affect.listing import Listing, refuse_images
from pipeline.affect.pictures import read_picture
from pipeline.common.clips import Refusal

RED = (200, 30, 60)


def test_colours_come_out_in_the_order_red_green_blue(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), RED).save(tmp_path / "red.png")
    assert read_picture(tmp_path / "red.png", 8)[3, 3].tolist() == list(RED)
    Image.new("RGB", (8, 8), RED).save(tmp_path / "red.jpg", quality=100)
    np.testing.assert_allclose(read_picture(tmp_path / "red.jpg", 4)[2, 2], RED, atol=3)


def test_grey_palette_transparent_cmyk_and_16_bit_pictures_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 77).save(tmp_path / "grey.jpg", quality=100)
    assert read_picture(tmp_path / "grey.jpg", 8)[0, 0].tolist() == [77, 77, 77]
    Image.new("RGB", (8, 8), RED).quantize(4).save(tmp_path / "palette.png")
    assert read_picture(tmp_path / "palette.png", 8)[0, 0].tolist() == list(RED)
    Image.new("RGBA", (8, 8), (*RED, 0)).save(tmp_path / "alpha.png")
    assert read_picture(tmp_path / "alpha.png", 8)[0, 0].tolist() == [0, 0, 0]
    Image.new("RGB", (8, 8), RED).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    np.testing.assert_allclose(read_picture(tmp_path / "cmyk.jpg", 8)[0, 0], RED, atol=4)
    wide = np.full((8, 8), 60_000, np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert read_picture(tmp_path / "wide.png", 8)[0, 0].tolist() == [60_000 // 257] * 3


def test_a_picture_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = 255
    image = Image.fromarray(pixels)
    turned = image.getexif()
    turned[0x0112] = 6  # to be turned by a quarter clockwise
    image.save(tmp_path / "turned.png", exif=turned)
    upright = read_picture(tmp_path / "turned.png", 8)
    assert upright[:4].min() == 255
    assert upright[4:].max() == 0


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.jpg: not a readable picture"):
        read_picture(tmp_path / "x.jpg", 8)


def test_a_picture_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 100).save(tmp_path / "x.jpg")
    content = (tmp_path / "x.jpg").read_bytes()
    (tmp_path / "x.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="truncated"):
        read_picture(tmp_path / "x.jpg", 8)


def test_an_enormous_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (10_000, 6_000)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="larger than 7680 x 4320"):
        read_picture(tmp_path / "x.png", 8)


def test_a_broken_picture_is_refused_by_the_line_that_lists_it() -> None:
    images = [LabelledImage(str(i), f"{i}.jpg", "g", "train", Labels(), i) for i in (2, 3)]
    listing = refuse_images(
        Listing(images, [], 0, 0), [(images[1], Refusal("broken", "3.jpg cannot be read"))]
    )
    assert [image.line for image in listing.images] == [2]
    assert [(line.number, line.path) for line in listing.refused] == [(3, "3.jpg")]
