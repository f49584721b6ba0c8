import subprocess
from pathlib import Path

import pytest

from pipeline.common.sources import find_video, local_copy, sha256_of_video, videos_folder


def test_a_video_comes_from_the_first_folder_that_has_it(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one / "day/a.mp4", two / "day/a.mp4", two / "day/b.mp4"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert find_video("day/a.mp4", [one, two]) == one / "day/a.mp4"
    assert find_video("day/a.mp4", [two, one]) == two / "day/a.mp4"
    assert find_video("day/b.mp4", [one, two]) == two / "day/b.mp4"


def test_a_video_that_no_folder_has_is_expected_in_the_first(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    two.mkdir()
    assert find_video("a.mp4", [one, two]) == one / "a.mp4"


def test_a_folder_of_pictures_is_a_video_too(tmp_path: Path) -> None:
    (tmp_path / "two/clip").mkdir(parents=True)
    folders = [tmp_path / "one", tmp_path / "two"]
    assert find_video("clip", folders) == tmp_path / "two/clip"


def test_the_sum_of_a_folder_is_that_of_what_sha256sum_prints(tmp_path: Path) -> None:
    for name in ("b.jpg", "a 1.jpg", "B.jpg", ".DS_Store"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    printed = subprocess.run(
        "LC_ALL=C sha256sum * | sha256sum",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert sha256_of_video(tmp_path) == printed.split()[0]
    (tmp_path / "b.jpg").write_text("another", encoding="utf-8")
    assert sha256_of_video(tmp_path) != printed.split()[0]


def test_a_queued_experiment_finds_the_local_copy_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / ".dvc/tmp/exps/tmpx1y2"
    copy.mkdir(parents=True)
    for folder in (tmp_path, copy):
        monkeypatch.chdir(folder)
        assert local_copy("ravdess") == tmp_path / "downloads/ravdess"


def test_a_relative_folder_that_only_the_project_has_is_an_error_with_its_full_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / ".dvc/tmp/exps/tmpx1y2"
    for folder in (copy, tmp_path / "my/videos"):
        folder.mkdir(parents=True)
    relative = Path("my/videos")
    monkeypatch.chdir(tmp_path)
    assert videos_folder(relative, "mead") == relative
    assert videos_folder(None, "mead") == tmp_path / "downloads/mead"
    with pytest.raises(FileNotFoundError, match=r"mead\.source is no/videos, and there is no such"):
        videos_folder(Path("no/videos"), "mead")
    monkeypatch.chdir(copy)
    with pytest.raises(FileNotFoundError, match=f"datasets.mead.source={tmp_path}/my/videos"):
        videos_folder(relative, "mead")
    assert videos_folder(tmp_path / relative, "mead") == tmp_path / relative
