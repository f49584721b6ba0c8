import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.datasets.mead import (
    ACTORS,
    EMOTIONS,
    VIEWS,
    find_clips,
    unpack_archives,
    what_is_missing,
)

CELLS = [(emotion, level) for emotion in EMOTIONS for level in (1, 2, 3)]


def paths(actor: str, view: str, num_sentences: int = 12, num_neutral: int = 12) -> Iterator[str]:
    """An actor's files of one view, as MEAD lays them out; neutral has one level only."""
    for emotion, level in CELLS:
        if emotion != "neutral" or level == 1:
            for sentence in range(1, (num_neutral if emotion == "neutral" else num_sentences) + 1):
                yield f"{actor}/video/{view}/{emotion}/level_{level}/{sentence:03}.mp4"


def touch(folder: Path, names: Iterator[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two actors from the front, one of them also from the left, with twelve sentences a cell."""
    folder = tmp_path / "MEAD"
    touch(folder, paths("M003", "front"))
    touch(folder, paths("M003", "left_30"))
    touch(folder, paths("W009", "front"))
    return folder


def test_48_actors_are_given_out() -> None:
    assert len(set(ACTORS)) == len(ACTORS) == 48
    assert Counter(actor[0] for actor in ACTORS) == {"M": 27, "W": 21}


def test_the_test_sentences_are_the_last_six_and_of_neutral_the_last_ten(source: Path) -> None:
    clips = find_clips([source], ["front"], "test_sentences").clips
    assert len(clips) == 2 * (7 * 3 * 6 + 10)
    sentences: dict[str, list[str]] = {}
    for clip in clips:
        cell, _, sentence = clip.clip.rpartition("_")
        sentences.setdefault(cell, []).append(sentence)
    assert sentences.pop("M003_front_neutral_1") == [f"{n:03}" for n in range(3, 13)]
    assert sentences.pop("W009_front_neutral_1") == [f"{n:03}" for n in range(3, 13)]
    assert len(sentences) == 2 * 7 * 3
    assert all(found == [f"{n:03}" for n in range(7, 13)] for found in sentences.values())


def test_the_last_sentences_are_those_that_are_there(source: Path) -> None:
    for sentence in (9, 12):
        (source / f"M003/video/front/sad/level_2/{sentence:03}.mp4").unlink()
    clips = find_clips([source], ["front"], "test_sentences").clips
    kept = [clip.clip[-3:] for clip in clips if clip.clip.startswith("M003_front_sad_2")]
    assert kept == ["005", "006", "007", "008", "010", "011"]


def test_the_whole_published_set_under_the_rule(tmp_path: Path) -> None:
    for actor in ACTORS:
        touch(tmp_path, paths(actor, "front", num_sentences=9, num_neutral=12))
    tree = find_clips([tmp_path], ["front"], "test_sentences")
    counts = Counter(clip.label for clip in tree.clips)
    assert what_is_missing(tree, ["front"]) == []
    assert len(tree.clips) == 48 * (7 * 3 * 6 + 10) == 6528
    others = ("angry", "contempt", "disgust", "fear", "happy", "sad", "surprised")
    assert counts == {"neutral": 480, **dict.fromkeys(others, 864)}


def test_all_keeps_every_sentence_of_the_view_and_nothing_else(source: Path) -> None:
    (source / "M003/video/front/angry/level_1/notes.mp4").touch()
    (source / "M003/video/front/bored/level_1").mkdir(parents=True)
    (source / "M003/video/front/bored/level_1/001.mp4").touch()
    front = find_clips([source], ["front"], "all").clips
    assert sorted(clip.path for clip in front) == sorted(
        [*paths("M003", "front"), *paths("W009", "front")]
    )
    left = find_clips([source], ["left_30"], "all").clips
    assert sorted(clip.path for clip in left) == sorted(paths("M003", "left_30"))


def test_all_views_and_levels_are_used_together_and_each_is_looked_at_for_gaps(
    source: Path,
) -> None:
    shutil.rmtree(source / "M003/video/left_30/sad/level_3")
    tree = find_clips([source], VIEWS, "all")
    front, left = ([*paths("M003", view)] for view in ("front", "left_30"))
    expected = [*front, *left, *paths("W009", "front")]
    assert sorted(clip.path for clip in tree.clips) == sorted(
        path for path in expected if "left_30/sad/level_3" not in path
    )
    assert len({clip.clip for clip in tree.clips}) == len(tree.clips)
    assert {clip.subject for clip in tree.clips} == {"M003", "W009"}
    remarks = what_is_missing(tree, VIEWS)
    assert "M003 lacks of view left_30 sad level 3" in remarks
    assert "W009 lacks view down; it has front" in remarks
    # By the rule of the test sentences, view by view.
    chosen = find_clips([source], VIEWS, "test_sentences").clips
    assert len(chosen) == 3 * (7 * 3 * 6 + 10) - 6


def test_a_path_says_who_shows_what(source: Path) -> None:
    clips = {clip.path: clip for clip in find_clips([source], ["front"], "all").clips}
    clip = clips["W009/video/front/disgusted/level_3/004.mp4"]
    assert clip.clip == "W009_front_disgusted_3_004"
    assert (clip.subject, clip.label, clip.sex) == ("W009", "disgust", "female")
    assert {clip.sex for clip in clips.values() if clip.subject == "M003"} == {"male"}


def test_what_is_missing_is_named_line_by_line(source: Path) -> None:
    shutil.rmtree(source / "M003/video/front/fear/level_2")
    shutil.rmtree(source / "M003/video/front/neutral")
    touch(source, paths("W011", "top"))
    touch(source, paths("M099", "front"))
    tree = find_clips([source], ["front"], "test_sentences")
    absent = [actor for actor in ACTORS if actor not in ("M003", "W009", "W011")]
    assert what_is_missing(tree, ["front"]) == [
        f"no clips of {', '.join(absent)}",
        "not among the 48 public actors: M099",
        "M003 lacks fear level 2, neutral level 1",
        "W011 lacks view front; it has top",
    ]


def test_the_actor_is_the_folder_before_the_view_and_not_a_name_further_out(tmp_path: Path) -> None:
    names = [
        "part_M003-M009/M005/video/front/angry/level_1/001.mp4",
        "part_M003-M009/M003/video/front/angry/level_1/001.mp4",
        "M003/copies/W009/front/angry/level_1/001.mp4",
        "M003/M007/video/video/front/angry/level_1/001.mp4",
        "M003_extra/video/front/angry/level_1/001.mp4",
    ]
    touch(tmp_path, iter(names))
    tree = find_clips([tmp_path], ["front"], "all")
    found = {clip.path: clip.subject for clip in tree.clips}
    assert found == dict(zip(names[:4], ["M005", "M003", "W009", "M007"], strict=True))
    assert what_is_missing(tree, ["front"])[-1] == (
        f"left aside, because no actor's folder holds them: 1 clips, such as {names[4]}"
    )
    with pytest.raises(
        ValueError, match=r"M003/video/front/angry/level_1/001.mp4 .* but it holds v"
    ):
        find_clips([tmp_path / "M003_extra"], ["front"], "all")


def test_a_clip_that_is_there_twice_is_an_error_that_names_both(source: Path) -> None:
    name = "M003/video/front/sad/level_1/001.mp4"
    touch(source, iter([f"copy/{name}"]))
    with pytest.raises(ValueError, match=f"^copy/{name} is there twice, also as {name}"):
        find_clips([source], ["front"], "all")


def test_a_folder_without_the_view_is_an_error_that_says_what_is_expected(source: Path) -> None:
    with pytest.raises(ValueError, match=r"no clip of view top .* M003/video/top/angry/level_1"):
        find_clips([source], ["top"], "all")


def pack(folder: Path, archive: Path) -> None:
    """Pack everything below a folder, as zip or tar."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            for path in files:
                zipped.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w") as tarred:
            for path in files:
                tarred.add(path, path.relative_to(folder))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """M003/video.tar and W009.zip of two views each, beside sound, and W011 unpacked.

    Every packed file holds its own name.
    """
    packed, folder = tmp_path / "packed", tmp_path / "MEAD"
    for actor in ("M003", "W009"):
        for view in ("front", "top"):
            touch(packed / actor, paths(actor, view, num_sentences=2, num_neutral=3))
        touch(packed / f"{actor} sound", iter([f"{actor}/audio/angry/level_1/001.m4a"]))
    for path in packed.rglob("*.mp4"):
        path.write_text(path.relative_to(packed).as_posix().partition("/")[2], encoding="utf-8")
    pack(packed / "M003/M003", folder / "M003/video.tar")
    pack(packed / "M003 sound/M003", folder / "M003/audio.tar")
    pack(packed / "W009", folder / "W009.zip")
    touch(folder, paths("W011", "front", num_sentences=2, num_neutral=3))
    return folder


def test_only_the_chosen_view_of_an_archive_is_unpacked(mixed: Path, tmp_path: Path) -> None:
    unpack_archives(mixed, tmp_path / "unpacked", "front")
    found = {
        path.relative_to(tmp_path / "unpacked").as_posix(): path.read_text(encoding="utf-8")
        for path in (tmp_path / "unpacked").rglob("*.mp4")
    }
    assert found == {
        f"front/{actor}/{name.removeprefix(f'{actor}/video/')}": name
        for actor in ("M003", "W009")
        for name in paths(actor, "front", num_sentences=2, num_neutral=3)
    }


def test_what_is_unpacked_is_left_alone_and_what_is_damaged_is_unpacked_again(
    mixed: Path, tmp_path: Path
) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {
            path.relative_to(unpacked).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in unpacked.rglob("*.mp4")
        }

    unpacked = tmp_path / "unpacked"
    unpack_archives(mixed, unpacked, "front")
    first = state()
    unpack_archives(mixed, unpacked, "front")
    assert state() == first
    damaged = "front/W009/front/sad/level_3/002.mp4"
    (unpacked / damaged).write_text("damaged", encoding="utf-8")
    unpack_archives(mixed, unpacked, "front")
    assert (unpacked / damaged).read_text(encoding="utf-8").startswith("W009/video/front/sad")
    kept = {path for path, found in state().items() if found == first[path]}
    assert kept == {path for path in first if path.startswith("front/M003/")}


def test_an_archive_of_several_actors_is_not_taken_for_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for actor in ("M003", "M005"):
        touch(tmp_path / "packed", iter([f"{actor}/video/front/angry/level_1/001.mp4"]))
    pack(tmp_path / "packed", tmp_path / "MEAD/M003-M005.zip")
    unpack_archives(tmp_path / "MEAD", tmp_path / "unpacked", "front")
    assert "M003-M005.zip is left aside" in capsys.readouterr().out
    assert not (tmp_path / "unpacked").exists()
    (tmp_path / "MEAD/M003-M005.zip").rename(tmp_path / "MEAD/M003.zip")
    with pytest.raises(ValueError, match=r"M003\.zip has a clip of another actor than M003: M005/"):
        unpack_archives(tmp_path / "MEAD", tmp_path / "unpacked", "front")
    assert not (tmp_path / "unpacked").exists()


def test_unpacked_trees_and_archives_make_one_set(mixed: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "unpacked"
    unpack_archives(mixed, unpacked, "top")
    unpack_archives(mixed, unpacked, "front")
    tree = find_clips([mixed, unpacked], ["front"], "all")
    assert Counter(clip.subject for clip in tree.clips) == {
        "M003": 7 * 3 * 2 + 3,
        "W009": 7 * 3 * 2 + 3,
        "W011": 7 * 3 * 2 + 3,
    }
    assert tree.views == {"M003": {"front", "top"}, "W009": {"front", "top"}, "W011": {"front"}}
    by_name = {clip.clip: clip.path for clip in tree.clips}
    assert by_name["M003_front_sad_3_002"] == "front/M003/front/sad/level_3/002.mp4"
    assert by_name["W011_front_sad_3_002"] == "W011/video/front/sad/level_3/002.mp4"
