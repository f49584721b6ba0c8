import io
import os
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image
from project import ROOT

from pipeline.common.clips import Clip, StoredClip, read_stored, write_stored
from pipeline.common.frames import FaceTrack
from pipeline.feed.loader import load_in_order
from pipeline.store.batch import Batch
from pipeline.store.contents import CLIPS, ClipContent
from pipeline.store.folders import LocalShards, read_contents
from pipeline.store.shards import LabelledClip, write_shards
from pipeline.store.stored_frames import StoredFrames
from pipeline.store.strips import encode_strip

CLASSES = ["happy", "angry", "sad"]
NUM_FRAMES, SIZE = 4, 16
KINDS = ["boxes.npy", "clip.json", "frames.jpg", "mask.npy", "points.npy"]
# Of a clip of `example` in a tar: five headers, and their contents in blocks of 512 bytes.
CLIP_BYTES = 5 * 512 + 4 * 512 + 1024


def example(name: str, subject: str, label: str, grey: int = 100) -> LabelledClip:
    """A grey clip; frame t has a face in the box (2, 4, 10, 10 + t), the last frame has none."""
    boxes = np.array([[2, 4, 10, 10 + t] for t in range(NUM_FRAMES)], np.float32)
    points = (np.arange(NUM_FRAMES * 10) / 4).reshape(NUM_FRAMES, 5, 2).astype(np.float32)
    boxes[-1], points[-1] = 0, 0
    mask = np.array([True] * (NUM_FRAMES - 1) + [False])
    strip = encode_strip(np.full((NUM_FRAMES, SIZE, SIZE, 3), grey, np.uint8), quality=95)
    return Clip(name, f"{name}.mp4", subject, label), strip, FaceTrack(boxes, points, mask)


