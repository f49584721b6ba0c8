"""The affect models through DVC, on small sets."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from clones import Run, client_of, environment, mlflow_runs, new_clone
from project import ROOT

from pipeline.affect.lsd import EXPRESSIONS as LSD_EXPRESSIONS
from pipeline.affect.rendered import IMAGES, TEST_LIST, TRAINING, VALIDATION, write_set
from pipeline.affect.rendered_plan import Settings
from pipeline.affect.results import DESCRIPTION, MODEL
from pipeline.affect.s_aff_wild2 import parse_labels, read_cells
from pipeline.affect.submission import read_test_list

pytestmark = pytest.mark.slow

TRAIN = "data/affect/runs/fold1-seed1"


def make_small(folder: Path, **changes: Any) -> None:
    """Few people, few epochs, a small encoder."""
    path = folder / "affect/params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["sets"]["rendered"] |= {"num_videos": 10, "num_frames": 4}
    params["people"] |= {"num_videos": 10, "num_frames": 4}
    params["split"]["num_folds"] = 2
    params["max_refused"] = 0.2  # The traps are many of so few lines.
    params["folds"] = [1]
    params["models"]["tiny"]["encoder"] |= {"dim": 32, "depth": 1}
    quick = params["recipes"]["quick"]
    for part in (params["prior"]["recipe"], params["small_cnn"], quick):
        part["engine"] |= {"epochs": 2, "early_stop": 2}
        part["schedule"]["warmup_epochs"] = 1
    path.write_text(yaml.safe_dump(params | changes), encoding="utf-8")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """The rendered set, trained once."""
    folder = tmp_path_factory.mktemp("affect")
    run = new_clone(folder)
    make_small(folder)
    run("dvc", "repro", "affect/dvc.yaml")
    return folder, run


def test_a_table_with_constant_predictors_comes_out(clone: tuple[Path, Run]) -> None:
    folder, run = clone
    summary = json.loads((folder / "affect/metrics/summary.json").read_text("utf-8"))
    predictions = pd.read_parquet(folder / TRAIN / "predictions.parquet")
    assert summary["images"] == len(predictions)
    assert summary["constant"]["va_ccc"] == 0
    assert summary["p_mtl"] == pytest.approx(
        summary["va_ccc"] + summary["expression_f1"] + summary["au_f1"], abs=1e-5
    )
    assert "constant predictor" in (folder / "affect/metrics/table.md").read_text("utf-8")
    page = (folder / "reports/affect/index.html").read_text("utf-8")
    assert "Most wrong" in page
    assert "<img" not in page  # report.frames is off
    assert "up to date" in run("dvc", "repro", "affect/dvc.yaml")


def test_mlflow_has_a_run_with_its_folds(clone: tuple[Path, Run]) -> None:
    folder, _ = clone
    parent, child = mlflow_runs(folder, "affect-rendered")
    if "mlflow.parentRunId" in parent.data.tags:
        parent, child = child, parent
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    summary = json.loads((folder / "affect/metrics/summary.json").read_text("utf-8"))
    assert parent.data.metrics["test/p_mtl"] == pytest.approx(summary["p_mtl"])
    points = client_of(folder).get_metric_history(child.info.run_id, "validation/p_mtl")
    assert [point.step for point in points] == [1, 2]


def test_a_clone_without_these_outs_can_be_checked_out(
    clone: tuple[Path, Run], tmp_path: Path
) -> None:
    folder, run = clone
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "--message", "a lock file")
    run("git", "clone", "--quiet", str(folder), str(tmp_path / "other"))
    done = subprocess.run(
        ["dvc", "checkout", "affect/dvc.yaml"],
        cwd=tmp_path / "other",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_training_goes_on_to_the_same_bytes(
    how: signal.Signals, clone: tuple[Path, Run]
) -> None:
    folder, run = clone
    shutil.rmtree(folder / "again", ignore_errors=True)
    expected = {name: (folder / TRAIN / name).read_bytes() for name in (MODEL, DESCRIPTION)}
    inputs = ["sets/rendered", "folds/rendered.csv", "prior", "cnn"]
    command = ["-m", "stages.affect.train", "1", "1", *(f"data/affect/{one}" for one in inputs)]
    process = subprocess.Popen(
        [sys.executable, *command, "again"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("epoch 1"):
            os.killpg(process.pid, how)
    assert process.wait() != 0
    assert not (folder / "again").exists()
    output = run(sys.executable, *command, "again")
    # Stopped, it saves its state; killed, it may have had no time to.
    assert "going on in epoch" in output or how == signal.SIGKILL
    assert {name: (folder / "again" / name).read_bytes() for name in expected} == expected


def test_people_who_are_the_sets_own_are_refused_as_a_prior(clone: tuple[Path, Run]) -> None:
    folder, run = clone
    path = folder / "affect/params.yaml"
    before = path.read_text(encoding="utf-8")
    params = yaml.safe_load(before)
    params["people"]["seed"] = params["sets"]["rendered"]["seed"]
    params |= {"cnn": "none", "va_input": "vit_scores"}
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    output = run("dvc", "repro", "affect/dvc.yaml", fails=True)
    assert "its prior has seen" in output
    path.write_text(before, encoding="utf-8")


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other rendered people, in the layout of s-Aff-Wild2."""
    folder = tmp_path_factory.mktemp("wild")
    write_set(Settings(num_videos=10, num_frames=4, seed=5), folder)
    return folder


