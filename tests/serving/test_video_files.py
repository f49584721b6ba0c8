from pathlib import Path

import pytest

from pipeline.serving.video_files import find_videos, names_of


def test_folders_patterns_and_files_are_found_once_each(tmp_path: Path) -> None:
    for name in ("a.mp4", "sub/b.MOV", "sub/c.jpg", "sub/notes.txt", ".hidden/d.mp4", ".e.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = find_videos([str(tmp_path), str(tmp_path / "*.mp4"), "named.xyz"])
    names = ["a.mp4", "sub/b.MOV", "sub/c.jpg"]
    assert found == [*(tmp_path / name for name in names), tmp_path / ".e.mp4", Path("named.xyz")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no video or picture in .*empty"):
        find_videos([str(tmp_path / "empty")])
    with pytest.raises(ValueError, match=r"no file fits .*\*\.avi"):
        find_videos([str(tmp_path / "*.avi")])


def test_results_have_names_of_their_own() -> None:
    paths = ["x/anna/one.mp4", "x/anna/one.mov", "x/ben/one.mp4", "x/ben/two words.mp4"]
    names = names_of([Path(path) for path in paths])
    assert names[:2] == ["anna_one_mp4", "anna_one_mov"]
    assert names[2:] == ["ben_one", "ben_two_words"]
    assert names_of([Path("x/one.mp4")]) == ["one"]
