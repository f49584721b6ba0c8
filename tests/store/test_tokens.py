import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from small import NO_AUGMENTATION, NO_MIXING, video_encoder
from torch import Tensor

from pipeline.common.clips import Clip, StoredClip
from pipeline.common.frames import FaceTrack
from pipeline.feed.loader import load, load_in_order
from pipeline.models.start import EncoderTraining, token_origin, why_tokens_vary
from pipeline.store.batch import Batch
from pipeline.store.folders import LocalShards
from pipeline.store.shards import LabelledClip, write_shards
from pipeline.store.stored_frames import StoredFrames
from pipeline.store.strips import encode_strip
from pipeline.store.tokens import (
    TOKENS,
    Origin,
    StoredTokens,
    new_tokens,
    token_record,
    write_no_tokens,
    write_tokens,
)

CLASSES = ["happy", "angry", "sad"]
NUM_FRAMES, SIZE = 4, 16
NUM_TOKENS, DIM = 2, 3
SUBJECTS = ["Ann", "Bob", "Zoë"]
ORIGIN = Origin({"dim": DIM}, weights="0a", precision="32-true")
STALE = "clips is '[0-9a-f]{64}' there and '[0-9a-f]{64}' here"


def encode(frames: Tensor) -> Tensor:
    """A seventh of the mean grey, times 1 to 6: what the tests expect of every clip."""
    greys = frames.float().mean(dim=(1, 2, 3, 4)) / 7
    return greys[:, None, None] * torch.arange(1.0, 7).view(NUM_TOKENS, DIM)


def too_large(frames: Tensor) -> Tensor:
    return torch.full((len(frames), NUM_TOKENS, DIM), 7e4)


def labelled_clips() -> list[LabelledClip]:
    """Ann has five clips, Bob four and Zoë three, each of another grey, box and known frame."""
    labelled = []
    for s, subject in enumerate(SUBJECTS):
        for i in range(5 - s):
            grey = 40 + 20 * s + 4 * i
            frames = np.full((NUM_FRAMES, SIZE, SIZE, 3), grey, np.uint8)
            track = FaceTrack(
                boxes=np.tile(np.array([1, 2, 8 + s, 9 + i], np.float32), (NUM_FRAMES, 1)),
                points=np.full((NUM_FRAMES, 5, 2), s + i / 4, np.float32),
                mask=np.arange(NUM_FRAMES) <= i,
            )
            clip = Clip(f"{subject[0]}{i}", "", subject, CLASSES[i % 3], content=f"{grey:064}")
            labelled.append((clip, encode_strip(frames, quality=95), track))
    return labelled


def write_five_to_a_shard(folder: Path, labelled: list[LabelledClip]) -> list[StoredClip]:
    clips = write_shards(folder, labelled, shard_bytes=28_000)
    assert [clip.shard for clip in clips] == ["000000.tar"] * 5 + ["000001.tar"] * 5 + [
        "000002.tar"
    ] * 2
    return clips


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return tmp_path / "shards"


@pytest.fixture
def clips(shards: Path) -> list[StoredClip]:
    """Of `labelled_clips`; Bob's are in the second shard, together with one of Zoë's."""
    return write_five_to_a_shard(shards, labelled_clips())


def frames_of(shards: Path, clips: list[StoredClip]) -> StoredFrames:
    return StoredFrames(LocalShards(shards), clips, classes=CLASSES, image_size=SIZE)


def write(
    out: Path,
    clips: list[StoredClip],
    batches: Iterable[Batch],
    encode: Callable[[Tensor], Tensor] = encode,
) -> None:
    record = token_record(NUM_FRAMES, NUM_TOKENS, DIM)
    with new_tokens(out, clips, ORIGIN):
        write_tokens(out, clips, batches, encode, record)


@pytest.fixture
def tokens(tmp_path: Path, shards: Path, clips: list[StoredClip]) -> Path:
    write(tmp_path / "tokens", clips, load_in_order(frames_of(shards, clips), batch_size=3))
    return tmp_path / "tokens"


def rows_of(clips: list[StoredClip], subjects: list[str]) -> list[int]:
    return [i for subject in subjects for i, clip in enumerate(clips) if clip.group == subject]


def stored_tokens(
    tokens: Path,
    clips: list[StoredClip],
    rows: list[int] | None = None,
    origin: Origin = ORIGIN,
) -> StoredTokens:
    """Of all clips where no rows are named."""
    rows = list(range(len(clips))) if rows is None else rows
    return StoredTokens(tokens, clips, rows, classes=CLASSES, origin=origin)


def in_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same_but_for_the_inputs(stored: Batch, batch: Batch) -> None:
    assert (stored.ids, stored.groups) == (batch.ids, batch.groups)
    assert list(stored.targets) == list(batch.targets)
    for name, target in batch.targets.items():
        for value, wanted in zip(stored.targets[name], target, strict=True):
            assert value.dtype == wanted.dtype, name
            assert torch.equal(value, wanted), name
    assert stored.inputs.dtype == torch.float16
    assert torch.equal(stored.inputs, encode(batch.inputs).half())


