import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hosts import Host
from project import ROOT
from sklearn.metrics import recall_score
from small import NEW, NO_AUGMENTATION, NO_MIXING, start_from, task_model, video_encoder
from small_fold import CLASSES, small_params, write_clips

from pipeline.common.clips import read_stored
from pipeline.common.encoder_weights import history_in, read_history
from pipeline.common.files import write_json
from pipeline.folds.folds import GroupFold, write_folds
from pipeline.models.encoder import EncoderSize, VideoMAEEncoder
from pipeline.mtcae.assembly import TrainingParams
from pipeline.mtcae.fold_data import FoldData
from pipeline.mtcae.model import MTCAE
from pipeline.mtcae.recipe import build_model
from pipeline.mtcae.saved import load_model, save_model
from pipeline.store.batch import Batch
from pipeline.store.contents import CLIPS
from pipeline.store.folders import LocalShards, open_shards
from pipeline.store.stored_frames import StoredFrames
from pipeline.store.tokens import write_no_tokens
from pipeline.training import checkpoints
from stages import encode, finetune
from stages.finetune import main


@pytest.fixture
def document() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return document


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A trained model of the tiny size whose encoder takes plain RGB in [0, 1], as MARLIN does."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    size = EncoderSize.model_validate(values["models"]["tiny"]["encoder"])
    encoder = VideoMAEEncoder(size, num_frames=16)
    encoder.mean.fill_(0)
    encoder.std.fill_(1)
    path = tmp_path / "model.safetensors"
    save_model(
        path,
        task_model(encoder, arch="stl", decoder="vit", num_classes=3),
        metadata={},
        history=NEW,
    )
    return path


def build(document: dict[str, Any], checkpoint: Path | None = None, **encoder: object) -> MTCAE:
    """What the stage trains, on its way to the training."""
    document["recipes"]["quick"]["encoder"] |= encoder
    params = TrainingParams.from_document(document)
    return build_model(
        params.structure,
        params.models,
        params.recipes.encoder,
        checkpoint,
        num_frames=params.frames.num_frames,
        num_classes=len(params.classes),
    )


def test_a_frozen_encoder_needs_weights(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"name a checkpoint in encoder\.weights"):
        build(document, mode="frozen")


