import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.common.clips import Clip, read_manifest, write_manifest
from pipeline.common.files import write_json
from pipeline.feed.loader import load
from pipeline.store.shards import CLIPS, SHARD_NAMES, Batch, Clips, subject_shards, write_shard
from pipeline.store.strips import encode_strip
from pipeline.store.tokens import (
    TOKENS,
    EncodedClips,
    Origin,
    clip_record,
    origin_of,
    why_tokens_vary,
    write_no_tokens,
    write_tokens,
)
from pipeline.video.tracks import FaceTrack

CLASSES = ["happy", "angry", "sad"]
NUM_FRAMES, SIZE = 4, 16
NUM_TOKENS, DIM = 2, 3
SUBJECTS = ["Ann", "Bob", "Zoë"]
ORIGIN = Origin({"dim": DIM}, weights="0a", precision="32-true")


def encode(frames: Tensor) -> Tensor:
    """A seventh of the mean grey, times 1 to 6: what the tests expect of every clip."""
    greys = frames.float().mean(dim=(1, 2, 3, 4)) / 7
    return greys[:, None, None] * torch.arange(1.0, 7).view(NUM_TOKENS, DIM)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Ann has five clips, Bob four and Zoë three, each of another grey, box and known frame."""
    folder, clips = tmp_path / "shards", list[Clip]()
    for s, subject in enumerate(SUBJECTS):
        labelled = []
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
            clips.append(clip)
        write_shard(folder / f"{s}.tar", labelled)
    write_json(folder / SHARD_NAMES, {subject: f"{s}.tar" for s, subject in enumerate(SUBJECTS)})
    write_manifest(folder / CLIPS, clips)
    return folder


def write(
    out: Path,
    shards: Path,
    encode: Callable[[Tensor], Tensor] = encode,
    *,
    batch_size: int = 3,
    num_workers: int = 0,
) -> None:
    write_tokens(
        out,
        shards,
        encode,
        origin=ORIGIN,
        record=clip_record(NUM_FRAMES, NUM_TOKENS, DIM),
        image_size=SIZE,
        batch_size=batch_size,
        num_workers=num_workers,
    )


@pytest.fixture
def tokens(tmp_path: Path, shards: Path) -> Path:
    write(tmp_path / "tokens", shards)
    return tmp_path / "tokens"


def encoded(tokens: Path, subjects: list[str] = SUBJECTS, origin: Origin = ORIGIN) -> EncodedClips:
    return EncodedClips(tokens, tokens.parent / "shards", subjects, classes=CLASSES, origin=origin)


def in_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same_but_for_the_frames(stored: Batch, batch: Batch) -> None:
    assert (stored.clips, stored.subjects) == (batch.clips, batch.subjects)
    for name in ("boxes", "points", "mask", "labels"):
        value, wanted = getattr(stored, name), getattr(batch, name)
        assert value.dtype == wanted.dtype, name
        assert torch.equal(value, wanted), name
    assert stored.tokens is not None
    assert stored.tokens.dtype == torch.float16
    assert torch.equal(stored.tokens, encode(batch.frames).half())
    assert stored.frames.shape == (len(batch.clips), 0)


@pytest.mark.parametrize("subjects", [SUBJECTS, ["Zoë", "Ann"], ["Bob"]])
def test_any_clips_are_those_of_the_shards_with_tokens_in_the_place_of_frames(
    tokens: Path, shards: Path, subjects: list[str]
) -> None:
    clips = Clips(subject_shards(shards, subjects), classes=CLASSES, image_size=SIZE)
    stored = encoded(tokens, subjects)
    assert len(stored) == len(clips)
    assert stored.labels.tolist() == clips.labels.tolist()
    for numbers in ([0, 1, 2, 3], [3, 0, 2], [1, 1]):
        assert_same_but_for_the_frames(stored[numbers], clips[numbers])


def test_workers_read_what_this_process_reads(tokens: Path, shards: Path) -> None:
    clips = Clips(subject_shards(shards, SUBJECTS), classes=CLASSES, image_size=SIZE)
    batches = [[11, 0], [5], [7, 4, 9]]
    for numbers, stored in zip(batches, load(encoded(tokens), batches, num_workers=2), strict=True):
        assert_same_but_for_the_frames(stored, clips[numbers])


@pytest.mark.parametrize(("batch_size", "num_workers"), [(3, 0), (5, 0), (3, 2)])
def test_the_same_clips_give_the_same_bytes(
    tmp_path: Path, tokens: Path, shards: Path, batch_size: int, num_workers: int
) -> None:
    write(tmp_path / "again", shards, batch_size=batch_size, num_workers=num_workers)
    assert in_bytes(tmp_path / "again") == in_bytes(tokens)
    assert sorted(in_bytes(tokens)) == ["0.npy", "1.npy", "2.npy", TOKENS]


def test_numpy_alone_reads_the_clips_of_a_subject(tokens: Path) -> None:
    records = np.load(tokens / "1.npy", mmap_mode="r")
    # Bob's greys are 60, 64, 68 and 72; a seventh of them is the first of the six numbers.
    sevenths = (np.array([60, 64, 68, 72], np.float32) / 7).astype(np.float16)
    np.testing.assert_array_equal(records["tokens"][:, 0, 0], sevenths)
    assert records["mask"].sum(axis=1).tolist() == [1, 2, 3, 4]
    # 6 tokens of 2 bytes; 4 frames of 14 numbers of 4 bytes and one of 1 byte.
    assert records.itemsize == 6 * 2 + 4 * (14 * 4 + 1)


def test_a_token_beyond_float16_is_refused_with_the_clips(tmp_path: Path, shards: Path) -> None:
    def too_large(frames: Tensor) -> Tensor:
        return torch.full((len(frames), NUM_TOKENS, DIM), 7e4)

    with pytest.raises(ValueError, match=r"the clips A0, A1, A2 does not fit into float16"):
        write(tmp_path / "tokens", shards, too_large)
    assert list((tmp_path / "tokens").iterdir()) == []


def test_shards_that_are_not_those_of_their_manifest_are_refused(
    tmp_path: Path, shards: Path
) -> None:
    clips = read_manifest(shards / CLIPS)
    write_manifest(shards / CLIPS, [*clips, replace(clips[-1], clip="Z9")])
    with pytest.raises(ValueError, match=r"found no more clips where clips\.parquet has Z9"):
        write(tmp_path / "tokens", shards)
    write_manifest(shards / CLIPS, clips[:-1])
    with pytest.raises(ValueError, match=r"found Z2, which clips\.parquet does not have"):
        write(tmp_path / "tokens", shards)
    write_manifest(shards / CLIPS, [clips[1], clips[0], *clips[2:]])
    with pytest.raises(ValueError, match=r"0\.tar: found A0 where clips\.parquet has A1"):
        write(tmp_path / "tokens", shards)


def test_a_run_that_fails_leaves_no_earlier_description_to_believe(
    tokens: Path, shards: Path
) -> None:
    write_manifest(shards / CLIPS, read_manifest(shards / CLIPS)[1:])
    with pytest.raises(ValueError, match="A0"):
        write(tokens, shards)
    assert not (tokens / TOKENS).exists()


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        (ORIGIN._replace(weights="0b"), "weights is '0a' there and '0b' here"),
        (ORIGIN._replace(precision="bf16-mixed"), "is '32-true' there and 'bf16-mixed' here"),
        (ORIGIN._replace(encoder={"dim": 4}), r"encoder is {'dim': 3} there and {'dim': 4} here"),
    ],
)
def test_tokens_of_another_encoder_are_refused(tokens: Path, origin: Origin, message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*dvc repro encode"):
        encoded(tokens, origin=origin)


def test_tokens_of_other_clips_are_refused_but_labels_may_change(
    tokens: Path, shards: Path
) -> None:
    clips = read_manifest(shards / CLIPS)
    write_manifest(shards / CLIPS, [replace(clips[0], label="sad"), *clips[1:]])
    assert encoded(tokens)[[0, 1]].labels.tolist() == [2, 1]
    write_manifest(shards / CLIPS, [replace(clips[0], content="other"), *clips[1:]])
    with pytest.raises(ValueError, match=r"clips is '[0-9a-f]{64}' there"):
        encoded(tokens)
    write_manifest(shards / CLIPS, clips[1:])
    with pytest.raises(ValueError, match="num_clips is 12 there and 11 here"):
        encoded(tokens)


def test_an_unknown_label_is_an_error_that_names_it(tokens: Path, shards: Path) -> None:
    clips = read_manifest(shards / CLIPS)
    write_manifest(shards / CLIPS, [replace(clips[0], label="bored"), *clips[1:]])
    with pytest.raises(ValueError, match=r"the label of A0 is 'bored', none of \['happy'"):
        encoded(tokens)


def test_an_empty_folder_says_why_it_is_empty(tmp_path: Path, shards: Path) -> None:
    write_no_tokens(tmp_path / "tokens", "the encoder is trained")
    assert json.loads((tmp_path / "tokens" / TOKENS).read_text()) == {
        "empty": "the encoder is trained"
    }
    with pytest.raises(ValueError, match="it is empty, because the encoder is trained"):
        encoded(tmp_path / "tokens")


def test_the_origin_names_sizes_normalisation_weights_and_precision(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    mean, std = torch.tensor([0.5, 0.25, 0]).view(3, 1, 1), torch.ones(3, 1, 1)
    config = {"dim": 8, "drop_path": 0.1}
    assert origin_of(config, mean, std, tmp_path / "weights", "bf16-mixed") == Origin(
        {"dim": 8, "mean": [0.5, 0.25, 0], "std": [1, 1, 1]},
        hashlib.sha256(b"weights").hexdigest(),
        "bf16-mixed",
    )


@pytest.mark.parametrize(
    ("encoder", "flip_probability", "mixup_alpha", "reason"),
    [
        ("frozen", 0.0, 0.0, ""),
        ("full", 0.0, 0.0, "the encoder is trained"),
        ("frozen", 0.5, 0.8, "the frames are augmented: flips, mixup"),
    ],
)
def test_only_a_frozen_encoder_without_augmentation_always_says_the_same(
    encoder: str, flip_probability: float, mixup_alpha: float, reason: str
) -> None:
    found = why_tokens_vary(
        encoder,
        flip_probability=flip_probability,
        rand_augment_ops=0,
        erase_probability=0.0,
        mixup_alpha=mixup_alpha,
        cutmix_alpha=0.0,
    )
    assert found == reason