def examples() -> list[LabelledClip]:
    """Three subjects of four clips each."""
    return [
        example(f"{subject[0]}{i}", subject, CLASSES[i % 3], grey=60 + 10 * i)
        for subject in ("Ann", "Bob", "Zoë")
        for i in range(4)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shards"


@pytest.fixture
def clips(folder: Path) -> list[StoredClip]:
    """Of `examples`, five to a shard: the second and the third subject are in two shards each."""
    return write_shards(folder, examples(), shard_bytes=5 * CLIP_BYTES)


def frames_of(
    folder: Path, clips: list[StoredClip], *, image_size: int = SIZE, keep_bytes: int = 0
) -> StoredFrames:
    return StoredFrames(
        LocalShards(folder), clips, classes=CLASSES, image_size=image_size, keep_bytes=keep_bytes
    )


def read_content(folder: Path, clip: StoredClip) -> ClipContent:
    [content] = read_contents(LocalShards(folder), [clip])
    return content


def load(source: StoredFrames, *, num_workers: int = 0) -> list[Batch]:
    return list(load_in_order(source, batch_size=3, num_workers=num_workers))


def names(batches: list[Batch]) -> list[str]:
    return [clip for batch in batches for clip in batch.ids]


def in_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def part_of(folder: Path, clip: StoredClip) -> io.BytesIO:
    """The bytes of a shard that its manifest says are the clip's."""
    data = (folder / clip.shard).read_bytes()
    return io.BytesIO(data[clip.first_byte : clip.end])


IN_ORDER = [f"{subject}{i}" for subject in "ABZ" for i in range(4)]


def test_the_same_clips_give_the_same_bytes_and_the_same_manifest(tmp_path: Path) -> None:
    one, two = (
        write_shards(tmp_path / name, examples(), shard_bytes=5 * CLIP_BYTES)
        for name in ("one", "two")
    )
    assert one == two
    assert in_bytes(tmp_path / "one") == in_bytes(tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        with tarfile.open(path) as tar:
            assert {member.mtime for member in tar} == {0}


def test_clips_keep_the_order_in_which_they_are_given(folder: Path) -> None:
    shuffled = [examples()[i] for i in (7, 2, 11, 0, 5)]
    stored = write_shards(folder, shuffled, shard_bytes=2 * CLIP_BYTES)
    assert [clip.clip for clip in stored] == ["B3", "A2", "Z3", "A0", "B1"]
    assert names(load(frames_of(folder, stored))) == ["B3", "A2", "Z3", "A0", "B1"]


@pytest.mark.parametrize(
    ("shard_bytes", "in_each"),
    [
        (1, [1] * 12),
        (2 * CLIP_BYTES - 1, [2] * 6),
        (2 * CLIP_BYTES, [2] * 6),
        (2 * CLIP_BYTES + 1, [3] * 4),
        (5 * CLIP_BYTES, [5, 5, 2]),
        (100 * CLIP_BYTES, [12]),
    ],
)
def test_a_shard_is_closed_by_the_clip_that_fills_it_whoever_is_seen(
    folder: Path, shard_bytes: int, in_each: list[int]
) -> None:
    clips = write_shards(folder, examples(), shard_bytes=shard_bytes)
    assert {clip.end - clip.first_byte for clip in clips} == {CLIP_BYTES}
    shards = [f"{number:06}.tar" for number in range(len(in_each))]
    assert [clip.shard for clip in clips] == sorted(clip.shard for clip in clips)
    assert Counter(clip.shard for clip in clips) == dict(zip(shards, in_each, strict=True))
    assert sorted(in_bytes(folder)) == shards


def test_no_clips_are_no_shards(tmp_path: Path) -> None:
    assert write_shards(tmp_path, []) == []
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_names_exactly_the_bytes_of_each_clip(
    folder: Path, clips: list[StoredClip]
) -> None:
    for clip in clips:
        with tarfile.open(fileobj=part_of(folder, clip)) as tar:
            assert sorted(tar.getnames()) == [f"{clip.clip}.{kind}" for kind in KINDS]
    # Nothing lies between two clips, and nothing but the zeros of a tar's end after the last one.
    for shard, group in groupby(clips, lambda clip: clip.shard):
        in_shard = list(group)
        assert [clip.first_byte for clip in in_shard] == [0, *(c.end for c in in_shard[:-1])]
        assert not any((folder / shard).read_bytes()[in_shard[-1].end :])


def test_the_manifest_has_what_is_known_of_a_clip(folder: Path) -> None:
    clip, strip, track = example("a", "Zoë", "sad")
    clip = replace(clip, sex="female", split="test", num_frames=90, seconds=3.6, content="0c")
    (stored,) = write_shards(folder, [(clip, strip, track)])
    assert replace(stored, digest="") == StoredClip(
        clip="a",
        path="a.mp4",
        group="Zoë",
        label="sad",
        sex="female",
        split="test",
        num_frames=90,
        seconds=3.6,
        content="0c",
        shard="000000.tar",
        first_byte=0,
        end=CLIP_BYTES,
    )


def test_the_digest_tells_strips_boxes_points_and_masks_apart_and_nothing_else(
    folder: Path,
) -> None:
    clip, strip, track = example("a", "Ann", "sad")
    mask = np.array([True] * NUM_FRAMES)
    others = [
        (clip, example("a", "Ann", "sad", grey=140)[1], track),
        (clip, strip, replace(track, boxes=track.boxes + np.float32(0.01))),
        (clip, strip, replace(track, points=track.points + np.float32(0.01))),
        (clip, strip, replace(track, mask=mask)),
    ]
    renamed = Clip("b", "c.mp4", "Bob", "happy", content="0c")
    found = [
        stored.digest
        for stored in write_shards(folder, [(clip, strip, track), *others, (renamed, strip, track)])
    ]
    assert len(set(found)) == 5
    assert found[-1] == found[0]
    assert all(len(digest) == 64 for digest in found)


def test_plain_webdataset_reads_every_clip_of_all_shards(folder: Path) -> None:
    write_shards(folder, examples(), shard_bytes=5 * CLIP_BYTES)
    shards = sorted(str(path) for path in folder.iterdir())
    assert len(shards) == 3
    dataset = wds.WebDataset(shards, shardshuffle=False).decode("rgb8")
    for sample, (clip, strip, track) in zip(dataset, examples(), strict=True):
        assert sample["__key__"] == clip.clip
        np.testing.assert_array_equal(
            sample["frames.jpg"], np.asarray(Image.open(io.BytesIO(strip)))
        )
        np.testing.assert_array_equal(sample["boxes.npy"], track.boxes)
        np.testing.assert_array_equal(sample["points.npy"], track.points)
        np.testing.assert_array_equal(sample["mask.npy"], track.mask)
        assert sample["clip.json"] == {
            "clip": clip.clip,
            "subject": clip.subject,
            "label": clip.label,
            "size": SIZE,
        }


def test_what_was_written_of_a_clip_is_read_again(folder: Path, clips: list[StoredClip]) -> None:
    for stored, (_, strip, track) in zip(clips, examples(), strict=True):
        content = read_content(folder, stored)
        assert content.strip == strip
        for name in ("boxes", "points", "mask"):
            value, wanted = getattr(content.track, name), getattr(track, name)
            assert value.dtype == wanted.dtype
            np.testing.assert_array_equal(value, wanted)


def test_a_clip_that_fails_leaves_no_part_of_its_shard(folder: Path, tmp_path: Path) -> None:
    clip, _, track = example("a", "Ann", "sad")
    failing = [example("b", "Ann", "sad"), (clip, b"no picture", track)]
    with pytest.raises(OSError, match="cannot identify"):
        write_shards(folder, failing)
    assert list(folder.iterdir()) == []
    with pytest.raises(OSError, match="cannot identify"):
        write_shards(folder, failing, shard_bytes=1)
    # What was whole before stays.
    write_shards(tmp_path / "whole", failing[:1])
    assert in_bytes(folder) == in_bytes(tmp_path / "whole")


def test_some_clips_of_a_manifest_are_these_and_no_others(
    folder: Path, clips: list[StoredClip]
) -> None:
    chosen = [clip for name in ("Zoë", "Ann") for clip in clips if clip.group == name]
    batches = load(frames_of(folder, chosen))
    assert names(batches) == IN_ORDER[8:] + IN_ORDER[:4]
    assert [subject for batch in batches for subject in batch.groups] == ["Zoë"] * 4 + ["Ann"] * 4


def test_a_start_opens_no_shard(folder: Path, clips: list[StoredClip]) -> None:
    write_stored(folder / CLIPS, clips)
    for shard in folder.glob("*.tar"):
        shard.unlink()
    frames = frames_of(folder, read_stored(folder / CLIPS))
    assert len(frames) == 12
    assert frames.labels.tolist() == [0, 1, 2, 0] * 3
    with pytest.raises(FileNotFoundError, match=r"000000\.tar"):
        frames[[0]]


def test_a_manifest_that_is_not_of_its_shards_is_refused_by_name(
    folder: Path, tmp_path: Path
) -> None:
    names = ["a", "b", "c"]
    write_shards(folder, [example(name, "Ann", "sad") for name in names])
    other = write_shards(tmp_path, [example(name, "Ann", "sad") for name in ("a", "c", "b")])
    message = r"000000\.tar does not hold c where its manifest says: .*dvc repro --force label"
    assert len(read_content(folder, other[0]).strip) > 0
    with pytest.raises(ValueError, match=message):
        read_content(folder, other[1])
    with pytest.raises(ValueError, match=message):
        load(frames_of(folder, other))
    # A place that goes on into the next clip is none of this one.
    longer = replace(other[0], end=other[1].end)
    with pytest.raises(ValueError, match=r"000000\.tar does not hold a where its manifest says"):
        read_content(folder, longer)


def test_clips_come_in_the_order_of_the_manifest(folder: Path, clips: list[StoredClip]) -> None:
    batches = load(frames_of(folder, clips))
    assert names(batches) == IN_ORDER
    assert [len(batch) for batch in batches] == [3, 3, 3, 3]
    assert [len(batch) for batch in load(frames_of(folder, clips[:4]))] == [3, 1]


def test_boxes_and_points_are_fractions_of_the_frame(folder: Path, clips: list[StoredClip]) -> None:
    targets = load(frames_of(folder, clips))[0].targets
    assert targets["boxes"].values[0].tolist() == [
        [0.125, 0.25, 0.5, 0.375],
        [0.125, 0.25, 0.5, 0.4375],
        [0.125, 0.25, 0.5, 0.5],
        [0, 0, 0, 0],
    ]
    # The second eye of the second frame is the seventh of the numbers 0, 1/4, 2/4 ...
    assert targets["points"].values[0, 1, 1].tolist() == [12 / 4 / SIZE, 13 / 4 / SIZE]
    for name in ("boxes", "points"):
        assert targets[name].known.tolist() == [[True, True, True, False]] * 3


def test_expressions_are_places_in_the_list_of_classes_and_all_known(
    folder: Path, clips: list[StoredClip]
) -> None:
    found = [batch.targets["expression"] for batch in load(frames_of(folder, clips))]
    assert torch.cat([target.values for target in found]).tolist() == [0, 1, 2, 0] * 3
    assert torch.cat([target.known for target in found]).tolist() == [True] * 12


@pytest.mark.parametrize("image_size", [SIZE, SIZE // 2, 12])
def test_frames_are_read_at_the_size_asked_for(
    folder: Path, clips: list[StoredClip], image_size: int
) -> None:
    first = load(frames_of(folder, clips, image_size=image_size))[0]
    assert first.inputs.shape == (3, NUM_FRAMES, 3, image_size, image_size)
    assert first.inputs.dtype == torch.uint8
    greys = torch.tensor([60.0, 70.0, 80.0])[:, None, None, None, None]
    assert ((first.inputs.float() - greys).abs() <= 2).all()
    stored = load(frames_of(folder, clips))[0]
    for name in ("boxes", "points"):
        assert torch.equal(first.targets[name].values, stored.targets[name].values)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_give_the_same_batches_in_the_same_order(
    folder: Path, clips: list[StoredClip], num_workers: int
) -> None:
    frames = frames_of(folder, clips)
    for one, same in zip(load(frames), load(frames, num_workers=num_workers), strict=True):
        assert one.ids == same.ids
        assert torch.equal(one.inputs, same.inputs)
        assert torch.equal(one.targets["points"].values, same.targets["points"].values)


def test_clips_are_read_at_any_place(folder: Path, clips: list[StoredClip]) -> None:
    frames = frames_of(folder, clips)
    assert len(frames) == 12
    assert frames.labels.tolist() == [0, 1, 2, 0] * 3
    batch, whole = frames[[11, 0, 5]], load(frames)
    assert batch.ids == ["Z3", "A0", "B1"]
    assert batch.groups == ["Zoë", "Ann", "Bob"]
    assert list(batch.targets) == ["boxes", "points", "expression"]
    assert torch.equal(batch.targets["boxes"].values[1], whole[0].targets["boxes"].values[0])
    assert (batch.inputs[0].float() - 90).abs().max() <= 2


def test_kept_clips_are_not_read_again(folder: Path, clips: list[StoredClip]) -> None:
    frames_of_two_clips = 2 * NUM_FRAMES * 3 * SIZE**2
    frames = frames_of(folder, clips, keep_bytes=frames_of_two_clips)
    first = frames[[0, 5, 7]]
    for shard in folder.iterdir():
        shard.unlink()
    again = frames[[5, 0]]
    assert again.ids == [first.ids[1], first.ids[0]]
    assert torch.equal(again.inputs, first.inputs[[1, 0]])
    with pytest.raises(FileNotFoundError):  # there was no room for a third one
        frames[[7]]


def test_a_clip_of_a_long_name_is_read(folder: Path) -> None:
    # Such names need more than one tar header.
    names = ["a", "b" * 150, "Zoë" * 40]
    stored = write_shards(folder, [example(name, "Ann", "sad") for name in names])
    assert frames_of(folder, stored)[[2, 1, 0]].ids == names[::-1]
    for clip in stored:
        with tarfile.open(fileobj=part_of(folder, clip)) as tar:
            assert sorted(tar.getnames()) == [f"{clip.clip}.{kind}" for kind in KINDS]


def test_reading_leaves_the_global_generator_alone(folder: Path, clips: list[StoredClip]) -> None:
    before = torch.get_rng_state()
    load(frames_of(folder, clips))
    assert torch.equal(torch.get_rng_state(), before)


READ_ALL = """
import sys
from pathlib import Path
from pipeline.common.clips import read_stored
from pipeline.feed.loader import load_in_order
from pipeline.store.contents import CLIPS
from pipeline.store.folders import LocalShards
from pipeline.store.stored_frames import StoredFrames
folder = Path(sys.argv[1])
Path("/proc/self/clear_refs").write_text("5")
clips = read_stored(folder / CLIPS)
frames = StoredFrames(LocalShards(folder), clips, classes=["sad"], image_size=16)
for batch in load_in_order(frames, batch_size=8):
    pass
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_ten_times_the_clips_take_no_more_memory(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), np.uint8)
    strip, peaks = encode_strip(noise, quality=95), []
    for number in (60, 600):
        folder = tmp_path / str(number)
        clips = (example(f"{i}", f"s{i // 20}", "sad") for i in range(number))
        stored = write_shards(
            folder,
            ((clip, strip, track) for clip, _, track in clips),
            shard_bytes=20 * len(strip),
        )
        assert len({clip.shard for clip in stored}) == number / 20
        write_stored(folder / CLIPS, stored)
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


def test_an_unknown_label_is_an_error_that_names_it(folder: Path) -> None:
    stored = write_shards(folder, [example("a", "Ann", "bored")])
    with pytest.raises(ValueError, match=r"the label of a is 'bored', none of \['happy'"):
        frames_of(folder, stored)
