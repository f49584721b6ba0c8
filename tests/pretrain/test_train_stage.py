import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from project import ROOT
from safetensors.torch import load_file
from small import start_from
from small_collection import (
    look_in_this_process,
    make_pictures,
    make_videos,
    pictures_of,
    videos_of,
)

from pipeline.common.encoder_weights import read_history
from pipeline.common.frames import Frames
from pipeline.models.checkpoints import load_encoder
from pipeline.models.encoder import EncoderSize, VideoMAEEncoder
from pipeline.pretrain.video_clips import VideoClips
from pipeline.tracking.observer import RunLog
from pipeline.training import checkpoints
from pipeline.video.container import unreadable
from stages.pretrain import train
from stages.pretrain.train import Inputs, Outputs, Params, main

SIZES: dict[str, Any] = {
    "videomae": {
        "encoder": {
            "image_size": 32, "patch_size": 16, "tubelet_size": 2, "dim": 24, "depth": 1,
            "num_heads": 2, "stem": "linear",
        },
        "decoder": {"dim": 12, "depth": 1, "num_heads": 2},
    },
    "mae": {
        "encoder": {"image_size": 32, "patch_size": 8, "dim": 24, "depth": 1, "num_heads": 2},
        "decoder": {"dim": 12, "depth": 1, "num_heads": 2},
    },
}  # fmt: skip
ENGINE = {"epochs": 3, "early_stop": 3, "batch_size": 3, "micro_batch_size": 2}


class Killed(BaseException):
    """In the place of a kill, which would end the tests."""