def run_on(clone: tuple[Path, Run], name: str, source: Path, **changes: Any) -> str:
    """What DVC says of another set, without a prior and without a CNN."""
    folder, run = clone
    run("git", "checkout", "affect/params.yaml")
    unaided = {"init": "random", "cnn": "none", "va_input": "vit_scores"}
    make_small(folder, set=name, source=str(source), **unaided, **changes)
    return run("dvc", "repro", "affect/dvc.yaml")


def test_s_aff_wild2_in_small_ends_in_a_submission(clone: tuple[Path, Run], wild: Path) -> None:
    folder, _ = clone
    committed = yaml.safe_load((ROOT / "affect/params.yaml").read_text(encoding="utf-8"))
    sets = committed["sets"] | {"s_aff_wild2": {"test_list": TEST_LIST}}
    official = committed["split"] | {"protocol": "official"}
    output = run_on(clone, "s_aff_wild2", wild, sets=sets, split=official)
    assert "lines with a label" in output
    assert "published 142,333" in output
    quality = json.loads((folder / "affect/metrics/data_quality.json").read_text("utf-8"))
    # Two missing images, and both lines of the contradiction.
    assert quality["refused_by_reason"] == {"contradiction": 2, "missing": 2}
    assert {line["list"] for line in quality["refused_lines"]} == {TRAINING}
    listed = read_test_list(wild / TEST_LIST)
    rows = [cells for _, cells in read_cells(folder / TRAIN / "submission.txt")]
    assert [cells[0] for cells in rows] == listed
    assert all(parse_labels(cells) for cells in rows)
    predictions = pd.read_parquet(folder / TRAIN / "predictions.parquet")
    assert len(predictions) == len(read_cells(wild / VALIDATION))


def test_lsds_folders_are_trained_on_and_its_validation_images_are_tested(
    clone: tuple[Path, Run], wild: Path, tmp_path: Path
) -> None:
    folder, _ = clone
    names = ["ANGRER", "DISGUST", "FEAR", "HAPPINESS", "SADNESS", "SURPRISE"]
    pictures = sorted((wild / IMAGES).rglob("*.jpg"))[:36]
    for i, picture in enumerate(pictures):
        part = "validation" if i >= 24 else "training"
        place = tmp_path / part / names[i % 6] / f"{i}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, place)
    committed = yaml.safe_load((ROOT / "affect/params.yaml").read_text(encoding="utf-8"))
    official = committed["split"] | {"protocol": "official"}
    run_on(clone, "lsd", tmp_path, system="single", split=official)
    predictions = pd.read_parquet(folder / TRAIN / "predictions.parquet")
    actual = predictions["actual"].value_counts()
    assert actual.to_dict() == dict.fromkeys(LSD_EXPRESSIONS, 2)
    summary = json.loads((folder / "affect/metrics/summary.json").read_text("utf-8"))
    assert summary["images"] == 12
    assert "va_ccc" not in summary


def test_an_own_table_with_blank_cells_is_scored_on_what_it_knows(
    clone: tuple[Path, Run], wild: Path, tmp_path: Path
) -> None:
    folder, _ = clone
    pictures = sorted((wild / IMAGES).rglob("*.jpg"))
    rows = []
    for i, picture in enumerate(pictures):
        name = f"{picture.parent.name}-{picture.name}"
        shutil.copy(picture, tmp_path / name)
        known = {"valence": f"{i % 9 / 4 - 1}", "arousal": f"{1 - i % 7 / 3:.2f}"}
        labels = (
            known if i % 2 else {"expression": ("happy", "sad")[i % 4 // 2], "au12": i % 3 // 2}
        )
        rows.append({"path": name, "group": picture.parent.name, **labels})
    pd.DataFrame(rows).to_csv(tmp_path / "images.csv", index=False)
    run_on(clone, "custom", tmp_path)
    predictions = pd.read_parquet(folder / TRAIN / "predictions.parquet")
    unnamed = predictions["actual"].isna()
    assert 0 < unnamed.sum() < len(unnamed)
    assert predictions["actual_valence"].notna().tolist() == unnamed.tolist()
    assert predictions["actual_au12"].isna().tolist() == unnamed.tolist()
    assert predictions["actual_au1"].isna().all()
    scores = json.loads((folder / TRAIN / "metrics.json").read_text("utf-8"))
    assert {"va_ccc", "expression_f1", "au_f1"} <= set(scores)