@pytest.mark.parametrize("subjects", [SUBJECTS, ["Zoë", "Ann"], ["Bob"]])
def test_any_clips_are_those_of_the_shards_with_tokens_in_the_place_of_frames(
    tokens: Path, shards: Path, clips: list[StoredClip], subjects: list[str]
) -> None:
    rows = rows_of(clips, subjects)
    frames = frames_of(shards, [clips[row] for row in rows])
    stored = stored_tokens(tokens, clips, rows)
    assert len(stored) == len(frames)
    assert stored.labels.tolist() == frames.labels.tolist()
    for numbers in ([0, 1, 2, 3], [3, 0, 2], [1, 1]):
        assert_same_but_for_the_inputs(stored[numbers], frames[numbers])


def test_workers_read_what_this_process_reads(
    tokens: Path, shards: Path, clips: list[StoredClip]
) -> None:
    frames, batches = frames_of(shards, clips), [[11, 0], [5], [7, 4, 9]]
    loaded = load(stored_tokens(tokens, clips), batches, num_workers=2)
    for numbers, stored in zip(batches, loaded, strict=True):
        assert_same_but_for_the_inputs(stored, frames[numbers])


def test_no_shard_is_read_once_there_are_tokens(
    tokens: Path, shards: Path, clips: list[StoredClip]
) -> None:
    frames = frames_of(shards, clips)[[11, 0, 5]]
    for shard in shards.iterdir():
        shard.unlink()
    assert_same_but_for_the_inputs(stored_tokens(tokens, clips)[[11, 0, 5]], frames)


@pytest.mark.parametrize(("batch_size", "num_workers"), [(3, 0), (5, 0), (3, 2)])
def test_the_same_clips_give_the_same_bytes(
    tmp_path: Path,
    tokens: Path,
    shards: Path,
    clips: list[StoredClip],
    batch_size: int,
    num_workers: int,
) -> None:
    frames = frames_of(shards, clips)
    batches = load_in_order(frames, batch_size=batch_size, num_workers=num_workers)
    write(tmp_path / "again", clips, batches)
    assert in_bytes(tmp_path / "again") == in_bytes(tokens)
    assert sorted(in_bytes(tokens)) == ["000000.npy", "000001.npy", "000002.npy", TOKENS]


def test_numpy_alone_reads_the_clips_of_a_shard(tokens: Path) -> None:
    records = np.load(tokens / "000001.npy", mmap_mode="r")
    # Bob's greys are 60, 64, 68 and 72, and Zoë's first one is 80; a seventh of them is the first
    # of the six numbers.
    sevenths = (np.array([60, 64, 68, 72, 80], np.float32) / 7).astype(np.float16)
    np.testing.assert_array_equal(records["tokens"][:, 0, 0], sevenths)
    assert records["mask"].sum(axis=1).tolist() == [1, 2, 3, 4, 1]
    # 6 tokens of 2 bytes; 4 frames of 14 numbers of 4 bytes and one of 1 byte.
    assert records.itemsize == 6 * 2 + 4 * (14 * 4 + 1)


def test_a_token_beyond_float16_is_refused_with_the_clips(
    tmp_path: Path, shards: Path, clips: list[StoredClip]
) -> None:
    batches = load_in_order(frames_of(shards, clips), batch_size=3)
    with pytest.raises(ValueError, match=r"the clips A0, A1, A2 does not fit into float16"):
        write(tmp_path / "tokens", clips, batches, too_large)
    assert list((tmp_path / "tokens").iterdir()) == []


def test_batches_in_another_order_than_the_manifest_are_an_error(
    tmp_path: Path, shards: Path, clips: list[StoredClip]
) -> None:
    frames = frames_of(shards, clips)
    for order, message in [
        ([1, 0, *range(2, 12)], "A1 came where A0 was expected"),
        ([*range(4), *range(5, 12), 4], "B0 came where A4 was expected"),
        ([0, 0, *range(1, 12)], "A0 came where A1 was expected"),
    ]:
        batches = (frames[order[i : i + 3]] for i in range(0, len(order), 3))
        with pytest.raises(AssertionError, match=message):
            write(tmp_path / "tokens", clips, batches)
        assert not (tmp_path / "tokens" / TOKENS).exists()


def test_shards_that_are_not_those_of_their_manifest_are_refused(
    tmp_path: Path, shards: Path, clips: list[StoredClip]
) -> None:
    more = [*clips, replace(clips[-1], clip="Z9")]
    with pytest.raises(ValueError, match=r"000002\.tar does not hold Z9 where its manifest says"):
        write(tmp_path / "tokens", more, load_in_order(frames_of(shards, more), batch_size=3))
    swapped = [replace(clips[0], clip="A1"), replace(clips[1], clip="A0"), *clips[2:]]
    with pytest.raises(ValueError, match=r"000000\.tar does not hold A1 where its manifest says"):
        write(tmp_path / "tokens", swapped, load_in_order(frames_of(shards, swapped), batch_size=3))