@pytest.mark.parametrize("mode", ["full", "frozen"])
def test_the_encoder_starts_from_the_checkpoint_with_its_normalisation(
    mode: str, document: dict[str, Any], checkpoint: Path
) -> None:
    model = build(document, checkpoint, mode=mode)
    expected = load_model(checkpoint)[0].encoder
    side = model.encoder.size.image_size
    frames = torch.rand(1, 16, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(model.encoder.eval()(frames), expected(frames), rtol=0, atol=0)
    assert model.encoder.mean.flatten().tolist() == [0, 0, 0]
    trained = {parameter.requires_grad for parameter in model.encoder.parameters()}
    assert trained == {mode == "full"}


def test_the_model_takes_as_many_frames_as_the_clips_have(document: dict[str, Any]) -> None:
    document["frames"]["num_frames"] = 8
    document["models"]["tiny"]["encoder"] |= {"tubelet_size": 8, "image_size": 32}
    predictions = build(document)(torch.rand(1, 8, 3, 32, 32))
    assert predictions.boxes is not None
    assert predictions.boxes.shape == (1, 8, 4)


def test_every_preset_of_model_and_recipe_is_valid(document: dict[str, Any]) -> None:
    for model in document["models"]:
        for recipe in document["recipes"]:
            params = TrainingParams.from_document(document | {"model": model, "recipe": recipe})
            assert params.models.decoder.dim > 0


def test_drop_path_and_checkpointing_reach_the_encoder(document: dict[str, Any]) -> None:
    document["models"]["tiny"]["encoder"]["depth"] = 4
    encoder = build(document, drop_path=0.3, checkpointing=True).encoder
    assert encoder.checkpointing
    # From the first block to the last.
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in encoder.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with clips of six people in two folds, in which the stage runs."""
    write_clips(tmp_path / "shards", (8, 8, 40, 48))
    folds = [
        GroupFold(1, ["a", "b", "c", "d"], ["e"], ["f"]),
        GroupFold(2, ["a", "b", "e", "f"], ["c"], ["d"]),
    ]
    write_folds(tmp_path / "folds.csv", read_stored(tmp_path / "shards" / CLIPS), folds)
    start_from(None, tmp_path / "start")
    write_no_tokens(tmp_path / "tokens", "the encoder is trained")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return tmp_path


def run(params: TrainingParams, out: str, fold: int = 1, shards: str = "shards") -> None:
    start, tokens = Path("start"), Path("tokens")
    data = FoldData.read(fold, open_shards(shards), start, tokens, Path("folds.csv"))
    main(params, data, Path(out))


def scratch_folders(project: Path) -> set[str]:
    return {path.name for path in (project / ".scratch/finetune").iterdir()}


class Killed(BaseException):
    """In the place of a kill."""


@pytest.fixture
def kill_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Kills the training after so many batches were read; 0 never."""
    read = StoredFrames.__getitem__

    def arm(number: int) -> None:
        countdown = iter(range(number, -10_000, -1))

        def reading(self: StoredFrames, numbers: list[int]) -> Batch:
            if next(countdown) == 1:
                raise Killed
            return read(self, numbers)

        monkeypatch.setattr(StoredFrames, "__getitem__", reading)

    return arm


RUNS = ("with", "without")
FILES = ("history.csv", "predictions.parquet", "model.safetensors", "model.json", "metrics.json")


def test_a_killed_fold_goes_on_and_writes_the_same_bytes(
    document: dict[str, Any], project: Path, kill_after: Callable[[int], None]
) -> None:
    params = small_params(document)
    run(params, "whole")
    assert scratch_folders(project) == set()
    kill_after(8)
    with pytest.raises(Killed):
        run(params, "killed")
    assert len(scratch_folders(project)) == 1
    kill_after(0)
    run(params, "killed")
    assert scratch_folders(project) == set()
    for name in FILES:
        assert (project / "killed" / name).read_bytes() == (project / "whole" / name).read_bytes()
    history = pd.read_csv(project / "whole/history.csv")
    assert history["epoch"].tolist() == [1, 2, 3]
    assert not set(history) & {"seconds", "samples_per_second", "data_wait", "peak_memory"}
    description = json.loads((project / "whole/model.json").read_text(encoding="utf-8"))
    assert description["encoder_size"]["dim"] == 32
    assert (description["arch"], description["decoder_size"]["dropout"]) == ("cascaded", 0.1)
    metrics = json.loads((project / "whole/metrics.json").read_text(encoding="utf-8"))
    assert metrics["num_test_clips"] == 3
    predictions = pd.read_parquet(project / "whole/predictions.parquet")
    assert predictions["clip"].tolist() == ["f0", "f1", "f2"]
    np.testing.assert_array_equal(
        np.stack(predictions["times"].tolist()), np.arange(16) / 5 + [[0], [1], [2]]
    )


def test_a_fold_of_clips_on_a_host_is_trained_to_the_same_bytes(
    document: dict[str, Any], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The trainer reads before its worker does: boxes and points, for their variance.
    params = small_params(document, engine={"num_workers": 1})
    run(params, "near")
    monkeypatch.setenv("SHARDS_CACHE", str(project / "cache"))
    with Host() as host:
        address = host.add_folder("/shards", project / "shards")
        (project / "shards").rename(project / "elsewhere")
        run(params, "far", shards=address)
        # The manifest, and every clip of the fold once in all epochs.
        assert len(host.requests) == 1 + 18
    for name in FILES:
        assert (project / "far" / name).read_bytes() == (project / "near" / name).read_bytes()


def test_a_full_device_says_what_to_lower(
    document: dict[str, Any], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

    advice = (
        r"lower engine\.micro_batch_size .* encoder\.checkpointing .* smaller model; .*; "
        "CUDA out of memory"
    )
    # In the training, and in the test of what was trained.
    for owner, name in ((MTCAE, "forward"), (finetune, "evaluate")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(torch.OutOfMemoryError, match=advice):
                run(small_params(document, engine={"epochs": 1}), "out")


def test_a_fold_that_ends_in_its_test_trains_no_epoch_again(
    document: dict[str, Any],
    project: Path,
    kill_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise Killed

    # After the first epoch no state is due for long.
    monkeypatch.setattr(checkpoints, "_SAVE_SHARE", 1e-9)
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "evaluate", fail)
        with pytest.raises(Killed):
            run(small_params(document), "out")
    kill_after(2)  # The test clips are one batch.
    run(small_params(document), "out")
    history = pd.read_csv(project / "out/history.csv")
    assert history["epoch"].tolist() == [1, 2, 3]


def test_a_changed_parameter_and_another_fold_start_afresh(
    document: dict[str, Any],
    project: Path,
    kill_after: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for fold, rate in ((1, 5e-4), (2, 5e-4), (1, 6e-4)):
        kill_after(8)
        with pytest.raises(Killed):
            run(small_params(document, optimizer={"learning_rate": rate}), "out", fold=fold)
        assert "going on" not in capsys.readouterr().out
    assert len(scratch_folders(project)) == 3
    kill_after(0)
    run(small_params(document, optimizer={"learning_rate": 5e-4}), "out", fold=2)
    assert "going on in epoch 2" in capsys.readouterr().out
    assert len(scratch_folders(project)) == 2


def test_other_boxes_in_the_shards_start_afresh(
    document: dict[str, Any],
    project: Path,
    kill_after: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    kill_after(8)
    with pytest.raises(Killed):
        run(small_params(document), "out")
    write_clips(project / "shards", (8, 8, 40, 47))
    kill_after(0)
    run(small_params(document), "out")
    assert "going on" not in capsys.readouterr().out


def test_a_resumed_fold_gives_mlflow_all_its_epochs(
    document: dict[str, Any],
    project: Path,
    kill_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: list[int] = []

    class Log:
        def metrics(self, values: dict[str, float], step: int = 0) -> None:
            if "train_loss" in values:
                logged.append(step)

    class Tracking:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __enter__(self) -> Log:
            return Log()

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(finetune, "track_fold", Tracking)
    kill_after(11)
    with pytest.raises(Killed):
        run(small_params(document), "out")
    assert logged == [1, 2]
    logged.clear()
    kill_after(0)
    run(small_params(document), "out")
    assert logged == [1, 2, 3]


def test_stored_tokens_train_like_the_frozen_encoder_that_they_come_from(
    document: dict[str, Any], project: Path
) -> None:
    encoder = video_encoder(
        dim=32, depth=1, num_heads=4, image_size=56, patch_size=8, tubelet_size=8
    )
    save_model(
        project / "weights.safetensors",
        task_model(encoder, arch="stl", decoder="vit", num_classes=3),
        metadata={},
        history=NEW,
    )
    # Mixup with probability 0 changes nothing, but keeps the tokens from being stored.
    plain: dict[str, dict[str, object]] = {
        "encoder": {"mode": "frozen"},
        "augment": NO_AUGMENTATION.model_dump(),
        "mix": NO_MIXING.model_dump(),
    }
    through = small_params(document, **plain | {"mix": {**plain["mix"], "mixup_alpha": 0.8}})
    start_from(project / "weights.safetensors", project / "start")
    run(through, "through")

    stored = small_params(document, **plain)
    shards, tokens = project / "shards", project / "tokens"
    encode.main(
        encode.Params.from_document(document), LocalShards(shards), project / "start", tokens
    )
    run(stored, "stored")
    tables = [pd.read_parquet(f"{out}/predictions.parquet") for out in ("through", "stored")]
    columns = [f"probability_{name}" for name in CLASSES]
    np.testing.assert_allclose(tables[1][columns], tables[0][columns], atol=2e-3)
    for name in ("train_expression_loss", "validation_loss"):
        curves = [pd.read_csv(f"{out}/history.csv")[name] for out in ("through", "stored")]
        np.testing.assert_allclose(curves[1], curves[0], rtol=2e-3)


def test_the_best_epoch_on_the_test_clips_stands_beside_and_changes_nothing(
    document: dict[str, Any], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(small_params(document, evaluation={"optimistic": True}), "with")
    assert "the best epoch on the test clips themselves" in capsys.readouterr().out
    run(small_params(document, evaluation={"optimistic": False}), "without")
    assert "the best epoch on the test clips" not in capsys.readouterr().out
    for name in ("model.safetensors", "history.csv"):
        assert (project / "with" / name).read_bytes() == (project / "without" / name).read_bytes()
    both, one = (pd.read_parquet(project / name / "predictions.parquet") for name in RUNS)
    pd.testing.assert_frame_equal(both.drop(columns="predicted_optimistic"), one)
    metrics, plain = (json.loads((project / name / "metrics.json").read_text()) for name in RUNS)
    assert metrics["uar_optimistic"] >= metrics["uar"] == plain["uar"]
    labels, predicted = both["actual"], both["predicted_optimistic"]
    found = recall_score(labels, predicted, labels=labels.unique(), average="macro")
    assert metrics["uar_optimistic"] == pytest.approx(found)
    assert metrics.keys() - plain.keys() == {"uar_optimistic", "war_optimistic", "epoch_optimistic"}


def test_a_model_that_has_seen_who_is_tested_cannot_start_the_fold(
    document: dict[str, Any], project: Path
) -> None:
    # Fold 1 trains on a to d and validates on e; fold 2 tests d.
    run(small_params(document), "first")
    start_from(project / "first/model.safetensors", project / "start")
    assert history_in(project / "start").groups == {"sample": ["a", "b", "c", "d", "e"]}
    with pytest.raises(SystemExit, match=r"fold 2 is not trained: .* have seen 1 of the 1 .*\(d\)"):
        run(small_params(document), "second", fold=2)
    # Unless the user wants it, which goes on in the model's own history.
    card = json.loads((project / "start/card.json").read_text(encoding="utf-8"))
    write_json(project / "start/card.json", card | {"allow_seen": True})
    run(small_params(document), "second", fold=2)
    assert "d" in read_history(project / "second/model.safetensors").groups["sample"]
    write_json(project / "start/card.json", card)
    run(small_params(document), "again", fold=1)
    assert read_history(project / "again/model.safetensors").groups == {
        "sample": ["a", "b", "c", "d", "e"]
    }
