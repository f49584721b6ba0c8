"""The recipes for a GPU, through DVC on a CPU: bf16, worker processes, tokens, views, copies."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from clones import Run, mlflow_runs, new_clone
from small import task_model

from pipeline.common.encoder_weights import History, read_history
from pipeline.models.encoder import EncoderSize, VideoMAEEncoder
from pipeline.mtcae.saved import load_model, save_model
from pipeline.store.tokens import TOKENS

pytestmark = pytest.mark.slow

# One of two folds: what is not tested has to be said.
SMALL = {
    "folds": "[1]",
    "encoder.weights": "own.safetensors",
    "recipes.paper.engine.epochs": "2",
    "recipes.paper.engine.num_workers": "2",
    "recipes.full.engine.epochs": "2",
    "recipes.full.engine.num_workers": "2",
    "recipes.full.engine.micro_batch_size": "8",
    "recipes.full.schedule.warmup_epochs": "1",
    "recipes.full.evaluation.crops": "2",
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A project with an encoder of somebody's own, which has seen one person of another set."""
    folder = tmp_path_factory.mktemp("recipes")
    run = new_clone(folder, **SMALL)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    size = EncoderSize.model_validate(params["models"]["tiny"]["encoder"])
    model = task_model(
        VideoMAEEncoder(size, num_frames=16), arch="stl", decoder="vit", num_classes=7
    )
    save_model(
        folder / "weights/own.safetensors",
        model,
        metadata={},
        history=History.empty().with_groups("elsewhere", ["somebody"]),
    )
    return folder, run


def test_recipe_paper_trains_the_decoders_on_tokens_of_a_frozen_encoder(
    clone: tuple[Path, Run],
) -> None:
    folder, run = clone
    said = run("dvc", "exp", "run", "--set-param", "recipe=paper", "--name", "paper", "aggregate")
    assert "encode: 28 clips" in said
    tokens = json.loads((folder / "data/tokens/sample" / TOKENS).read_text(encoding="utf-8"))
    assert (tokens["num_clips"], tokens["precision"]) == (28, "bf16-mixed")
    history = pd.read_csv(folder / "runs/fold1/history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert history["learning_rate"].tolist() == [1e-3, 1e-3]
    # The encoder is the one that it started from.
    (own, _), (trained, metadata) = (
        load_model(folder / path)
        for path in ("weights/own.safetensors", "runs/fold1/model.safetensors")
    )
    for name, weight in own.encoder.state_dict().items():
        assert np.array_equal(weight, trained.encoder.state_dict()[name])
    assert metadata["encoder"]["name"] == "own.safetensors"
    seen = read_history(folder / "runs/fold1/model.safetensors").groups
    assert seen["elsewhere"] == ["somebody"]
    assert len(seen["sample"]) == 2
    page = (folder / "metrics/table.md").read_text(encoding="utf-8")
    assert "**Tested: 14 of 28 clips, 2 of 4 subjects** (folds 1 of 2)" in page
    assert "The encoder (own.safetensors) has seen 1 subject of elsewhere." in page
    assert "best epoch on test" not in page


def test_recipe_full_trains_copies_and_tests_the_mean_of_all_views(
    clone: tuple[Path, Run],
) -> None:
    folder, run = clone
    run(
        *("dvc", "exp", "run", "--set-param", "recipe=full", "--name", "full"),
        *("--set-param", "frames.segments=2", "aggregate"),
    )
    setting = json.loads((folder / "metrics/setting.json").read_text(encoding="utf-8"))
    assert setting["views"] == 4
    assert (setting["coverage"]["clips"], setting["coverage"]["all_clips"]) == (14, 28)
    page = (folder / "metrics/table.md").read_text(encoding="utf-8")
    assert "the mean over 4 views of every test clip" in page
    history = pd.read_csv(folder / "runs/fold1/history.csv")
    assert np.isfinite(history.to_numpy()).all()
    assert history["learning_rate"].iloc[0] == pytest.approx(6.25e-5)
    predictions = pd.read_parquet(folder / "runs/fold1/predictions.parquet")
    # Two samplings of 16 frames.
    assert {len(boxes) for boxes in predictions["boxes"]} == {2 * 16 * 4}
    assert predictions["box_iou"].between(0, 1).all()
    names = [f"probability_{name}" for name in setting["classes"]]
    np.testing.assert_allclose(predictions[names].sum(axis=1), 1, atol=1e-5)


def test_mlflow_tells_the_two_apart_by_their_parameters(clone: tuple[Path, Run]) -> None:
    folder, _ = clone
    parents = [run for run in mlflow_runs(folder) if "fold" not in run.data.tags]
    assert len(parents) == 2
    assert {run.data.params["encoder.name"] for run in parents} == {"own.safetensors"}
    assert {run.data.params["protocol"] for run in parents} == {"paper"}
    assert {run.data.params["tested"] for run in parents} == {"14 of 28 clips, 2 of 4 subjects"}
    rates = {run.data.params["recipes.optimizer.learning_rate"] for run in parents}
    assert rates == {"0.001", "6.25e-05"}
    assert len({run.info.run_name for run in parents}) == 2
