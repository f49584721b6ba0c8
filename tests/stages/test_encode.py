import math
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor

from pipeline.common.clips import Clip, write_manifest
from pipeline.common.files import write_json
from pipeline.feed.batches import Augmentation, ClipSource, training_batches
from pipeline.models.checkpoints import load_encoder, save_model
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.mtcae.loss import LossWeights, multitask_loss
from pipeline.mtcae.model import MTCAE
from pipeline.mtcae.structures import STRUCTURES
from pipeline.store.shards import CLIPS, SHARD_NAMES, Batch, Clips, subject_shards, write_shard
from pipeline.store.strips import encode_strip
from pipeline.store.tokens import TOKENS, EncodedClips, origin_of
from pipeline.training.optim import adamw
from pipeline.video.tracks import FaceTrack
from stages.encode import Params, main

CLASSES = ["happy", "sad"]
SUBJECTS = ["Ann", "Bob"]
SIZE = 32


def tiny_encoder(drop_path: float = 0.0) -> VideoMAEEncoder:
    return VideoMAEEncoder(dim=24, depth=2, num_heads=2, image_size=SIZE, drop_path=drop_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of two subjects with three clips of noise each, and the weights of an encoder."""
    folder = tmp_path_factory.mktemp("encode")
    random = np.random.default_rng(0)
    clips = []
    for subject in SUBJECTS:
        labelled = []
        for i in range(3):
            clip = Clip(f"{subject}{i}", "", subject, CLASSES[i % 2], content=f"{subject}{i}")
            frames = random.integers(256, size=(16, SIZE, SIZE, 3), dtype=np.uint8)
            track = FaceTrack(
                boxes=random.uniform(0, SIZE, (16, 4)).astype(np.float32),
                points=random.uniform(0, SIZE, (16, 5, 2)).astype(np.float32),
                mask=random.random(16) < 0.8,
            )
            labelled.append((clip, encode_strip(frames, quality=95), track))
            clips.append(clip)
        write_shard(folder / "shards" / f"{subject}.tar", labelled)
    write_json(folder / "shards" / SHARD_NAMES, {subject: f"{subject}.tar" for subject in SUBJECTS})
    write_manifest(folder / "shards" / CLIPS, clips)
    torch.manual_seed(0)
    model = MTCAE(tiny_encoder(), arch="stl", decoder="vit", num_classes=2)
    save_model(folder / "model.safetensors", model, metadata={})
    return folder


def params(weights: Path, **changes: object) -> Params:
    values: dict[str, Any] = {
        "encoder": {"weights": weights},
        "frames": {"num_frames": 16},
        "image_size": SIZE,
        "patch_size": 16,
        "tubelet_size": 2,
        "encoder_dim": 24,
        "encoder_depth": 2,
        "encoder_heads": 2,
        "trained": "frozen",
        "flip_probability": 0.0,
        "rand_augment_ops": 0,
        "erase_probability": 0.0,
        "mixup_alpha": 0.0,
        "cutmix_alpha": 0.0,
        "precision": "32-true",
    }
    return Params.model_validate(values | changes)


def frozen_encoder(weights: Path, drop_path: float = 0.0) -> VideoMAEEncoder:
    """The encoder as finetune builds it."""
    encoder = tiny_encoder(drop_path)
    load_encoder(encoder, weights)
    encoder.freeze()
    return encoder


def from_shards(folder: Path) -> Clips:
    return Clips(subject_shards(folder / "shards", SUBJECTS), classes=CLASSES, image_size=SIZE)


def from_tokens(folder: Path, tokens: Path, precision: str = "32-true") -> EncodedClips:
    weights = folder / "model.safetensors"
    encoder = frozen_encoder(weights)
    origin = origin_of(encoder.config, encoder.mean, encoder.std, weights, precision)
    return EncodedClips(tokens, folder / "shards", SUBJECTS, classes=CLASSES, origin=origin)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_stored_tokens_are_the_encoders_rounded_to_float16(
    folder: Path, tmp_path: Path, precision: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    main(params(folder / "model.safetensors", precision=precision), folder / "shards", tmp_path)
    encoder = Fabric(accelerator="cpu", devices=1, precision=precision).setup(
        frozen_encoder(folder / "model.safetensors")
    )
    stored, clips = from_tokens(folder, tmp_path, precision)[[0, 5]], from_shards(folder)[[0, 5]]
    assert stored.tokens is not None
    assert stored.clips == clips.clips
    exact = encoder(clips.frames / 255)
    # Half a unit in the last of float16's 11 bits; the last bits also depend on the batch.
    bound = 2**-11 * exact.abs() + (1e-5 if precision == "32-true" else 0.02)
    assert ((stored.tokens.float() - exact).abs() <= bound).all()
    # 32 tokens of 24 numbers of 2 bytes; 16 frames of 14 numbers of 4 bytes and one of 1 byte.
    assert "6 clips of 0.00245 MB are 1.47e-05 GB" in capsys.readouterr().out


def test_a_second_run_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        main(params(folder / "model.safetensors"), folder / "shards", tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["Ann.npy", "Bob.npy", TOKENS]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trained": "full"}, "the encoder is trained"),
        ({"cutmix_alpha": 1.0}, "the frames are augmented: cutmix"),
    ],
)
def test_where_tokens_would_not_stay_the_same_none_are_stored_and_nothing_is_read(
    changes: dict[str, object], reason: str, tmp_path: Path
) -> None:
    main(params(Path("no_weights"), **changes), tmp_path / "no_shards", tmp_path / "tokens")
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == [TOKENS]
    assert reason in (tmp_path / "tokens" / TOKENS).read_text(encoding="utf-8")


def test_a_frozen_encoder_without_weights_is_refused_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"encode: .*name a checkpoint in encoder\.weights"):
        main(params(Path("weights/from_scratch")), tmp_path / "no_shards", tmp_path)


def test_a_full_device_says_what_to_do(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

    monkeypatch.setattr(VideoMAEEncoder, "forward", fail)
    with pytest.raises(torch.OutOfMemoryError, match=r"end what else uses it, .*; CUDA out"):
        main(params(folder / "model.safetensors"), folder / "shards", tmp_path)


def test_a_full_disk_is_noticed_before_anything_is_computed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=6 * 2447))
    with pytest.raises(SystemExit, match="make room"):
        main(params(folder / "model.safetensors"), folder / "shards", tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=6 * 2448))
    main(params(folder / "model.safetensors"), folder / "shards", tmp_path)


def test_no_choice_of_structure_fold_or_seed_is_a_parameter_of_the_stage() -> None:
    names = Params.dvc_names()
    assert all(
        name in ("encoder", "frames") or name.split(".")[1] in ("${model}", "${recipe}")
        for name in names
    )
    assert not [name for name in names if "decoder" in name or name.count(".") == 1]


def steps(clips: ClipSource) -> list[Batch]:
    """Six steps on four or two of the clips, in the order of training."""
    batches = training_batches(
        clips,
        first_epoch=1,
        first_step=0,
        batch_size=4,
        rank=0,
        world_size=1,
        class_balanced=False,
        augmentation=Augmentation(),
        seed=1,
        num_workers=0,
    )
    return list(islice(batches, 6))


def train(model: MTCAE, batches: list[Batch]) -> tuple[list[float], dict[str, Tensor]]:
    """The loss of each step, and the weights after the last."""
    fabric = Fabric(accelerator="cpu", devices=1)
    module, optimizer = fabric.setup(
        model, adamw(model, learning_rate=1e-3, weight_decay=1e-3, layer_decay=1.0)
    )
    module.train()
    torch.manual_seed(2)
    losses = []
    for batch in batches:
        if batch.tokens is None:
            predictions = module(batch.frames / 255)
        else:
            predictions = module(batch.tokens, encoded=True)
        loss = multitask_loss(
            predictions, batch.boxes, batch.points, batch.mask, batch.labels, weights=LossWeights()
        ).total
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, {name: value.clone() for name, value in model.state_dict().items()}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float((one[name] - other[name]).square().sum()) for name in one))


@pytest.fixture(scope="module")
def tokens(folder: Path) -> Path:
    main(params(folder / "model.safetensors"), folder / "shards", folder / "tokens")
    return folder / "tokens"


@pytest.mark.parametrize(("arch", "decoder"), STRUCTURES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_training_on_tokens_is_training_through_the_frozen_encoder(
    folder: Path, tokens: Path, arch: str, decoder: str, dropout: float
) -> None:
    def build() -> MTCAE:
        # With drop path, which a frozen encoder must leave alone also while the rest trains.
        encoder = frozen_encoder(folder / "model.safetensors", drop_path=0.5)
        torch.manual_seed(1)
        return MTCAE(
            encoder,
            arch=arch,
            decoder=decoder,
            num_classes=2,
            decoder_dim=16,
            decoder_heads=2,
            decoder_head_dim=8,
            decoder_layers=2,
            dropout=dropout,
            head_dropout=dropout,
        )

    untrained = build()
    with_frames = steps(from_shards(folder))
    with torch.no_grad():
        exact = [
            batch._replace(tokens=untrained.encoder(batch.frames / 255)) for batch in with_frames
        ]
    expected_losses, expected = train(build(), with_frames)
    losses, weights = train(build(), exact)
    assert losses == expected_losses
    assert all(torch.equal(weights[name], value) for name, value in expected.items())

    losses, weights = train(build(), steps(from_tokens(folder, tokens)))
    # float16 moves a token by one part in 2048 at most. AdamW's first steps are as long along
    # gradients of nearly zero as along others, so there a rounding shows.
    assert losses == pytest.approx(expected_losses, rel=1e-4)
    assert distance(weights, expected) < 0.03 * distance(untrained.state_dict(), expected)
