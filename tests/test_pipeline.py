"""The real stages through DVC, on a small set, in a copy of the repository."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from clones import Run, client_of, lock_of, mlflow_runs, new_clone, undescribed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A small experiment that was run once."""
    folder = tmp_path_factory.mktemp("clone")
    run = new_clone(folder)
    run("dvc", "repro")
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "--message", "first run")
    return folder, run


def test_every_fold_is_trained_and_every_clip_is_tested_once(clone: tuple[Path, Run]) -> None:
    folder, _ = clone
    parts = [pd.read_parquet(folder / f"runs/fold{fold}/predictions.parquet") for fold in (1, 2)]
    predictions = pd.concat(parts)
    assert sorted(predictions["clip"]) == sorted(
        pd.read_parquet(folder / "data/shards/sample/clips.parquet")["clip"]
    )
    summary = json.loads((folder / "metrics/summary.json").read_text(encoding="utf-8"))
    hits = (predictions["actual"] == predictions["predicted"]).mean()
    assert summary["war"]["pooled"] == pytest.approx(hits, abs=1e-6)
    quality = json.loads((folder / "metrics/data_quality.json").read_text(encoding="utf-8"))
    assert (quality["clips"], quality["refused"]) == (28, 0)
    assert quality["detection_rate"] > 0.98


def test_every_column_and_key_is_described(clone: tuple[Path, Run]) -> None:
    folder, _ = clone
    files = [
        *("data/raw/*.parquet", "data/frames/*/clips.parquet", "data/shards/*/clips.parquet"),
        *("data/folds/*.csv", "data/baselines/*.parquet", "data/predictions/*.parquet"),
        *("data/weights/*/card.json", "data/tokens/*/tokens.json"),
        *("runs/*/history.csv", "runs/*/predictions.parquet", "runs/*/metrics.json"),
        *("metrics/*.csv", "metrics/*.json"),
    ]
    assert all(list(folder.glob(pattern)) for pattern in files)
    assert undescribed(folder, *files) == set()


def test_nothing_is_run_again_without_a_change(clone: tuple[Path, Run]) -> None:
    _, run = clone
    assert "Data and pipelines are up to date" in run("dvc", "repro")


def test_what_no_result_rests_on_leaves_everything_clean(clone: tuple[Path, Run]) -> None:
    folder, run = clone
    observer = folder / "pipeline/tracking/runs.py"
    content = observer.read_text(encoding="utf-8")
    observer.write_text(content.replace("dvc_experiment", "experiment_of_dvc"), encoding="utf-8")
    (folder / "runs/notes.txt").write_text("fold 2 looks odd\n", encoding="utf-8")
    (folder / "runs/best").mkdir()
    (folder / "runs/best/model.safetensors").write_bytes(b"a copy")
    # A file of another system.
    (folder / "pipeline/affect/ccc.py").write_text("CCC = 1\n", encoding="utf-8")
    assert "up to date" in run("dvc", "status", "dvc.yaml")
    (folder / "constraints.txt").open("a", encoding="utf-8").write("absent==1\n")
    stale = run("dvc", "status", "dvc.yaml")
    for stage in ("download", "sample", "label", "split", "encode", "finetune@1", "aggregate"):
        assert f"{stage}:" in stale
    run("git", "checkout", "--quiet", ".")
    assert "up to date" in run("dvc", "status", "dvc.yaml")


def test_a_clone_reproduces_every_byte_and_still_tells_mlflow(
    clone: tuple[Path, Run], tmp_path: Path
) -> None:
    folder, _ = clone
    run = new_clone(tmp_path)
    # As in a clone of a repository whose last run is committed.
    shutil.copy(folder / "dvc.lock", tmp_path)
    shutil.copytree(folder / "metrics", tmp_path / "metrics", dirs_exist_ok=True)
    assert "RuntimeWarning" not in run("dvc", "repro")
    assert lock_of(tmp_path) == lock_of(folder)
    (parent,) = (run for run in mlflow_runs(tmp_path) if "fold" not in run.data.tags)
    assert parent.info.status == "FINISHED"
    for name in ("uar_pooled", "linear_uar", "majority_uar", "chance_uar"):
        assert f"test/{name}" in parent.data.metrics