@pytest.fixture
def document() -> dict[str, Any]:
    """Of pretrain/params.yaml, for a training of a second."""
    text = (ROOT / "pretrain/params.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    document["models"]["tiny"] = deepcopy(SIZES)
    document["data"] = "videos"
    document["recipes"]["quick"]["engine"] |= ENGINE
    document["clips"] = {"num_frames": 4, "stride": 2, "seconds_per_clip": 0.5}
    document["watch"] = {"encoder_every": 1, "look_at": [1, 3], "samples": 2}
    return document


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    """Seven clips that are trained on and one or more that are held out; no MLflow."""
    look_in_this_process(monkeypatch)
    monkeypatch.chdir(tmp_path)
    source = make_videos(Path("films"), anna_1=30, bo_1=30, cy_1=30, di_1=30)
    videos_of(source, Path("samples"))
    start_from(None, Path("start"))

    @contextmanager
    def no_log(_: object) -> Iterator[RunLog]:
        yield RunLog(None, "")

    monkeypatch.setattr(train, "track_training", no_log)
    return Inputs(source, Path("samples"), Path("start"))


def outputs(folder: Path) -> Outputs:
    return Outputs(folder, folder / "weights/pretrained.safetensors", folder / "metrics")


def run(document: dict[str, Any], inputs: Inputs, out: Path) -> None:
    main(Params.from_document(document), inputs, outputs(out))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def kill_at(monkeypatch: pytest.MonkeyPatch, reading: int) -> None:
    """The training ends when it has read so many clips."""
    read, readings = VideoClips.read, iter(range(10**6))

    def reading_once(self: VideoClips, number: int, random: Any) -> Frames:
        if next(readings) == reading:
            raise Killed
        return read(self, number, random)

    monkeypatch.setattr(VideoClips, "read", reading_once)


def damage(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """One clip can be read no more."""
    read = VideoClips.read

    def reading(self: VideoClips, number: int, random: Any) -> Frames:
        if self.name(number) == name:
            raise unreadable(Path(self.path(number)), "damaged")
        return read(self, number, random)

    monkeypatch.setattr(VideoClips, "read", reading)


def test_the_files_of_a_pre_training_say_what_was_done(
    document: dict[str, Any], inputs: Inputs, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(document, inputs, out)
    files = contents(out)
    assert set(files) == {
        "encoder.safetensors", "official.pth", "parameters.json", "weights/pretrained.safetensors",
        "epochs/epoch0001.safetensors", "epochs/epoch0002.safetensors",
        "epochs/epoch0003.safetensors", "look/epoch0001.png", "look/epoch0003.png",
        "metrics/history.csv", "metrics/summary.json",
    }  # fmt: skip
    assert files["weights/pretrained.safetensors"] == files["encoder.safetensors"]
    history = pd.read_csv(out / "metrics/history.csv")
    assert list(history) == ["epoch", "learning_rate", "train_loss", "validation_loss", "skipped"]
    summary = json.loads(files["metrics/summary.json"])
    assert summary["loss"] == pytest.approx(history["validation_loss"].min(), rel=1e-5)
    assert summary["num_parameters"] > summary["encoder_parameters"]
    # The held-out samples chose the epoch: they were seen as well.
    seen = read_history(out / "encoder.safetensors")
    assert seen.groups == {"films": ["anna", "bo", "cy", "di"]}
    assert f"films (VideoMAE, {summary['best_epoch']} epochs)" in seen.in_words()
    assert (
        "films (VideoMAE, 1 epochs)"
        in read_history(out / "epochs/epoch0001.safetensors").in_words()
    )
    # The best epoch's encoder is the one that was kept.
    best = load_file(out / f"epochs/epoch{summary['best_epoch']:04}.safetensors")
    for name, value in load_file(out / "encoder.safetensors").items():
        assert torch.equal(value, best[name]), name
    # 2 samples of 3 rows, 4 frames each.
    with Image.open(out / "look/epoch0001.png") as picture:
        assert picture.size == (4 * 114, 2 * (3 * 114 + 8))
    assert not (tmp_path / ".scratch/pretrain").exists() or not any(
        (tmp_path / ".scratch/pretrain").iterdir()
    )


def test_finetuning_takes_the_encoder(
    document: dict[str, Any], inputs: Inputs, tmp_path: Path
) -> None:
    run(document, inputs, tmp_path / "out")
    size = EncoderSize.model_validate(SIZES["videomae"]["encoder"])
    encoder = VideoMAEEncoder(size, num_frames=4)
    report = load_encoder(encoder, tmp_path / "out/weights/pretrained.safetensors")
    assert not report.unexpected
    saved = load_file(tmp_path / "out/encoder.safetensors")
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, saved[f"encoder.{name}"]), name


@pytest.mark.filterwarnings("ignore:skipped")
def test_a_training_killed_anywhere_ends_with_the_same_bytes(
    document: dict[str, Any], inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(monkeypatch, "anna/1.mp4:0:1")
    damage(monkeypatch, "bo/1.mp4:0:0")
    run(document, inputs, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    history = pd.read_csv(tmp_path / "whole/metrics/history.csv")
    assert history["skipped"].between(1, 2).all()
    monkeypatch.setattr(checkpoints, "_SAVE_SECONDS", 0)
    for reading in (0, 4, 7, 11, 17, 23):
        out = tmp_path / f"killed{reading}"
        with monkeypatch.context() as patch:
            kill_at(patch, reading)
            with pytest.raises(Killed):
                run(document, inputs, out)
        # As DVC does it before a stage runs again.
        for path in sorted(out.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        run(document, inputs, out)
        assert contents(out) == whole, f"killed at reading {reading}"


def test_an_encoder_can_be_used_while_the_training_goes_on(
    document: dict[str, Any], inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at(monkeypatch, 25)
    with pytest.raises(Killed):
        run(document, inputs, tmp_path / "out")
    size = EncoderSize.model_validate(SIZES["videomae"]["encoder"])
    path = tmp_path / "out/epochs/epoch0001.safetensors"
    assert load_encoder(VideoMAEEncoder(size, num_frames=4), path).matched
    assert (tmp_path / "out/look/epoch0001.png").exists()


def test_pictures_and_single_frames_train_an_image_mae(
    document: dict[str, Any], inputs: Inputs, tmp_path: Path
) -> None:
    document["method"] = "mae"
    run(document, inputs, tmp_path / "frames")
    faces = make_pictures(tmp_path / "faces", *(f"{name}/1.png" for name in "abcdefg"))
    pictures_of(faces, tmp_path / "pictures")
    document["data"] = "images"
    run(document, inputs._replace(source=faces, samples=tmp_path / "pictures"), tmp_path / "out")
    seen = read_history(tmp_path / "out/encoder.safetensors")
    assert seen.groups == {"faces": list("abcdefg")}
    assert "faces (MAE, " in seen.trained_on
    with Image.open(tmp_path / "out/look/epoch0003.png") as picture:
        assert picture.width == 114


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("recipes.quick.mask_ratio", 0.2, "a mask ratio of 0.2 hides 0 of 4 positions"),
        ("data", "images", "videomae learns from clips, and data: images has single pictures"),
        ("models.tiny.videomae.encoder.image_size", 40, "do not divide into tubelets"),
        ("clips.num_frames", 5, "do not divide into tubelets"),
        ("recipes.quick.schedule.warmup_epochs", 3, "the full rate would never be reached"),
    ],
)
def test_what_does_not_go_together_is_said_at_once(
    name: str, value: object, message: str, document: dict[str, Any], inputs: Inputs, tmp_path: Path
) -> None:
    *parents, last = name.split(".")
    section = document
    for parent in parents:
        section = section[parent]
    section[last] = value
    with pytest.raises(SystemExit, match=message):
        run(document, inputs, tmp_path / "out")


def test_a_mask_ratio_of_one_is_an_error(document: dict[str, Any]) -> None:
    document["recipes"]["quick"]["mask_ratio"] = 1.0
    with pytest.raises(ValueError, match="mask_ratio\n  Input should be less than 1"):
        Params.from_document(document)


def test_every_preset_of_pre_training_is_valid(document: dict[str, Any]) -> None:
    text = (ROOT / "pretrain/params.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    for model in document["models"]:
        for recipe in document["recipes"]:
            params = Params.from_document(document | {"model": model, "recipe": recipe})
            assert params.recipes.engine.batch_size > 0


@pytest.mark.slow
def test_two_processes_pre_train_like_one(
    document: dict[str, Any], inputs: Inputs, tmp_path: Path
) -> None:
    document["recipes"]["quick"]["optimizer"]["rate_per_256"] = 0.01
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain/params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    paths = [*map(str, inputs), *map(str, outputs(Path("two")))]
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*program, "--standalone", "-m", "stages.pretrain.train", *paths],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1 of 3") == 1
    run(document, inputs, tmp_path / "one")
    tables = [pd.read_csv(tmp_path / name / "metrics/history.csv") for name in ("two", "one")]
    np.testing.assert_allclose(tables[0].to_numpy(), tables[1].to_numpy(), rtol=1e-3)
    one, two = (load_file(tmp_path / name / "encoder.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=0, atol=1e-3)
