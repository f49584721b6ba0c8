"""What holds every clip in memory, at the size of CREMA-D, the largest data set, and beyond.

It must take seconds, and memory that ten times the clips hardly change.
"""

import json
import multiprocessing
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from project import ROOT
from small import NEW, baselines

from pipeline.common.clips import StoredClip, read_stored, write_stored
from pipeline.common.files import write_json
from pipeline.datasets.cremad import list_clips, read_objects, read_sexes
from pipeline.feed.order import Rank, epoch_order, num_steps, shares
from pipeline.folds.folds import Fold, read_fold, refuse_leaks
from pipeline.folds.protocols import SplitSettings
from pipeline.store.folders import LocalShards
from pipeline.store.stored_frames import StoredFrames
from stages import aggregate, split

CLASSES = ["angry", "disgust", "fear", "happy", "neutral", "sad"]
SEVEN_CLASSES = [*CLASSES, "surprised"]
FOLDS = [1, 2, 3, 4, 5]
MAX_SECONDS = 60
MAX_GROWTH_MB = 150


class Cost(NamedTuple):
    """What a call took: wall time, and the most memory that its process had during the call.

    `grown_mb` is how much more that is than before the call.
    """

    seconds: float
    peak_mb: float
    grown_mb: float


def measure(function: Callable[..., None], *arguments: object) -> Cost:
    """Call the function; runs in a process of its own."""
    # Sets the peak back to what is in use now.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before_mb = peak_memory_mb()
    started = time.perf_counter()
    function(*arguments)
    seconds = time.perf_counter() - started
    peak_mb = peak_memory_mb()
    return Cost(seconds, peak_mb, peak_mb - before_mb)


def peak_memory_mb() -> float:
    """Of this process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    return int(peak[1]) / 1000


class Run(NamedTuple):
    """Both stages at one size: their clips, their folder, and what each of them took."""

    clips: list[StoredClip]
    folder: Path
    split: Cost
    aggregate: Cost


def cremad_clips() -> list[StoredClip]:
    """A row for each of the 7,442 published clips."""
    tables = ROOT / "datasets/cremad"
    listed = list_clips(
        read_objects(tables / "files.csv"),
        read_sexes(tables / "actors.csv"),
        keep_known_bad=True,
    )
    return [
        StoredClip(
            clip.clip,
            clip.path,
            group=clip.subject,
            label=clip.label,
            sex=clip.sex,
            content=sha256(clip.clip.encode()).hexdigest(),
        )
        for clip in listed
    ]


def clips_tested(fold: Fold, clips: list[StoredClip]) -> list[StoredClip]:
    return [clips[row] for row in fold.rows(clips, "test")]


def write_run(folder: Path, clips: list[StoredClip]) -> None:
    """What five trained folds leave behind; every fourth clip is taken for the next class."""
    random = np.random.default_rng(1)
    labels = np.array([CLASSES.index(clip.label) for clip in clips])
    predicted = (labels + (np.arange(len(clips)) % 4 == 0)) % len(CLASSES)
    table = pd.DataFrame(
        {
            "clip": [clip.clip for clip in clips],
            "subject": [clip.group for clip in clips],
            "actual": [CLASSES[i] for i in labels],
            "predicted": [CLASSES[i] for i in predicted],
            "box_iou": 0.75,
            "landmark_error": 0.125,
            "interocular_error": 0.25,
            "boxes": list(random.random((len(clips), 16 * 4), np.float32)),
            "points": list(random.random((len(clips), 16 * 10), np.float32)),
            **{f"probability_{name}": random.random(len(clips)) for name in CLASSES},
        }
    )
    parts = []
    for number in FOLDS:
        run = folder / f"runs/fold{number}"
        run.mkdir(parents=True)
        part = table.iloc[read_fold(folder / "folds.csv", number).rows(clips, "test")]
        parts.append(part.drop(columns=["boxes", "points"]).assign(fold=number))
        part.assign(fold=number).to_parquet(run / "predictions.parquet", index=False)
        epochs = pd.DataFrame({"epoch": range(1, 51), "train_loss": 1.0, "validation_uar": 0.5})
        epochs.to_csv(run / "history.csv", index=False)
        write_json(run / "metrics.json", {"num_parameters": 1})
        card = {"name": "from_scratch", "history": NEW.model_dump()}
        metadata = {
            "dataset": "cremad",
            "arch": "cascaded",
            "decoder": "vit",
            "model": "large",
            "recipe": "paper",
            "seed": 1,
            "encoder": card,
            "fold": number,
            "frames": {"segments": 1},
            "recipes": {"evaluation": {"crops": 1}},
        }
        write_json(run / "model.json", {"metadata": metadata})
    baselines(pd.concat(parts), CLASSES).to_parquet(folder / "baselines.parquet", index=False)


def enter(folder: Path) -> None:
    """MLflow's store goes to the current folder."""
    os.chdir(folder)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