def test_mlflow_has_a_run_of_every_fold_with_its_epochs_below_that_of_the_experiment(
    clone: tuple[Path, Run],
) -> None:
    folder, _ = clone
    client = client_of(folder)
    runs = mlflow_runs(folder)
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert parent.data.tags["arch"] == "cascaded"
    assert all(run.info.status == "FINISHED" for run in runs)
    assert "test/uar_pooled" in parent.data.metrics
    assert len(children) == 2
    for child in children:
        history = client.get_metric_history(child.info.run_id, "validation/uar")
        assert [point.step for point in history] == [1, 2]


def test_a_custom_table_with_bad_rows_is_used_without_them(clone: tuple[Path, Run]) -> None:
    folder, run = clone
    videos = folder / "datasets/custom/videos"
    videos.mkdir()
    rows = ["path,subject,label"]
    for clip in sorted((folder / "data/raw/sample").rglob("*.mp4")):
        shutil.copy(clip, videos)
        parsed = (
            pd.read_parquet(folder / "data/raw/sample.parquet").set_index("clip").loc[clip.stem]
        )
        rows.append(f"{clip.name},{parsed['subject']},{parsed['label']}")
    good = len(rows) - 1
    clip = next(videos.glob("*.mp4"))
    (videos / "cut.mp4").write_bytes(clip.read_bytes()[:2000])
    (videos / "empty.mp4").write_bytes(b"")
    (videos / "text.mp4").write_text("not a video")
    (videos / "pointer.mp4").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    bad = {"cut.mp4": "unreadable", "empty.mp4": "empty", "text.mp4": "unreadable"}
    bad |= {"pointer.mp4": "lfs_pointer", "absent.mp4": "missing"}
    rows += [f"{name},actor_01,happy" for name in bad]
    (folder / "datasets/custom/clips.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")

    refused = run("dvc", "exp", "run", "--set-param", "dataset=custom", "label", fails=True)
    assert "more than quality.max_refused" in refused.replace("\n", " ")
    run(
        *("dvc", "exp", "run", "--set-param", "dataset=custom"),
        *("--set-param", "quality.max_refused=0.5", "split"),
    )
    quality = json.loads((folder / "metrics/data_quality.json").read_text(encoding="utf-8"))
    assert quality["used"] == good
    found = {clip["path"]: (clip["row"], clip["reason"]) for clip in quality["refused_clips"]}
    first_bad_row = good + 2
    assert found == {name: (first_bad_row + i, bad[name]) for i, name in enumerate(bad)}
    shards = pd.read_parquet(folder / "data/shards/custom/clips.parquet")
    assert not set(shards["path"]) & set(bad)
    folds = pd.read_csv(folder / "data/folds/custom.csv")
    assert set(folds["clip"]) == set(shards["clip"])
    run("git", "checkout", "--quiet", ".")


def test_a_fold_that_is_no_longer_listed_stays_out_of_the_lock(clone: tuple[Path, Run]) -> None:
    folder, run = clone
    before = lock_of(folder)["aggregate"]
    # As a fold that was trained before, and taken out of the list.
    shutil.copytree(folder / "runs/fold2", folder / "runs/fold7")
    run("dvc", "repro", "--force", "--single-item", "aggregate")
    after = lock_of(folder)["aggregate"]
    assert [dep for dep in after["deps"] if dep["path"] == "runs"] == [
        dep for dep in before["deps"] if dep["path"] == "runs"
    ]
    assert (folder / "runs/undeclared/fold7/model.safetensors").is_file()
    assert "up to date" in run("dvc", "status", "dvc.yaml")
    run("git", "checkout", "--quiet", ".")
