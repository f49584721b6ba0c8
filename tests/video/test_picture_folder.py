from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small import FACES, FRAMES
from small_in_the_wild import numbered_frames, truncate, write_pictures

from pipeline.common.frames import FrameSettings
from pipeline.video import picture_file, picture_folder
from pipeline.video.container import UnusableVideo
from pipeline.video.picture_folder import picture_numbers, read_folder
from pipeline.video.reader import FrameReader

SQUARES = FRAMES.model_copy(update={"crop": "square", "size": 32, "num_frames": 4})


def seen(folder: Path, settings: FrameSettings = SQUARES) -> list[int]:
    """Which of the numbered frames were sampled."""
    return [round(frame.mean() / 10) for frame in read_folder(folder, settings).pictures]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_pictures_come_in_the_order_of_their_numbers_and_not_of_their_names(
    tmp_path: Path, suffix: str
) -> None:
    # By name 10 and 11 would come before 2.
    write_pictures(tmp_path / "a", numbered_frames(12), range(1, 13), suffix)
    (tmp_path / "a/Thumbs.db").write_bytes(b"no picture")
    (tmp_path / "a/.10.jpg").write_bytes(b"hidden")
    assert seen(tmp_path / "a") == [1, 4, 7, 10]
    read = read_folder(tmp_path / "a", SQUARES)
    assert read.num_frames == 12
    assert read.times.tolist() == [0.04, 0.16, 0.28, 0.4]
    assert read.shots.tolist() == [0] * 4
    assert read.notes.holes == 0


def test_gaps_in_the_numbers_are_allowed_and_counted(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", numbered_frames(5), [3, 4, 7, 8, 12])
    read = read_folder(tmp_path / "a", SQUARES)
    assert (read.num_frames, read.notes.holes) == (5, 5)
    assert seen(tmp_path / "a") == [0, 1, 3, 4]
    # By time number 4 is shown until 7 comes, and number 8 until 12 does.
    assert seen(tmp_path / "a", SQUARES.model_copy(update={"clock": "time"})) == [1, 1, 3, 3]


def test_numbers_in_equal_steps_have_no_gaps(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", numbered_frames(4), [5, 10, 15, 20])
    assert read_folder(tmp_path / "a", SQUARES).notes.holes == 0


def test_the_number_is_the_last_one_in_the_name(tmp_path: Path) -> None:
    for name in ("00017_00002.jpg", "00017_00010.png", "x1y3.JPEG"):
        (tmp_path / name).touch()
    numbers = {"00017_00002.jpg": 2, "00017_00010.png": 10, "x1y3.JPEG": 3}
    assert picture_numbers(tmp_path) == numbers


def test_only_the_pictures_that_are_kept_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    write_pictures(folder, numbered_frames(12), range(12))
    opened: list[str] = []
    original = picture_file.read_picture

    def read(path: Path, settings: FrameSettings) -> object:
        opened.append(path.name)
        return original(path, settings)

    monkeypatch.setattr(picture_folder, "read_picture", read)
    read_folder(folder, SQUARES)
    assert opened == ["1.jpg", "4.jpg", "7.jpg", "10.jpg"]
    # A clip of two pictures repeats them, each decoded once.
    write_pictures(tmp_path / "b", numbered_frames(2), range(2))
    opened.clear()
    assert seen(tmp_path / "b") == [0, 0, 1, 1]
    assert opened[:2] == ["0.jpg", "1.jpg"]


def refusal(folder: Path) -> tuple[str, str]:
    with pytest.raises(UnusableVideo) as error:
        read_folder(folder, SQUARES)
    return error.value.refusal.reason, error.value.refusal.message


def test_what_cannot_be_used_is_refused_with_the_name_of_the_picture(tmp_path: Path) -> None:
    for name in "abcdefg":
        write_pictures(tmp_path / name, numbered_frames(4), range(4))
    truncate(tmp_path / "a/2.jpg")
    (tmp_path / "b/1.jpg").write_bytes(b"")
    (tmp_path / "c/3.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    Image.new("RGB", (96, 65)).save(tmp_path / "d/2.jpg")
    (tmp_path / "e/02.png").touch()
    (tmp_path / "f/face.jpg").touch()
    for path in (tmp_path / "g").iterdir():
        path.rename(path.with_suffix(".txt"))
    reasons = {name: refusal(tmp_path / name) for name in "abcdefg"}
    assert {name: reason for name, (reason, _) in reasons.items()} == {
        "a": "unreadable",
        "b": "empty",
        "c": "lfs_pointer",
        "d": "two_sizes",
        "e": "same_number",
        "f": "no_number",
        "g": "no_pictures",
    }
    messages = {name: message for name, (_, message) in reasons.items()}
    assert messages["a"].startswith("a/2.jpg: not a readable picture (damaged")
    assert messages["b"].startswith("b/1.jpg: the file has zero bytes")
    assert messages["c"].startswith("c/3.jpg: a Git LFS pointer")
    assert messages["d"].startswith("d/2.jpg: has 96 x 65 pixels, and 0.jpg has 96 x 64")
    assert messages["e"] == "e: 02.png and 2.jpg have the same number; keep one"
    assert messages["f"].startswith("f/face.jpg: its name has no number")
    assert messages["g"] == "g: a folder without pictures (JPEG, PNG)"


def test_a_folder_is_read_where_a_video_would_be(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", numbered_frames(8), range(8))
    read = FrameReader(SQUARES, FACES).read(tmp_path / "a")
    assert read.pictures.shape == (4, 32, 32, 3)
    np.testing.assert_array_equal(read.pictures, read_folder(tmp_path / "a", SQUARES).pictures)