def test_a_run_that_fails_leaves_no_earlier_description_to_believe(
    tokens: Path, shards: Path, clips: list[StoredClip]
) -> None:
    renamed = [replace(clips[0], clip="A9"), *clips[1:]]
    with pytest.raises(ValueError, match="A9"):
        write(tokens, renamed, load_in_order(frames_of(shards, renamed), batch_size=3))
    assert not (tokens / TOKENS).exists()


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        (ORIGIN._replace(weights="0b"), "weights is '0a' there and '0b' here"),
        (ORIGIN._replace(precision="bf16-mixed"), "is '32-true' there and 'bf16-mixed' here"),
        (ORIGIN._replace(encoder={"dim": 4}), r"encoder is {'dim': 3} there and {'dim': 4} here"),
    ],
)
def test_tokens_of_another_encoder_are_refused(
    tokens: Path, clips: list[StoredClip], origin: Origin, message: str
) -> None:
    with pytest.raises(ValueError, match=f"{message}.*dvc repro encode"):
        stored_tokens(tokens, clips, origin=origin)


def test_tokens_of_other_clips_are_refused_but_labels_may_change(
    tokens: Path, clips: list[StoredClip]
) -> None:
    other_label = [replace(clips[0], label="sad"), *clips[1:]]
    batch = stored_tokens(tokens, other_label)[[0, 1]]
    assert batch.targets["expression"].values.tolist() == [2, 1]
    with pytest.raises(ValueError, match=STALE):
        stored_tokens(tokens, [replace(clips[0], digest="other"), *clips[1:]])
    with pytest.raises(ValueError, match=STALE):
        stored_tokens(tokens, [clips[1], clips[0], *clips[2:]])
    with pytest.raises(ValueError, match="num_clips is 12 there and 11 here"):
        stored_tokens(tokens, clips[1:])


def test_another_box_alone_makes_tokens_stale(
    tmp_path: Path, tokens: Path, clips: list[StoredClip]
) -> None:
    labelled = labelled_clips()
    assert write_five_to_a_shard(tmp_path / "same", labelled) == clips
    clip, strip, track = labelled[7]
    boxes = track.boxes.copy()
    boxes[0, 2] += 0.01
    labelled[7] = (clip, strip, replace(track, boxes=boxes))
    other = write_five_to_a_shard(tmp_path / "other", labelled)
    with pytest.raises(ValueError, match=STALE):
        stored_tokens(tokens, other)


def test_an_unknown_label_is_an_error_that_names_it(tokens: Path, clips: list[StoredClip]) -> None:
    other_label = [replace(clips[0], label="bored"), *clips[1:]]
    with pytest.raises(ValueError, match=r"the label of A0 is 'bored', none of \['happy'"):
        stored_tokens(tokens, other_label)


def test_an_empty_folder_says_why_it_is_empty(tmp_path: Path, clips: list[StoredClip]) -> None:
    write_no_tokens(tmp_path / "tokens", "the encoder is trained")
    assert json.loads((tmp_path / "tokens" / TOKENS).read_text()) == {
        "empty": "the encoder is trained"
    }
    with pytest.raises(ValueError, match="it is empty, because the encoder is trained"):
        stored_tokens(tmp_path / "tokens", clips)


def test_the_origin_names_sizes_normalisation_weights_and_precision(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    encoder = video_encoder(
        dim=8, depth=1, num_heads=2, image_size=32, num_frames=4, drop_path=0.1, checkpointing=True
    )
    encoder.mean.copy_(torch.tensor([0.5, 0.25, 0]).view(3, 1, 1))
    encoder.std.fill_(1)
    sizes: dict[str, object] = {"image_size": 32, "patch_size": 16, "tubelet_size": 2}
    sizes |= {"stem": "linear", "num_frames": 4}
    assert token_origin(encoder, tmp_path / "weights", "bf16-mixed") == Origin(
        {"dim": 8, "depth": 1, "num_heads": 2, **sizes, "mean": [0.5, 0.25, 0], "std": [1, 1, 1]},
        hashlib.sha256(b"weights").hexdigest(),
        "bf16-mixed",
    )


@pytest.mark.parametrize(
    ("mode", "flip_probability", "mixup_alpha", "reason"),
    [
        ("frozen", 0.0, 0.0, ""),
        ("full", 0.0, 0.0, "the encoder is trained"),
        ("frozen", 0.5, 0.8, "the frames are augmented: flips, mixup"),
    ],
)
def test_only_a_frozen_encoder_without_augmentation_always_says_the_same(
    mode: Literal["frozen", "full"], flip_probability: float, mixup_alpha: float, reason: str
) -> None:
    training = EncoderTraining(mode=mode, drop_path=0.1, checkpointing=False)
    augment = NO_AUGMENTATION.model_copy(update={"flip_probability": flip_probability})
    mix = NO_MIXING.model_copy(update={"mixup_alpha": mixup_alpha})
    assert why_tokens_vary(training, augment.changes + mix.changes, num_views=1) == reason


def test_a_clip_of_several_views_has_no_one_set_of_tokens() -> None:
    training = EncoderTraining(mode="frozen", drop_path=0.0, checkpointing=False)
    assert why_tokens_vary(training, [], num_views=4) == "the test takes the mean over 4 views"
