import os
import re
from pathlib import Path

import pytest
import yaml
from browser import browser_page, pages_of_the_project
from playwright.sync_api import expect
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
        folder = Path(os.environ.get("TEST_ARTIFACTS", tmp_path))
        folder.mkdir(parents=True, exist_ok=True)
        with pages_of_the_project(tmp_path) as (address, printed):
            experiments, side_by_side = (line.partition(": ")[2] for line in printed)
            page.goto(experiments)
            page.get_by_role("link", name=next(iter(scores)), exact=True).wait_for()
            table = page.locator("body").inner_text()
            page.screenshot(path=folder / "mlflow-table.png")
            page.goto(side_by_side)
            page.get_by_role("heading", name="Comparing 6 Runs").wait_for()
            expect(page.get_by_role("grid").last).to_contain_text(re.compile(r"\d"))
            text = page.locator("body").inner_text()
            page.screenshot(path=folder / "mlflow-comparison.png", full_page=True)
            page.goto(address)
            page.get_by_text("dfer-sample").first.wait_for()
            assert "Default" not in page.locator("body").inner_text()
    # Best first, a row for each experiment and none for its folds.
    places = [table.index(name) for name in reversed(scores)]
    assert places == sorted(places)
    assert "fold 1" not in table
    assert all(name in table for name in ("arch", "test/uar_pooled", "test/war_pooled"))
    for name, scores_of_run in scores.items():
        assert name in table
        for score in scores_of_run:
            # With all their digits, 0.6044 as 0.604399.
            assert any(line.startswith(str(score)[:5]) for line in table.splitlines())
            assert str(round(score, 3)) in text.splitlines()
        assert name in text.splitlines()
