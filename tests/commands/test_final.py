import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from project import ROOT
from small import start_from
from small_fold import CLASSES, small_params, write_clips

from commands.final import UNTESTED, everybody, main, plan_of, read_plan, schedule_of
from pipeline.common.clips import read_stored
from pipeline.common.encoder_weights import read_history
from pipeline.evaluation.fold_files import TrainedFold
from pipeline.feed.order import Rank
from pipeline.folds.folds import GroupFold, write_folds
from pipeline.mtcae.assembly import TrainingParams, assemble, start_model
from pipeline.mtcae.fold_data import FoldData
from pipeline.serving.predictor import load_model
from pipeline.store.batch import Batch
from pipeline.store.contents import CLIPS
from pipeline.store.folders import open_shards
from pipeline.store.stored_frames import StoredFrames
from pipeline.store.tokens import write_no_tokens
from stages import finetune

FILES = ("model.safetensors", "model.json", "history.csv")


def params_of(**changes: dict[str, object]) -> TrainingParams:
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return small_params(document, **changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of six people, and one trained fold."""
    folder: Path = tmp_path_factory.mktemp("project")
    write_clips(folder / "shards", (8, 8, 40, 48))
    people = ["a", "b", "c", "d"], ["e"], ["f"]
    clips = read_stored(folder / "shards" / CLIPS)
    write_folds(folder / "folds.csv", clips, [GroupFold(1, *people)])
    start_from(None, folder / "start")
    write_no_tokens(folder / "tokens", "the encoder is trained")
    places = (folder / "start", folder / "tokens", folder / "folds.csv")
    data = FoldData.read(1, open_shards(str(folder / "shards")), *places)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        finetune.main(params_of(), data, folder / "runs/fold1")
    return folder


@pytest.fixture
def data(trained: Path, monkeypatch: pytest.MonkeyPatch) -> FoldData:
    monkeypatch.chdir(trained)
    return everybody("shards", Path("start"), Path("tokens"))


def history(*rates: float) -> pd.DataFrame:
    return pd.DataFrame({"epoch": range(1, len(rates) + 1), "learning_rate": rates})


def fold_with(best_epoch: int, rates: pd.DataFrame) -> TrainedFold:
    metrics = {"best_epoch": float(best_epoch)}
    return TrainedFold(rates, metrics, pd.DataFrame(), {}, Path("model.safetensors"))


def test_epochs_and_rates_are_the_median_of_the_folds() -> None:
    folds = [
        fold_with(1, history(0.8, 0.1)),
        fold_with(3, history(0.8, 0.6, 0.4, 0.2)),
        fold_with(4, history(0.8, 0.8, 0.2, 0.2)),
        fold_with(4, history(0.8, 0.8, 0.8, 0.2)),
    ]
    epochs, rates = plan_of(folds)
    assert epochs == 3  # the lower of 3 and 4
    # The second epoch: of 0.1, 0.6, 0.8, 0.8; the third: of 0.4, 0.2, 0.8.
    assert rates == pytest.approx([0.8, 0.7, 0.4])


def test_everybody_is_trained_on_for_the_epochs_of_the_folds_and_the_last_one_is_kept(
    trained: Path, data: FoldData
) -> None:
    params = params_of()
    plan = read_plan(Path("runs"), params, Path("start"))
    fold = json.loads(Path("runs/fold1/metrics.json").read_text(encoding="utf-8"))
    assert plan.epochs == fold["best_epoch"]
    main(params, data, plan._replace(epochs=2), Path("runs/final"))
    written = pd.read_csv("runs/final/history.csv")
    assert written["epoch"].tolist() == [1, 2]
    # The first epochs of the recipe's three of four steps: the cosine does not end earlier.
    height = (1 + math.cos(math.pi * 3 / 8)) / 2
    assert written["learning_rate"].tolist() == pytest.approx([1e-3, height * 1e-3])
    assert not [name for name in written if name.startswith("validation")]
    assert read_history(trained / "runs/final/model.safetensors").groups == {
        "sample": ["a", "b", "c", "d", "e", "f"]
    }
    description = json.loads(Path("runs/final/model.json").read_text(encoding="utf-8"))["metadata"]
    assert description["metrics"]["num_training_clips"] == 18
    assert description["clip_seconds"] == data.median_seconds("train")
    predictor = load_model("runs/final")
    assert predictor.classes == CLASSES
    assert predictor.untested == description["untested"] == UNTESTED
    assert load_model("runs/fold1").untested == ""
    assert load_model("runs/fold1", "runs/final").untested == UNTESTED
    assert not list(Path(".scratch/final").iterdir())


class Killed(BaseException):
    """In the place of a kill."""


def test_a_killed_training_goes_on_and_writes_the_same_bytes(
    data: FoldData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    params = params_of()
    plan = read_plan(Path("runs"), params, Path("start"))._replace(epochs=3)
    main(params, data, plan, tmp_path / "whole")
    countdown = iter(range(8, -10_000, -1))
    read: Callable[[StoredFrames, list[int]], Batch] = StoredFrames.__getitem__

    def reading(self: StoredFrames, numbers: list[int]) -> Batch:
        if next(countdown) == 0:
            raise Killed
        return read(self, numbers)

    with monkeypatch.context() as patch:
        patch.setattr(StoredFrames, "__getitem__", reading)
        with pytest.raises(Killed):
            main(params, data, plan, tmp_path / "killed")
    # Another number of epochs is another training.
    main(params, data, plan._replace(epochs=1), tmp_path / "other")
    main(params, data, plan, tmp_path / "killed")
    for name in FILES:
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "killed" / name).read_bytes() == whole
    assert pd.read_csv(tmp_path / "killed/history.csv")["epoch"].tolist() == [1, 2, 3]


def test_in_the_place_of_a_plateau_stand_the_rates_of_the_folds(data: FoldData) -> None:
    params = params_of(schedule={"kind": "plateau"}, optimizer={"learning_rate": 0.5})
    assembly = assemble(params, Rank(), data, start_model(params, data))
    plan = plan_of([fold_with(3, history(0.5, 0.05, 0.005))])
    schedule = schedule_of(params, assembly, plan)
    rates = []
    for _ in range(3 * assembly.batches.steps_per_epoch):
        rates.append(assembly.optimizer.param_groups[0]["lr"])
        assembly.optimizer.step()
        schedule.step()  # type: ignore[call-arg]
    steps = assembly.batches.steps_per_epoch
    assert rates == pytest.approx([0.5] * steps + [0.05] * steps + [0.005] * steps)


def test_folds_of_another_training_say_nothing(trained: Path, tmp_path: Path) -> None:
    params = params_of().model_copy(update={"seed": 2})
    with pytest.raises(ValueError, match=r"trained with other values of seed than params\.yaml"):
        read_plan(trained / "runs", params, trained / "start")
    with pytest.raises(FileNotFoundError, match=re.escape(f"no trained fold in {tmp_path}")):
        read_plan(tmp_path, params, trained / "start")
