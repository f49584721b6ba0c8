from pathlib import Path

import pytest

from pipeline.common.sources import find_video, local_copy


def test_a_video_comes_from_the_first_folder_that_has_it(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one / "day/a.mp4", two / "day/a.mp4", two / "day/b.mp4"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert find_video("day/a.mp4", [one, two]) == one / "day/a.mp4"
    assert find_video("day/a.mp4", [two, one]) == two / "day/a.mp4"
    assert find_video("day/b.mp4", [one, two]) == two / "day/b.mp4"


def test_a_video_that_no_folder_has_is_expected_in_the_first(tmp_path: Path) -> None:
    # Neither has the file: in the second that name is a folder.
    one, two = tmp_path / "one", tmp_path / "two"
    (two / "a.mp4").mkdir(parents=True)
    assert find_video("a.mp4", [one, two]) == one / "a.mp4"


def test_a_queued_experiment_finds_the_local_copy_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / ".dvc/tmp/exps/tmpx1y2"
    copy.mkdir(parents=True)
    for folder in (tmp_path, copy):
        monkeypatch.chdir(folder)
        assert local_copy("ravdess") == tmp_path / "downloads/ravdess"
