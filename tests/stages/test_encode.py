import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from small import (
    FRAMES,
    LOSS,
    NEW,
    NO_AUGMENTATION,
    NO_MIXING,
    start_from,
    task_model,
    video_encoder,
)
from torch import Tensor, nn

from pipeline.common.clips import Clip, read_stored, write_stored
from pipeline.common.frames import FaceTrack
from pipeline.feed.batches import BatchPlan, LabelledSource, TrainingBatches
from pipeline.feed.order import Rank
from pipeline.models.checkpoints import load_encoder
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.models.start import EncoderTraining, token_origin
from pipeline.mtcae.loss import count, multitask_loss
from pipeline.mtcae.model import MTCAE
from pipeline.mtcae.saved import save_model
from pipeline.mtcae.structures import STRUCTURES, Structure
from pipeline.store.batch import Batch
from pipeline.store.contents import CLIPS
from pipeline.store.folders import LocalShards
from pipeline.store.shards import write_shards
from pipeline.store.stored_frames import StoredFrames
from pipeline.store.strips import encode_strip
from pipeline.store.tokens import TOKENS, StoredTokens
from pipeline.training.optim import OptimizerSettings, adamw
from stages.encode import Params, main

CLASSES = ["happy", "sad"]
SUBJECTS = ["Ann", "Bob"]
SIZE = 32
SHARD_BYTES = 100_000
FROZEN = EncoderTraining(mode="frozen", drop_path=0.0, checkpointing=False)


