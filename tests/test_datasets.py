"""Small data sets in their true layouts, from a host or a copy through DVC to the tables."""

import csv
import hashlib
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from clones import Run, mlflow_runs, new_clone
from hosts import Host
from small_in_the_wild import (
    CLIPS,
    WINDOWS,
    WORDS,
    clip_name,
    truncate,
    write_folds,
    write_pictures,
)
from small_ravdess import FFMPEG, SUBJECTS, archives_table, ravdess_archives, rendered_videos

from pipeline.common.frames import Frames
from pipeline.datasets.ravdess import RECORD
from pipeline.datasets.sample_faces import render_frames, sample_clips

pytestmark = pytest.mark.slow

# What a stage does with a clip costs here most of the time: four frames, and one epoch.
FEW = {
    "frames.num_frames": "4",
    "models.tiny.encoder.tubelet_size": "4",
    "recipes.quick.engine.epochs": "1",
    "recipes.quick.evaluation.optimistic": "false",
}


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
    changes = FEW | {"dataset": "ravdess", "datasets.ravdess.address": host.address}
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
        **FEW,
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
    run = new_clone(clone, **FEW, **{"dataset": "mead", "datasets.mead.accept_licence": "true"})
    assert "datasets.mead.source" in run("dvc", "repro", fails=True)
    said = run("dvc", "exp", "run", "--set-param", f"datasets.mead.source={source}")
    assert "M005 lacks angry level 2, angry level 3" in said
    classes = {words.get(emotion, emotion) for emotion in emotions} - {"calm"} | {"contempt"}
    shards = check_experiment(clone, "mead", dict.fromkeys(classes, 4))
    assert set(shards["sex"][shards["group"].str.startswith("W")]) == {"female"}
    unpacked = sorted(path.name for path in (clone / "downloads/mead").iterdir())
    assert unpacked == ["front"]


# Of four people each; the other classes of these data sets are missing in the copies.
EMOTIONS = ("angry", "happy", "sad")
WORD_OF = {
    "dfew": dict(zip(EMOTIONS, "412", strict=True)),
    "mafw": dict(zip(EMOTIONS, ("anger", "happiness", "sadness"), strict=True)),
    "ferv39k": dict(zip(EMOTIONS, ("Angry", "Happy", "Sad"), strict=True)),
}


def rendered_frames() -> list[tuple[str, Frames]]:
    """Emotion and eight frames of each of twelve clips."""
    return [
        (clip.emotion, render_frames(clip, seed=1)[::5])
        for clip in sample_clips(len(SUBJECTS), 1)
        if clip.emotion in EMOTIONS
    ]


def write_copy(root: Path, dataset: str) -> list[str]:
    """Twelve good clips and two bad ones, with lists in Windows' form; the names of the good."""
    rows, good = [], rendered_frames()
    folder = root / CLIPS[dataset]
    for i, (emotion, frames) in enumerate([*good, *good[:2]], start=1):
        word = WORD_OF[dataset][emotion]
        assert word in WORDS[dataset]
        name = clip_name(dataset, i, word)
        rows.append((name, word))
        if dataset == "mafw" and i != 14:
            person = (i - 1) // 3 % len(SUBJECTS) + 1
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(rendered_videos()[person, emotion])
        elif i != 14:
            numbers = [*range(5, 10), *range(10 + i, 13 + i)]
            write_pictures(folder / name, frames, numbers, ".png" if i == 3 else ".jpg")
    if dataset == "mafw":
        truncate(folder / rows[12][0])
    else:
        for picture in (folder / rows[12][0]).iterdir():
            truncate(picture)
    # The first fold tests a clip of each class; the bad ones are in the last.
    write_folds(root, dataset, rows, [3] if dataset == "ferv39k" else [3, 3, 2, 2, 4], WINDOWS)
    return [name for name, _ in rows[:12]]


def test_official_folds_from_copies_to_the_table(tmp_path: Path) -> None:
    accepted = {f"datasets.{dataset}.accept_licence": "true" for dataset in WORD_OF}
    run = new_clone(
        tmp_path / "clone",
        **FEW,
        **accepted,
        **{
            "folds": "[1]",
            "split.protocol": "official",
            "split.partial": "true",
            "quality.max_refused": "0.2",
        },
    )
    for dataset in WORD_OF:
        check_official(run, tmp_path, dataset)


def check_official(run: Run, folder: Path, dataset: str) -> None:
    source, clone = folder / dataset, folder / "clone"
    names = write_copy(source, dataset)
    said = run(
        *("dvc", "exp", "run", "--set-param", f"dataset={dataset}"),
        *("--set-param", f"datasets.{dataset}.source={source}"),
    )
    assert "test of fold 1 lists 3 clips" in said
    assert "12 clips of 12 clips, a face" in said
    quality = json.loads((clone / "metrics/data_quality.json").read_text(encoding="utf-8"))
    assert quality["refused_by_reason"] == {"missing": 1, "unreadable": 1}
    if dataset != "mafw":
        # Every folder has a gap in its numbers, each a longer one.
        assert sorted(clip["holes"] for clip in quality["damaged_clips"]) == list(range(1, 13))
    shards = pd.read_parquet(clone / f"data/shards/{dataset}/clips.parquet")
    assert Counter(shards["label"]) == dict.fromkeys(EMOTIONS, 4)
    assert set(shards["group_kind"]) == {"clip"}
    paths = [f"{CLIPS[dataset]}/{name}" for name in names]
    assert sorted(shards["path"]) == sorted(paths)
    predictions = pd.read_parquet(clone / f"data/predictions/{dataset}.parquet")
    tested = shards[shards["path"].isin(paths[:3])]
    assert sorted(predictions["clip"]) == sorted(tested["clip"])
    page = (clone / "metrics/table.md").read_text(encoding="utf-8")
    assert "**Tested: 3 of 12 clips**" in page
    assert "intervals are over clips, not over people" in page
    assert "it takes 10 clips, and here are 3" in page
    assert "subject" not in page
    report = (clone / f"reports/{dataset}.html").read_text(encoding="utf-8")
    assert "subject" not in report
