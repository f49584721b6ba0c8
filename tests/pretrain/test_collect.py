import hashlib
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
from small_collection import (
    SPLIT,
    WHOLE,
    look_in_this_process,
    make_pictures,
    make_videos,
    pictures_of,
    videos_of,
)
from small_videos import FFMPEG

from pipeline.common.clips import StoredClip, write_stored
from pipeline.datasets.sample_faces import render_frames, sample_clips, write_video
from pipeline.folds.folds import GroupFold, write_folds
from pipeline.pretrain.collect_shards import collect_shards
from pipeline.pretrain.manifest import HELD_OUT, MANIFEST, POINTS, TRAIN, Clip, Picture, Rows, Span


def rows_of(out: Path, kind: type) -> list[tuple[str, str]]:
    """Sample and part of all rows."""
    rows: list[tuple[str, str]] = []
    for part in (TRAIN, HELD_OUT):
        found = Rows(out / MANIFEST, kind, part)
        rows += [(found[i].sample, part) for i in range(len(found))]
    return sorted(rows)


def digests(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}


@pytest.mark.slow
def test_a_corrupt_video_is_refused_by_name_and_the_others_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_videos(tmp_path / "films", anna_1=30, anna_2=20, bo_1=24, cy_1=17)
    whole = (source / "anna/1.mp4").read_bytes()
    (source / "bo/cut.mp4").write_bytes(whole[: len(whole) // 2])
    (source / "bo/text.mp4").write_text("not a video")
    (source / "bo/empty.mp4").touch()
    found = videos_of(source, tmp_path / "out")
    refused = {item.path: item.refusal.reason for item in found.refused}
    assert set(refused) == {"bo/cut.mp4", "bo/text.mp4", "bo/empty.mp4"}
    assert all(Path(item.path).name in item.refusal.message for item in found.refused)
    assert (found.num_files, found.num_samples) == (7, 4)
    rows = rows_of(tmp_path / "out", Span)
    assert [name for name, _ in rows] == [
        "anna/1.mp4:0",
        "anna/2.mp4:0",
        "bo/1.mp4:0",
        "cy/1.mp4:0",
    ]
    # A group is held out as a whole.
    assert rows[0][1] == rows[1][1]
    assert {part for _, part in rows} == {TRAIN, HELD_OUT}
    # Nothing of the clock, the machine or its processes is in the files.
    look_in_this_process(monkeypatch)
    videos_of(source, tmp_path / "again")
    assert digests(tmp_path / "again") == digests(tmp_path / "out")


def test_a_row_says_where_the_points_of_its_frames_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_in_this_process(monkeypatch)
    source = make_videos(tmp_path / "films", anna_1=30, bo_1=24)
    videos_of(source, tmp_path / "out")
    points = np.fromfile(tmp_path / "out" / POINTS, np.int64)
    assert len(points) == 54
    for part in (TRAIN, HELD_OUT):
        rows = Rows(tmp_path / "out" / MANIFEST, Span, part)
        for i in range(len(rows)):
            own = points[rows[i].first_point :][: rows[i].num_frames]
            assert len(set(np.diff(own))) == 1
            assert own[0] == 0 or own[0] == own.min()
            # 25 frames a second.
            assert rows[i].seconds == pytest.approx((rows[i].num_frames - 1) / 25)


@pytest.mark.slow
def test_faces_are_followed_and_cut_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look_in_this_process(monkeypatch)
    folder = tmp_path / "films"
    (folder / "anna").mkdir(parents=True)
    frames = render_frames(sample_clips(1, 1)[0], seed=3)
    write_video(frames, folder / "anna/face.mp4", FFMPEG)
    make_videos(folder, bo_1=20)
    copyfile(folder / "anna/face.mp4", folder / "cy.mp4")
    search = WHOLE.model_copy(update={"crop": "face"})
    found = videos_of(folder, tmp_path / "out", search)
    (refused,) = found.refused
    assert (refused.path, refused.refusal.reason) == ("bo/1.mp4", "no_face")
    for part in (TRAIN, HELD_OUT):
        span = Rows(tmp_path / "out" / MANIFEST, Span, part)[0]
        # Looks in the frames 0, 5, ..., 35.
        assert (span.num_frames, span.num_squares, span.square_step) == (36, 8, 5)
        squares = np.fromfile(tmp_path / "out/squares.bin", np.float32).reshape(-1, 4)
        own = squares[span.first_square :][: span.num_squares]
        # The drawn face is in the middle of 320 x 256 pixels, and about 150 pixels high.
        assert np.abs(own[:, 0] - 160).max() < 20
        assert np.abs(own[:, 1] - 128).max() < 30
        assert 150 < own[:, 2].mean() < 320


def test_pictures_that_cannot_be_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_in_this_process(monkeypatch)
    source = make_pictures(tmp_path / "faces", "anna/1.png", "anna/2.jpg", "bo/1.png")
    (source / "bo/bad.jpg").write_text("no picture")
    found = pictures_of(source, tmp_path / "out")
    assert [item.path for item in found.refused] == ["bo/bad.jpg"]
    assert [name for name, _ in rows_of(tmp_path / "out", Picture)] == [
        "anna/1.png",
        "anna/2.jpg",
        "bo/1.png",
    ]


def shards(folder: Path, groups: str) -> list[StoredClip]:
    clips = [
        StoredClip(
            f"clip{i}", "", group=group, label="happy", shard="0.tar", first_byte=i, end=i + 1
        )
        for i, group in enumerate(groups)
    ]
    write_stored(folder / "clips.parquet", clips)
    return clips


def test_who_is_tested_in_a_fold_is_left_out(tmp_path: Path) -> None:
    ravdess = shards(tmp_path / "shards/ravdess", "aabbccdd")
    shards(tmp_path / "shards/mead", "aeef")
    folds = tmp_path / "folds/ravdess.csv"
    write_folds(
        folds,
        ravdess,
        [GroupFold(1, ["c", "d"], ["b"], ["a"]), GroupFold(2, ["a", "d"], ["c"], ["b"])],
    )
    found = collect_shards(tmp_path / "out", tmp_path / "shards", SPLIT, folds, [1, 2])
    assert found.excluded == {"ravdess": ["a", "b"]}
    assert found.num_samples == 8
    names = [name for name, _ in rows_of(tmp_path / "out", Clip)]
    # The `a` of another data set is somebody else.
    assert names == sorted(
        [f"mead/clip{i}" for i in range(4)] + [f"ravdess/clip{i}" for i in range(4, 8)]
    )
    groups: dict[str, set[str]] = {}
    for part in (TRAIN, HELD_OUT):
        for dataset, names in Rows(tmp_path / "out" / MANIFEST, Clip, part).groups().items():
            groups.setdefault(dataset, set()).update(names)
    assert groups == {"mead": {"a", "e", "f"}, "ravdess": {"c", "d"}}


def test_folds_of_another_data_set_are_an_error(tmp_path: Path) -> None:
    clips = shards(tmp_path / "shards/mead", "aabb")
    folds = tmp_path / "folds/ravdess.csv"
    write_folds(folds, clips, [GroupFold(1, ["a"], [], ["b"])])
    with pytest.raises(ValueError, match=r"ravdess.csv is named like no data set .*\(mead\)"):
        collect_shards(tmp_path / "out", tmp_path / "shards/mead", SPLIT, folds, [1])
    with pytest.raises(FileNotFoundError, match="holds no shards"):
        collect_shards(tmp_path / "out", tmp_path / "folds", SPLIT, folds, [])