def tiny_encoder(drop_path: float = 0.0) -> VideoMAEEncoder:
    return video_encoder(dim=24, depth=2, num_heads=2, image_size=SIZE, drop_path=drop_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of three clips of noise each, and the weights of an encoder."""
    folder = tmp_path_factory.mktemp("encode")
    random = np.random.default_rng(0)
    labelled = []
    for subject in SUBJECTS:
        for i in range(3):
            clip = Clip(f"{subject}{i}", "", subject, CLASSES[i % 2], content=f"{subject}{i}")
            frames = random.integers(256, size=(16, SIZE, SIZE, 3), dtype=np.uint8)
            track = FaceTrack(
                boxes=random.uniform(0, SIZE, (16, 4)).astype(np.float32),
                points=random.uniform(0, SIZE, (16, 5, 2)).astype(np.float32),
                mask=random.random(16) < 0.8,
            )
            labelled.append((clip, encode_strip(frames, quality=95), track))
    # The third clip, of some 40 kB each, fills a shard.
    stored = write_shards(folder / "shards", labelled, shard_bytes=SHARD_BYTES)
    assert [clip.shard for clip in stored] == ["000000.tar"] * 3 + ["000001.tar"] * 3
    write_stored(folder / "shards" / CLIPS, stored)
    torch.manual_seed(0)
    model = task_model(tiny_encoder(), arch="stl", decoder="vit", num_classes=2)
    save_model(folder / "model.safetensors", model, metadata={}, history=NEW)
    start_from(folder / "model.safetensors", folder / "start")
    return folder


def params(**changes: object) -> Params:
    values: dict[str, Any] = {
        "frames": FRAMES.model_copy(update={"size": SIZE}),
        "size": tiny_encoder().size,
        "training": FROZEN,
        "augment": NO_AUGMENTATION,
        "mix": NO_MIXING,
        "crops": 1,
        "precision": "32-true",
    }
    return Params.model_validate(values | changes)


def frozen_encoder(weights: Path, drop_path: float = 0.0) -> VideoMAEEncoder:
    """The encoder as finetune builds it."""
    encoder = tiny_encoder(drop_path)
    load_encoder(encoder, weights)
    encoder.freeze()
    return encoder


def from_shards(folder: Path) -> StoredFrames:
    clips = read_stored(folder / "shards" / CLIPS)
    return StoredFrames(LocalShards(folder / "shards"), clips, classes=CLASSES, image_size=SIZE)


def from_tokens(folder: Path, tokens: Path, precision: str = "32-true") -> StoredTokens:
    weights = folder / "model.safetensors"
    origin = token_origin(frozen_encoder(weights), weights, precision)
    clips = read_stored(folder / "shards" / CLIPS)
    return StoredTokens(tokens, clips, range(len(clips)), classes=CLASSES, origin=origin)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_stored_tokens_are_the_encoders_rounded_to_float16(
    folder: Path, tmp_path: Path, precision: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    main(params(precision=precision), LocalShards(folder / "shards"), folder / "start", tmp_path)
    encoder = Fabric(accelerator="cpu", devices=1, precision=precision).setup(
        frozen_encoder(folder / "model.safetensors")
    )
    stored, clips = from_tokens(folder, tmp_path, precision)[[0, 5]], from_shards(folder)[[0, 5]]
    assert stored.inputs.dtype == torch.float16
    assert stored.ids == clips.ids
    exact = encoder(clips.inputs)
    # Half a unit in the last of float16's 11 bits; the last bits also depend on the batch.
    bound = 2**-11 * exact.abs() + (1e-5 if precision == "32-true" else 0.02)
    assert ((stored.inputs.float() - exact).abs() <= bound).all()
    # 32 tokens of 24 numbers of 2 bytes; 16 frames of 14 numbers of 4 bytes and one of 1 byte.
    assert "6 clips of 0.00245 MB are 1.47e-05 GB" in capsys.readouterr().out


def test_a_second_run_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        main(params(), LocalShards(folder / "shards"), folder / "start", tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["000000.npy", "000001.npy", TOKENS]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"training": FROZEN.model_copy(update={"mode": "full"})}, "the encoder is trained"),
        (
            {"mix": NO_MIXING.model_copy(update={"cutmix_alpha": 1.0})},
            "the frames are augmented: cutmix",
        ),
    ],
)
def test_where_tokens_would_not_stay_the_same_none_are_stored_and_nothing_is_read(
    changes: dict[str, object], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "unread").touch()
    start = start_from(tmp_path / "unread", tmp_path / "start")
    main(params(**changes), LocalShards(tmp_path / "no_shards"), start, tmp_path / "tokens")
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == [TOKENS]
    assert reason in (tmp_path / "tokens" / TOKENS).read_text(encoding="utf-8")


def test_a_frozen_encoder_without_weights_is_refused_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"encode: .*name a checkpoint in encoder\.weights"):
        main(
            params(),
            LocalShards(tmp_path / "no_shards"),
            start_from(None, tmp_path / "start"),
            tmp_path,
        )


def test_a_full_device_says_what_to_do(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

    monkeypatch.setattr(VideoMAEEncoder, "forward", fail)
    with pytest.raises(torch.OutOfMemoryError, match=r"end what else uses it, .*; CUDA out"):
        main(params(), LocalShards(folder / "shards"), folder / "start", tmp_path)


def test_a_full_disk_is_noticed_before_anything_is_computed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=6 * 2447))
    with pytest.raises(SystemExit, match="make room"):
        main(params(), LocalShards(folder / "shards"), folder / "start", tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=6 * 2448))
    main(params(), LocalShards(folder / "shards"), folder / "start", tmp_path)


def test_no_choice_of_structure_fold_or_seed_is_a_parameter_of_the_stage() -> None:
    names = Params.dvc_names()
    assert all(
        name in ("encoder", "frames") or name.split(".")[1] in ("${model}", "${recipe}")
        for name in names
    )
    assert not [name for name in names if "decoder" in name or name.count(".") == 1]


def steps(source: LabelledSource) -> list[Batch]:
    """Six steps on four or two of the clips, in the order of training."""
    batches = TrainingBatches(
        source,
        NO_AUGMENTATION,
        BatchPlan(
            batch_size=4,
            class_balanced=False,
            min_steps=1,
            seed=1,
            rank=Rank(),
            num_workers=0,
        ),
    )
    return list(islice(batches.starting_at(1, 0), 6))


def train(
    model: MTCAE, trained: nn.Module, batches: list[Batch]
) -> tuple[list[float], dict[str, Tensor]]:
    """The loss of each step, and the weights of the model after the last.

    Args:
        model: Its weights are returned.
        trained: The part of it that the batches' inputs go into.
        batches: One for each step.
    """
    fabric = Fabric(accelerator="cpu", devices=1)
    settings = OptimizerSettings(learning_rate=1e-3, weight_decay=1e-3, layer_decay=1.0)
    module, optimizer = fabric.setup(trained, adamw(trained, settings))
    module.train()
    torch.manual_seed(2)
    losses = []
    for batch in batches:
        predictions = module(batch.inputs)
        loss = multitask_loss(predictions, batch.targets, LOSS, count(batch.targets)).total
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, {name: value.clone() for name, value in model.state_dict().items()}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float((one[name] - other[name]).square().sum()) for name in one))


@pytest.fixture(scope="module")
def tokens(folder: Path) -> Path:
    main(params(), LocalShards(folder / "shards"), folder / "start", folder / "tokens")
    return folder / "tokens"


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.name)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_training_on_tokens_is_training_through_the_frozen_encoder(
    folder: Path, tokens: Path, structure: Structure, dropout: float
) -> None:
    def build() -> MTCAE:
        # With drop path, which a frozen encoder must leave alone also while the rest trains.
        encoder = frozen_encoder(folder / "model.safetensors", drop_path=0.5)
        torch.manual_seed(1)
        return task_model(
            encoder,
            arch=structure.arch,
            decoder=structure.decoder,
            num_classes=2,
            dim=16,
            num_heads=2,
            head_dim=8,
            num_layers=2,
            dropout=dropout,
            head_dropout=dropout,
        )

    untrained = build()
    with_frames = steps(from_shards(folder))
    with torch.no_grad():
        exact = [replace(batch, inputs=untrained.encoder(batch.inputs)) for batch in with_frames]
    model = build()
    expected_losses, expected = train(model, model, with_frames)
    model = build()
    losses, weights = train(model, model.tasks, exact)
    assert losses == expected_losses
    assert all(torch.equal(weights[name], value) for name, value in expected.items())

    model = build()
    losses, weights = train(model, model.tasks, steps(from_tokens(folder, tokens)))
    # float16 moves a token by one part in 2048 at most. AdamW's first steps are as long along
    # gradients of nearly zero as along others, so there a rounding shows.
    assert losses == pytest.approx(expected_losses, rel=1e-4)
    assert distance(weights, expected) < 0.03 * distance(untrained.state_dict(), expected)
