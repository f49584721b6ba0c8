import os
from pathlib import Path

import pytest
import yaml
from browser import browser_page, compare_runs, mlflow_server
from mlflow import MlflowClient
from project import ROOT

from pipeline.mtcae.structures import STRUCTURES
from pipeline.tracking.experiment import TrackedExperiment
from pipeline.tracking.observer import FoldFiles, log_experiment, track_fold

DIGEST = "0" * 64


def log_structure(arch: str, decoder: str, uar: float, war: float) -> str:
    """Log an experiment of two folds; the name of its run."""
    choices: dict[str, str | int] = {
        "dataset": "sample",
        "arch": arch,
        "decoder": decoder,
        "model": "tiny",
        "recipe": "quick",
        "seed": 1,
    }
    curve = [{"epoch": epoch, "train_loss": 2 / epoch} for epoch in (1.0, 2.0)]
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    experiment = TrackedExperiment(choices, params, DIGEST)
    for fold in (1, 2):
        with track_fold(experiment, fold) as log:
            for line in curve:
                log.metrics(line, step=int(line["epoch"]))
            log.metrics({"uar": uar})
    summary = {"uar_pooled": uar, "war_pooled": war}
    summary |= {f"{name}_{kind}": 0.9 for name in ("uar", "war") for kind in ("mean", "std", "low")}
    folds = {fold: FoldFiles(curve, {"uar": uar}) for fold in (1, 2)}
    log_experiment(experiment, folds, summary, [], {}, {})
    return experiment.name


@pytest.mark.slow
def test_the_comparison_page_shows_uar_and_war_of_six_structures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    scores = {}
    with browser_page() as page:
        for i, (arch, decoder) in enumerate(STRUCTURES):
            uar, war = 0.5123 + i * 0.0307, 0.5456 + i * 0.0311
            scores[log_structure(arch, decoder, uar, war)] = (uar, war)
        client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("dfer-sample")
        assert experiment is not None
        with mlflow_server(tmp_path / "mlflow.db", tmp_path / "mlartifacts") as address:
            text = compare_runs(page, address, experiment.experiment_id, list(scores))
            folder = Path(os.environ.get("TEST_ARTIFACTS", tmp_path))
            folder.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=folder / "mlflow-comparison.png", full_page=True)
    lines = text.splitlines()
    for name, (uar, war) in scores.items():
        assert name in lines
        assert str(round(uar, 3)) in lines
        assert str(round(war, 3)) in lines
