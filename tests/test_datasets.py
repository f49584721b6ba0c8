"""Small RAVDESS, CREMA-D and MEAD in their true layouts, from a host through DVC to the tables."""

import csv
import hashlib
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from clones import mlflow_runs, new_clone
from hosts import Host
from small_ravdess import FFMPEG, SUBJECTS, archives_table, ravdess_archives, rendered_videos

from pipeline.datasets.ravdess import RECORD

pytestmark = pytest.mark.slow


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


def check_experiment(folder: Path, dataset: str, labels: dict[str, int]) -> pd.DataFrame:
    """Every clip is labelled, in one fold's test part, predicted, and told to MLflow."""
    shards = pd.read_parquet(folder / f"data/shards/{dataset}/clips.parquet")
    assert Counter(shards["label"]) == labels
    folds = pd.read_csv(folder / f"data/folds/{dataset}.csv", index_col="clip", dtype=str)
    assert sorted(folds.index) == sorted(shards["clip"])
    assert ((folds == "test").sum(axis=1) == 1).all()
    predictions = pd.read_parquet(folder / f"data/predictions/{dataset}.parquet")
    assert sorted(predictions["clip"]) == sorted(shards["clip"])
    truth = shards.set_index("clip")["label"]
    assert (predictions["actual"] == predictions["clip"].map(truth)).all()
    parents = [run for run in mlflow_runs(folder, f"dfer-{dataset}") if "fold" not in run.data.tags]
    assert [run.info.status for run in parents] == ["FINISHED"]
    return shards


def test_ravdess_from_its_record_to_the_table(host: Host, tmp_path: Path) -> None:
    archives = ravdess_archives()
    host.add_record(RECORD, archives | {"Audio_Song_Actors_01-24.zip": b"not asked"})
    changes = {"dataset": "ravdess", "datasets.ravdess.address": host.address}
    run = new_clone(tmp_path, **changes)
    table = tmp_path / "datasets/ravdess/files.csv"
    table.write_text(archives_table(archives), encoding="utf-8")
    terms = run("dvc", "repro", fails=True)
    assert "CC BY-NC-SA" in terms
    assert "datasets.ravdess.accept_licence=true" in terms.replace("\n", " ")
    assert not (tmp_path / "downloads").exists()

    accepted = ("--set-param", "datasets.ravdess.accept_licence=true")
    said = run("dvc", "exp", "run", *accepted)
    assert "no clips of actor_05, actor_06" in said
    labels = dict.fromkeys(("angry", "disgust", "fear", "happy", "sad", "surprised"), 4)
    shards = check_experiment(tmp_path, "ravdess", {**labels, "neutral": 8})
    assert set(shards["group"]) == {f"actor_{i:02}" for i in SUBJECTS}
    assert all(name.startswith("02-01-") for name in shards["clip"])
    assert not list((tmp_path / "downloads/ravdess").glob("*.zip"))

    # Calm as a class of its own needs nothing from the host again.
    host.requests.clear()
    classes = "[angry,calm,disgust,fear,happy,neutral,sad,surprised]"
    run(
        "dvc",
        "exp",
        "run",
        *accepted,
        "--set-param",
        f"datasets.ravdess.classes={classes}",
        "split",
    )
    shards = pd.read_parquet(tmp_path / "data/shards/ravdess/clips.parquet")
    assert Counter(shards["label"]) == {**labels, "neutral": 4, "calm": 4}
    assert host.requests == []


def test_cremad_from_lfs_objects_to_the_table(host: Host, tmp_path: Path) -> None:
    codes = {"ANG": "angry", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "SAD": "sad"}
    codes["NEU"] = "neutral"
    objects: list[bytes] = []
    rows = []
    for subject in SUBJECTS:
        for code, emotion in codes.items():
            name = tmp_path / f"{1000 + subject}_DFA_{code}_XX.flv"
            # As the published files: Sorenson video in FLV.
            subprocess.run(
                [FFMPEG, "-i", "pipe:", "-c:v", "flv1", "-q:v", "3", str(name)],
                input=rendered_videos()[subject, emotion],
                capture_output=True,
                check=True,
            )
            data = name.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            objects.append(data)
            rows.append((f"VideoFlash/{name.name}", digest, len(data)))
    host.add_lfs("lab/CREMA-D", objects)
    clone = tmp_path / "clone"
    run = new_clone(
        clone,
        **{
            "dataset": "cremad",
            "datasets.cremad.address": f"{host.address}/lab/CREMA-D.git",
            "datasets.cremad.accept_licence": "true",
        },
    )
    with (clone / "datasets/cremad/files.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "sha256", "size"), *rows])
    run("dvc", "repro")
    shards = check_experiment(clone, "cremad", dict.fromkeys(codes.values(), 4))
    # Actor 1001 is a man, 1002 to 1004 are women: the published table of actors.
    assert dict(zip(shards["group"], shards["sex"], strict=True)) == {
        "1001": "male",
        **dict.fromkeys(("1002", "1003", "1004"), "female"),
    }

    # An existing clone is used in place: same pictures, nothing fetched.
    before = len(host.requests)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(clone / "downloads/cremad", elsewhere)
    pointer = next((elsewhere / "VideoFlash").glob("1004_*.flv"))
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    said = run(
        *("dvc", "exp", "run", "--set-param", f"datasets.cremad.source={elsewhere}"),
        *("--set-param", "quality.max_refused=0.1", "split"),
    )
    assert f"{pointer.name} is a Git LFS pointer" in said
    again = pd.read_parquet(clone / "data/shards/cremad/clips.parquet").set_index("clip")
    same = shards.set_index("clip").drop(pointer.stem)
    assert again["content"].to_dict() == same["content"].to_dict()
    assert len(host.requests) == before


def test_mead_from_archives_and_folders_to_the_table(tmp_path: Path) -> None:
    words = {"disgusted": "disgust", "contempt": "calm"}  # something to look at for contempt
    emotions = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")
    source = tmp_path / "mead"
    for subject, actor in zip(SUBJECTS, ("M003", "M005", "W009", "W011"), strict=True):
        for emotion in emotions:
            for view in ("front", "top"):
                path = source / actor / f"video/{view}/{emotion}/level_1/001.mp4"
                path.parent.mkdir(parents=True)
                path.write_bytes(rendered_videos()[subject, words.get(emotion, emotion)])
    # Two of the four actors are still packed.
    for actor in ("M003", "W009"):
        shutil.make_archive(str(source / f"{actor}/video"), "tar", source / actor, "video")
        shutil.rmtree(source / f"{actor}/video")
    clone = tmp_path / "clone"
    run = new_clone(clone, **{"dataset": "mead", "datasets.mead.accept_licence": "true"})
    assert "datasets.mead.source" in run("dvc", "repro", fails=True)
    said = run("dvc", "exp", "run", "--set-param", f"datasets.mead.source={source}")
    assert "M005 lacks angry level 2, angry level 3" in said
    classes = {words.get(emotion, emotion) for emotion in emotions} - {"calm"} | {"contempt"}
    shards = check_experiment(clone, "mead", dict.fromkeys(classes, 4))
    assert set(shards["sex"][shards["group"].str.startswith("W")]) == {"female"}
    unpacked = sorted(path.name for path in (clone / "downloads/mead").iterdir())
    assert unpacked == ["front"]
