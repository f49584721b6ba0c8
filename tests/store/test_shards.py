import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image
from project import ROOT

from pipeline.common.clips import Clip
from pipeline.common.files import write_json
from pipeline.feed.loader import load_batches
from pipeline.store.shards import (
    SHARD_NAMES,
    Batch,
    Clips,
    subject_shards,
    write_shard,
)
from pipeline.store.strips import encode_strip
from pipeline.video.tracks import FaceTrack

CLASSES = ["happy", "angry", "sad"]
NUM_FRAMES, SIZE = 4, 16
Example = tuple[Clip, bytes, FaceTrack]


def example(name: str, subject: str, label: str, grey: int = 100) -> Example:
    """A grey clip; frame t has a face in the box (2, 4, 10, 10 + t), the last frame has none."""
    boxes = np.array([[2, 4, 10, 10 + t] for t in range(NUM_FRAMES)], np.float32)
    points = (np.arange(NUM_FRAMES * 10) / 4).reshape(NUM_FRAMES, 5, 2).astype(np.float32)
    boxes[-1], points[-1] = 0, 0
    mask = np.array([True] * (NUM_FRAMES - 1) + [False])
    strip = encode_strip(np.full((NUM_FRAMES, SIZE, SIZE, 3), grey, np.uint8), quality=95)
    return Clip(name, f"{name}.mp4", subject, label), strip, FaceTrack(boxes, points, mask)


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Three subjects of four clips each."""
    paths: list[Path] = []
    for subject in ("Ann", "Bob", "Zoë"):
        clips = [
            example(f"{subject[0]}{i}", subject, CLASSES[i % 3], grey=60 + 10 * i) for i in range(4)
        ]
        paths.append(tmp_path / f"shard{len(paths)}.tar")
        write_shard(paths[-1], clips)
    return paths


def load(
    shards: list[Path],
    *,
    image_size: int = SIZE,
    num_workers: int = 0,
) -> list[Batch]:
    return list(
        load_batches(
            shards,
            classes=CLASSES,
            image_size=image_size,
            batch_size=3,
            num_workers=num_workers,
        )
    )


def names(batches: list[Batch]) -> list[str]:
    return [clip for batch in batches for clip in batch.clips]


IN_ORDER = [f"{subject}{i}" for subject in "ABZ" for i in range(4)]


def test_the_same_clips_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.tar", "two.tar"):
        write_shard(tmp_path / name, [example("a", "Ann", "sad"), example("b", "Ann", "happy")])
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        assert {member.mtime for member in tar} == {0}


def test_plain_webdataset_reads_a_shard(tmp_path: Path) -> None:
    clips = [example("a", "Zoë", "sad", grey=40), example("b", "Zoë", "happy", grey=90)]
    write_shard(tmp_path / "shard.tar", clips)
    dataset = wds.WebDataset(str(tmp_path / "shard.tar"), shardshuffle=False).decode("rgb8")
    for sample, (clip, strip, track) in zip(dataset, clips, strict=True):
        assert sample["__key__"] == clip.clip
        np.testing.assert_array_equal(
            sample["frames.jpg"], np.asarray(Image.open(io.BytesIO(strip)))
        )
        np.testing.assert_array_equal(sample["boxes.npy"], track.boxes)
        np.testing.assert_array_equal(sample["points.npy"], track.points)
        np.testing.assert_array_equal(sample["mask.npy"], track.mask)
        assert sample["clip.json"] == {
            "clip": clip.clip,
            "subject": "Zoë",
            "label": clip.label,
            "size": SIZE,
        }


def test_a_clip_that_fails_leaves_no_shard(tmp_path: Path) -> None:
    clip, _, track = example("a", "Ann", "sad")
    with pytest.raises(OSError, match="cannot identify"):
        write_shard(
            tmp_path / "shard.tar", [example("b", "Ann", "sad"), (clip, b"no picture", track)]
        )
    assert list(tmp_path.iterdir()) == []


def test_the_shards_of_some_subjects_hold_nobody_else(tmp_path: Path, shards: list[Path]) -> None:
    write_json(
        tmp_path / SHARD_NAMES, {"Ann": "shard0.tar", "Bob": "shard1.tar", "Zoë": "shard2.tar"}
    )
    chosen = subject_shards(tmp_path, ["Zoë", "Ann"])
    assert chosen == [shards[2], shards[0]]
    assert [subject for batch in load(chosen) for subject in batch.subjects] == ["Zoë"] * 4 + [
        "Ann"
    ] * 4


def test_clips_come_in_the_order_of_the_shards(shards: list[Path]) -> None:
    batches = load(shards)
    assert names(batches) == IN_ORDER
    assert [len(batch.clips) for batch in batches] == [3, 3, 3, 3]
    assert [len(batch.clips) for batch in load(shards[:1])] == [3, 1]


def test_boxes_and_points_are_fractions_of_the_frame(shards: list[Path]) -> None:
    batch = load(shards)[0]
    assert batch.boxes[0].tolist() == [
        [0.125, 0.25, 0.5, 0.375],
        [0.125, 0.25, 0.5, 0.4375],
        [0.125, 0.25, 0.5, 0.5],
        [0, 0, 0, 0],
    ]
    # The second eye of the second frame is the seventh of the numbers 0, 1/4, 2/4 ...
    assert batch.points[0, 1, 1].tolist() == [12 / 4 / SIZE, 13 / 4 / SIZE]
    assert batch.mask.tolist() == [[True, True, True, False]] * 3


def test_labels_are_places_in_the_list_of_classes(shards: list[Path]) -> None:
    assert torch.cat([batch.labels for batch in load(shards)]).tolist() == [0, 1, 2, 0] * 3


@pytest.mark.parametrize("image_size", [SIZE, SIZE // 2, 12])
def test_frames_are_read_at_the_size_asked_for(shards: list[Path], image_size: int) -> None:
    first = load(shards, image_size=image_size)[0]
    assert first.frames.shape == (3, NUM_FRAMES, 3, image_size, image_size)
    assert first.frames.dtype == torch.uint8
    greys = torch.tensor([60.0, 70.0, 80.0])[:, None, None, None, None]
    assert ((first.frames.float() - greys).abs() <= 2).all()
    stored = load(shards)[0]
    assert torch.equal(first.boxes, stored.boxes)
    assert torch.equal(first.points, stored.points)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_give_the_same_batches_in_the_same_order(
    shards: list[Path], num_workers: int
) -> None:
    for one, same in zip(load(shards), load(shards, num_workers=num_workers), strict=True):
        assert one.clips == same.clips
        assert torch.equal(one.frames, same.frames)
        assert torch.equal(one.points, same.points)


def test_clips_are_read_at_any_place(shards: list[Path]) -> None:
    clips = Clips(shards, classes=CLASSES, image_size=SIZE)
    assert len(clips) == 12
    assert clips.labels.tolist() == [0, 1, 2, 0] * 3
    batch, whole = clips[[11, 0, 5]], load(shards)
    assert batch.clips == ["Z3", "A0", "B1"]
    assert batch.subjects == ["Zoë", "Ann", "Bob"]
    assert torch.equal(batch.boxes[1], whole[0].boxes[0])
    assert (batch.frames[0].float() - 90).abs().max() <= 2
    assert batch.tokens is None


def test_kept_clips_are_not_read_again(shards: list[Path]) -> None:
    frames_of_two_clips = 2 * NUM_FRAMES * 3 * SIZE**2
    clips = Clips(shards, classes=CLASSES, image_size=SIZE, keep_bytes=frames_of_two_clips)
    first = clips[[0, 5, 7]]
    for shard in shards:
        shard.unlink()
    again = clips[[5, 0]]
    assert again.clips == [first.clips[1], first.clips[0]]
    assert torch.equal(again.frames, first.frames[[1, 0]])
    with pytest.raises(FileNotFoundError):  # there was no room for a third one
        clips[[7]]


def test_a_clip_of_a_long_name_is_read(tmp_path: Path) -> None:
    # Such names need more than one tar header.
    names = ["a", "b" * 150, "Zoë" * 40]
    write_shard(tmp_path / "shard.tar", [example(name, "Ann", "sad") for name in names])
    clips = Clips([tmp_path / "shard.tar"], classes=CLASSES, image_size=SIZE)
    assert clips[[2, 1, 0]].clips == names[::-1]


def test_reading_leaves_the_global_generator_alone(shards: list[Path]) -> None:
    before = torch.get_rng_state()
    load(shards)
    assert torch.equal(torch.get_rng_state(), before)


READ_ALL = """
import sys
from pathlib import Path
from pipeline.feed.loader import load_batches
shards = sorted(Path(sys.argv[1]).glob("*.tar"))
Path("/proc/self/clear_refs").write_text("5")
for batch in load_batches(shards, classes=["sad"], image_size=16, batch_size=8):
    pass
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_ten_times_the_clips_take_no_more_memory(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), np.uint8)
    strip, peaks = encode_strip(noise, quality=95), []
    for number in (60, 600):
        folder = tmp_path / str(number)
        folder.mkdir()
        for i in range(number // 20):
            clips = [example(f"{i}_{j}", f"s{i}", "sad") for j in range(20)]
            write_shard(folder / f"{i:02}.tar", [(clip, strip, track) for clip, _, track in clips])
        done = subprocess.run(
            [sys.executable, "-c", READ_ALL, str(folder)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout) / 1000)
    # The clips themselves are 60 MB.
    assert len(strip) * 600 > 60e6
    assert peaks[1] - peaks[0] < 6


def test_an_unknown_label_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard.tar", [example("a", "Ann", "bored")])
    with pytest.raises(ValueError, match="bored"):
        load([tmp_path / "shard.tar"])