SPLIT = SplitSettings(
    protocol="paper", partial=False, num_folds=5, test_fraction=0.2, validation_fraction=0.2
)
SPLIT_PARAMS = split.Params(dataset="cremad", folds=FOLDS, split=SPLIT, seed=1)
AGGREGATE_PARAMS = aggregate.Params(
    dataset="cremad",
    arch="cascaded",
    decoder="vit",
    model="large",
    recipe="paper",
    seed=1,
    folds=FOLDS,
    split=SPLIT,
    classes=CLASSES,
    tracking=aggregate.TrackingParams(log_models=False),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Run]:
    """A tenth of the clips first, which also pays for all that is done once, then all of them."""
    folder = tmp_path_factory.mktemp("scale")
    whole = cremad_clips()
    sets = {len(clips): clips for clips in (whole[5::10], whole)}
    folders = {count: folder / str(count) for count in sets}
    # A forked process would start with the memory of this one.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=enter, initargs=(folder,)) as process:

        def cost(function: Callable[..., None], *arguments: object) -> Cost:
            return process.submit(measure, function, *arguments).result()

        splits, aggregates = {}, {}
        for count, here in folders.items():
            write_stored(here / "clips.parquet", sets[count])
            paths = here / "clips.parquet", here / "folds.csv"
            splits[count] = cost(split.main, SPLIT_PARAMS, *paths)
        for count, here in folders.items():
            write_run(here, sets[count])
            names = ("runs", "clips.parquet", "folds.csv", "baselines.parquet")
            inputs = aggregate.Inputs(*(here / name for name in names))
            outs = here / "predictions.parquet", here / "results"
            aggregates[count] = cost(aggregate.main, AGGREGATE_PARAMS, inputs, *outs)
    return {
        count: Run(sets[count], folders[count], splits[count], aggregates[count]) for count in sets
    }


def test_7442_clips_are_split_evenly_and_without_a_leak(runs: dict[int, Run]) -> None:
    run = runs[7442]
    count = Counter(clip.group for clip in run.clips)
    folds = [read_fold(run.folder / "folds.csv", number) for number in FOLDS]
    subjects = [{clip.group for clip in clips_tested(fold, run.clips)} for fold in folds]
    assert sorted(subject for part in subjects for subject in part) == sorted(count)
    for fold in folds:
        refuse_leaks(fold, run.clips)
        labels = Counter(clip.label for clip in clips_tested(fold, run.clips))
        # A fifth of the clips, give or take what one of the 91 subjects has.
        assert labels.total() == pytest.approx(7442 / 5, abs=82)
        assert labels["sad"] == pytest.approx(1271 / 5, abs=15)


def test_7442_predictions_make_the_tables_of_their_known_errors(runs: dict[int, Run]) -> None:
    results = runs[7442].folder / "results"
    summary = json.loads((results / "summary.json").read_text(encoding="utf-8"))
    assert (summary["folds"], summary["clips"], summary["subjects"]) == (5, 7442, 91)
    # Wrong are clips 0, 4, 8, ... 7440.
    assert summary["war"]["pooled"] == round(1 - 1861 / 7442, 6)
    assert (summary["box_iou"], summary["landmark_error"]) == (0.75, 0.125)
    page = (results / "table.md").read_text(encoding="utf-8")
    assert "Tested: all 7442 clips of all 91 subjects" in page
    folds = pd.read_csv(results / "folds.csv")
    assert (folds["clips"].sum(), folds["subjects"].sum()) == (7442, 91)
    per_class = pd.read_csv(results / "per_class.csv", index_col="class")
    assert per_class["clips"].to_dict() == {**dict.fromkeys(CLASSES, 1271), "neutral": 1087}
    assert len(pd.read_parquet(runs[7442].folder / "predictions.parquet")) == 7442


@pytest.mark.parametrize("stage", ["split", "aggregate"])
def test_7442_clips_take_seconds_and_hardly_more_memory_than_744(
    stage: str, runs: dict[int, Run]
) -> None:
    few, many = (getattr(runs[count], stage) for count in (744, 7442))
    assert many.seconds < MAX_SECONDS
    assert many.peak_mb - few.peak_mb < MAX_GROWTH_MB


def many_clips(count: int) -> list[StoredClip]:
    """Of 1,000 subjects and seven classes, in shards of 1,000 clips that are nowhere."""
    return [
        StoredClip(
            clip=f"clip{i:06}",
            path=f"videos/subject{i % 1000:03}/clip{i:06}.mp4",
            group=f"subject{i % 1000:03}",
            label=SEVEN_CLASSES[i // 1000 % 7],
            sex=("female", "male")[i % 2],
            num_frames=100,
            seconds=4.0,
            content=sha256(f"content {i}".encode()).hexdigest(),
            digest=sha256(f"digest {i}".encode()).hexdigest(),
            shard=f"{i // 1000:06}.tar",
            first_byte=i % 1000 * 100_000,
            end=i % 1000 * 100_000 + 100_000,
            times=np.arange(16) / 4,
        )
        for i in range(count)
    ]


def split_and_begin(manifest: Path, folds: Path) -> None:
    """Make folds, and do all that one of two devices does before it reads a clip of the first."""
    split.main(SPLIT_PARAMS, manifest, folds)
    clips = read_stored(manifest)
    fold = read_fold(folds, 1)
    refuse_leaks(fold, clips)
    training = [clips[row] for row in fold.rows(clips, "train")]
    source = StoredFrames(
        LocalShards(manifest.parent), training, classes=SEVEN_CLASSES, image_size=56
    )
    # Some three fifths: a fifth is tested, and a fifth of the others chooses the epoch.
    assert len(source) == pytest.approx(0.64 * len(clips), rel=0.05)
    order = epoch_order(source.labels, seed=1, epoch=1, class_balanced=True)
    steps = shares(order, epoch=1, batch_size=16, rank=Rank(1, 2))
    assert len(steps) == num_steps(len(source), 16)


@pytest.mark.slow
def test_a_training_on_100000_clips_begins_in_seconds_and_without_a_shard(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        # Few clips first, for all that is done once.
        for count in (10_000, 100_000):
            paths = tmp_path / f"{count}/clips.parquet", tmp_path / f"{count}/folds.csv"
            write_stored(paths[0], many_clips(count))
            cost = process.submit(measure, split_and_begin, *paths).result()
    assert cost.seconds < MAX_SECONDS
    assert cost.grown_mb < 300
