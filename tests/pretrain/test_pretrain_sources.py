from pathlib import Path

import numpy as np
import pytest
from small_collection import (
    look_in_this_process,
    make_pictures,
    make_videos,
    pictures_of,
    videos_of,
)
from small_videos import frame_numbers

from pipeline.common.clips import Clip as NamedClip
from pipeline.common.clips import write_stored
from pipeline.common.frames import FaceTrack
from pipeline.pretrain.collect_shards import collect_shards
from pipeline.pretrain.listing import Split
from pipeline.pretrain.manifest import HELD_OUT, TRAIN
from pipeline.pretrain.sources import Pictures, ShardClips
from pipeline.pretrain.video_clips import ClipSettings, VideoClips, clip_indices, squares_of
from pipeline.store.shards import write_shards
from pipeline.store.strips import encode_strip

CLIPS = ClipSettings(num_frames=4, stride=3, seconds_per_clip=1.0)


def test_a_clip_begins_anywhere_and_never_ends_behind_the_last_frame() -> None:
    assert clip_indices(40, 4, 3, 0.0) == [0, 3, 6, 9]
    assert clip_indices(40, 4, 3, 0.9999) == [30, 33, 36, 39]
    starts = {clip_indices(40, 4, 3, position)[0] for position in np.arange(0, 1, 0.001)}
    assert starts == set(range(31))
    # Exactly as long as a clip, and shorter: evenly over what there is.
    assert clip_indices(10, 4, 3, 0.5) == [0, 3, 6, 9]
    assert clip_indices(8, 4, 3, 0.5) == [1, 3, 5, 7]
    assert clip_indices(2, 4, 3, 0.5) == [0, 0, 1, 1]


def test_a_face_moves_evenly_between_two_looks() -> None:
    known = np.array([[0, 10, 50, 0], [8, 10, 58, 0], [16, 20, 58, 0]], np.float32)
    squares = squares_of(known, [0, 2, 4, 6, 99], 4)
    assert [square.x for square in squares] == [0, 4, 8, 12, 16]
    assert [square.side for square in squares] == [50, 54, 58, 58, 58]


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two long films of one person and a short one of another; their collection."""
    look_in_this_process(monkeypatch)
    source = make_videos(tmp_path / "films", anna_1=80, anna_2=20, bo_1=9)
    videos_of(source, tmp_path / "out")
    return source, tmp_path / "out"


def numbers_of(clips: VideoClips, name: str, random: np.random.Generator | None) -> list[int]:
    (number,) = (i for i in range(len(clips)) if clips.name(i) == name)
    return frame_numbers(clips.read(number, random))


def test_an_epoch_draws_one_clip_out_of_every_section_of_a_video(
    videos: tuple[Path, Path],
) -> None:
    parts = [VideoClips(*videos, part, CLIPS, num_frames=4, side=64) for part in (TRAIN, HELD_OUT)]
    # 79 frames of time are 3.16 seconds; shorter ones have a clip all the same.
    names = {clips.name(i) for clips in parts for i in range(len(clips))}
    assert names == {"anna/1.mp4:0:0", "anna/1.mp4:0:1", "anna/1.mp4:0:2"} | {
        "anna/2.mp4:0:0",
        "bo/1.mp4:0:0",
    }
    (clips,) = (clips for clips in parts if clips.group(0) == "anna")
    assert len(clips) == 4
    random = np.random.default_rng(0)
    for section in range(3):
        drawn = [numbers_of(clips, f"anna/1.mp4:0:{section}", random) for _ in range(12)]
        assert all(np.diff(numbers).tolist() == [3, 3, 3] for numbers in drawn)
        starts = [numbers[0] for numbers in drawn]
        # 71 starts are there, a third of them in each section.
        assert section * 71 // 3 <= min(starts) < max(starts) <= (section + 1) * 71 // 3
        assert len(set(starts)) > 5
        middle = numbers_of(clips, f"anna/1.mp4:0:{section}", None)
        assert middle == numbers_of(clips, f"anna/1.mp4:0:{section}", None)
        assert middle[0] == int((section + 0.5) / 3 * 71)


def test_frames_that_stay_in_memory_are_the_same(videos: tuple[Path, Path]) -> None:
    fresh = VideoClips(*videos, TRAIN, CLIPS, num_frames=4, side=32)
    keeps = VideoClips(*videos, TRAIN, CLIPS, num_frames=4, side=32, keep_bytes=10**8)
    for _ in range(2):
        for i in range(len(fresh)):
            expected = fresh.read(i, np.random.default_rng(i))
            assert np.array_equal(keeps.read(i, np.random.default_rng(i)), expected)
            # 96 x 64 pixels, shrunk.
            assert expected.shape == (4, 32, 48, 3)
    assert keeps.kept
    assert keeps.room == 10**8 - sum(frames.nbytes for frames in keeps.kept.values())
    assert not fresh.kept


def test_pictures_are_read_as_clips_of_one_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_in_this_process(monkeypatch)
    source = make_pictures(tmp_path / "faces", "anna/1.png", "anna/2.png", "bo/1.png")
    pictures_of(source, tmp_path / "out")
    for part in (TRAIN, HELD_OUT):
        pictures = Pictures(source, tmp_path / "out", part, side=15)
        for i in range(len(pictures)):
            assert pictures.path(i) == pictures.name(i)
            assert pictures.read(i, None).shape == (1, 15, 20, 3)


def test_stored_clips_give_one_of_their_samplings_or_one_of_their_frames(tmp_path: Path) -> None:
    # 8 frames, of which 0, 2, 4, 6 are one sampling and 1, 3, 5, 7 the other.
    frames = np.stack([np.full((16, 16, 3), 30 * i, np.uint8) for i in range(8)])
    track = FaceTrack(
        np.zeros((8, 4), np.float32), np.zeros((8, 5, 2), np.float32), np.zeros(8, bool)
    )
    clips = [NamedClip(f"clip{i}", "", subject=f"s{i}", label="happy") for i in range(4)]
    folder = tmp_path / "shards/tiny"
    folder.mkdir(parents=True)
    strip = encode_strip(frames, 100)
    write_stored(folder / "clips.parquet", write_shards(folder, [(c, strip, track) for c in clips]))
    collect_shards(tmp_path / "out", folder, Split(0.3, 1), tmp_path / "none.csv", [])

    def seen(num_frames: int) -> set[tuple[int, ...]]:
        source = ShardClips(folder, tmp_path / "out", TRAIN, num_frames=num_frames, side=8)
        assert source.name(0).startswith("tiny/clip")
        random = np.random.default_rng(0)
        pictures = [source.read(i % 3, random) for i in range(60)]
        assert {picture.shape[1:] for picture in pictures} == {(8, 8, 3)}
        return {tuple(np.rint(p.mean((1, 2, 3)) / 30).astype(int).tolist()) for p in pictures}

    assert seen(4) == {(0, 2, 4, 6), (1, 3, 5, 7)}
    assert seen(1) == {(i,) for i in range(8)}
    with pytest.raises(ValueError, match="8 stored frames, which do not divide into clips of 3"):
        seen(3)
