import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cluster_items import add, add_slowly, crash_on, start
from project import ROOT
from small import (
    FRAMES,
    NEW,
    NO_AUGMENTATION,
    NO_MIXING,
    start_from,
    task_model,
    video_encoder,
)
from small_cluster import SmallCluster, small_cluster
from small_videos import FFMPEG

from pipeline.common import cluster as cluster_module
from pipeline.common.clips import Clip, write_manifest, write_stored
from pipeline.common.frames import FaceTrack
from pipeline.common.params import load_params
from pipeline.common.workers import NO_FOLDERS, Folders, map_in_processes
from pipeline.datasets.sample_faces import render_frames, sample_clips, write_video
from pipeline.models.start import EncoderTraining
from pipeline.mtcae.saved import save_model
from pipeline.store.contents import CLIPS
from pipeline.store.folders import LocalShards
from pipeline.store.shards import write_shards
from pipeline.store.strips import encode_strip
from stages import encode, label, sample

ADDRESS = "DASK_SCHEDULER_ADDRESS"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCluster]:
    with small_cluster(tmp_path_factory.mktemp("cluster"), num_workers=2) as cluster:
        yield cluster


@pytest.fixture
def on_cluster(cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch) -> SmallCluster:
    monkeypatch.setenv(ADDRESS, cluster.address)
    return cluster


def test_results_and_their_order_are_those_of_one_machine(
    on_cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    def results() -> list[tuple[int, str]]:
        return list(map_in_processes(add, range(100), "adding", start, (1000,)))

    from_cluster = results()
    monkeypatch.delenv(ADDRESS)
    assert from_cluster == results() == [(1000 + i, str(tmp_path)) for i in range(100)]


def test_a_worker_that_joins_late_is_prepared_as_the_others(on_cluster: SmallCluster) -> None:
    on_cluster.await_workers(2)
    seen: set[int] = set()
    results = map_in_processes(add_slowly, range(2000), "adding", start, (1000,))
    with closing(results):
        for i, (number, process) in enumerate(results):
            assert number == 1000 + i
            seen.add(process)
            if i == 0:
                late = on_cluster.add_worker()
            if len(seen) == 3:
                break
    assert len(seen) == 3
    on_cluster.end(late)
    on_cluster.await_workers(2)


def test_a_worker_that_is_killed_costs_nothing(on_cluster: SmallCluster) -> None:
    numbers = []
    for number, process in map_in_processes(add_slowly, range(40), "adding", start, (0,)):
        numbers.append(number)
        if number == 5:
            os.kill(process, signal.SIGKILL)
    assert numbers == list(range(40))


def test_an_item_that_ends_every_worker_costs_itself_and_no_other(on_cluster: SmallCluster) -> None:
    results = map_in_processes(
        partial(crash_on, victims=[3]), range(10), "crashing", on_crash=lambda number: -number
    )
    assert list(results) == [-i if i == 3 else i * i for i in range(10)]


def test_what_an_item_raises_is_raised_here(on_cluster: SmallCluster) -> None:
    with pytest.raises(ValueError, match=r"invalid literal for int.*'x'"):
        list(map_in_processes(int, ["1", "x"], "failing"))
    with pytest.raises(ValueError, match=r"invalid literal for int.*'y'"):
        list(map_in_processes(int, ["1"], "failing", initializer=int, initargs=("y",)))


def refusal(folders: Folders = NO_FOLDERS) -> str:
    with pytest.raises(SystemExit) as error:
        list(map_in_processes(add, [1], "adding", start, (0,), folders=folders))
    assert isinstance(error.value.code, str)
    return error.value.code


def test_a_folder_that_a_worker_sees_otherwise_is_named(
    on_cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pipeline.common.cluster_worker._PATIENCE_SECONDS", 0)
    # Under this name every process sees something else.
    own = Path("/proc/self/task")
    assert f"does not see {own}/{os.getpid()}/" in refusal(Folders(read=[own], written=[tmp_path]))
    assert not list(tmp_path.iterdir())


def test_other_code_libraries_or_threads_are_said_with_the_worker(
    on_cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.common.cluster_worker._PATIENCE_SECONDS", 0)
    on_cluster.await_workers(2)
    late = on_cluster.add_worker(nthreads=2)
    on_cluster.await_workers(3)
    assert "does 2 things at a time in one process: start it with --nthreads 1" in refusal()
    on_cluster.end(late)
    on_cluster.await_workers(2)
    with monkeypatch.context() as patch:
        patch.setattr("distributed.versions._version_cached", lambda _: "0.1")
        assert re.search(r"runs other versions .*\n.*\n.*\| toolz +\| 0\.1", refusal(), re.DOTALL)
    with monkeypatch.context() as patch:
        patch.setattr(cluster_module, "_versions", lambda: {"numpy": "0.1"})
        assert " and not 0.1: install what requirements.txt says" in refusal()
    with monkeypatch.context() as patch:
        patch.setattr(cluster_module, "_code", lambda _: {"pipeline/common/files.py": "0"})
        said = refusal()
    assert f"sees other code in {ROOT}/pipeline/common/files.py than was started here" in said
    assert said.startswith("the worker tcp://127.0.0.1:")


def test_a_scheduler_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "_CONNECT_SECONDS", 1)
    monkeypatch.setenv(ADDRESS, "tcp://127.0.0.1:1")
    assert refusal().startswith(
        "the Dask scheduler of DASK_SCHEDULER_ADDRESS=tcp://127.0.0.1:1 cannot be reached"
    )
    monkeypatch.setattr("pipeline.common.workers.find_spec", lambda _: None)
    assert "-r requirements-cluster.txt" in refusal()


def test_a_scheduler_that_is_lost_ends_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_cluster(tmp_path, num_workers=1) as cluster:
        monkeypatch.setenv(ADDRESS, cluster.address)
        results = map_in_processes(add_slowly, range(1000), "adding", start, (0,))
        assert next(results)[0] == 0
        cluster.end(cluster.scheduler)
        with pytest.raises(SystemExit, match=r"was lost after \d+ of 1000 items: start it"):
            list(results)


def in_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.slow
def test_sample_and_label_write_the_bytes_that_one_machine_writes(
    on_cluster: SmallCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    raw, manifest = tmp_path / "raw", tmp_path / "raw.parquet"
    raw.mkdir()
    (raw / "text.mp4").write_text("not a video", encoding="utf-8")
    clips = [Clip("text", "text.mp4", "Ann", "sad")]
    for planned in sample_clips(1, 1)[:3]:
        write_video(render_frames(planned, 1), raw / planned.name, FFMPEG)
        clips.append(Clip(planned.name.partition(".")[0], planned.name, "Ann", "happy"))
    write_manifest(manifest, clips)

    def run(out: Path) -> dict[str, bytes]:
        quality = load_params(label.Params).quality.model_copy(update={"max_refused": 0.5})
        params = load_params(label.Params).model_copy(update={"quality": quality})
        label.main(params, out / "frames", out / "shards", out / "quality.json")
        return in_bytes(out / "frames") | in_bytes(out / "shards") | in_bytes(out)

    # As DVC starts it: the function that is mapped is then one of a script.
    command = [sys.executable, "-m", "stages.sample"]
    subprocess.run([*command, raw, manifest, tmp_path / "cluster/frames"], check=True, cwd=ROOT)
    from_cluster = run(tmp_path / "cluster")
    monkeypatch.delenv(ADDRESS)
    sample.main(load_params(sample.Params), raw, manifest, tmp_path / "here/frames")
    assert from_cluster == run(tmp_path / "here")
    assert [name for name in from_cluster if name.endswith((".jpg", ".tar"))].count("000000.tar")
    assert json.loads(from_cluster["quality.json"])["refused_by_reason"] == {"unreadable": 1}


@pytest.mark.slow
def test_encode_writes_the_bytes_that_one_machine_writes(
    on_cluster: SmallCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    shards = tmp_path / "shards"
    labelled = []
    for name in "abc":
        frames = random.integers(256, size=(16, 32, 32, 3), dtype=np.uint8)
        boxes, points = np.ones((16, 4), np.float32), np.ones((16, 5, 2), np.float32)
        track = FaceTrack(boxes=boxes, points=points, mask=np.ones(16, np.bool_))
        labelled.append((Clip(name, "", "Ann", "sad"), encode_strip(frames, quality=95), track))
    # A shard for each.
    write_stored(shards / CLIPS, write_shards(shards, labelled, shard_bytes=1))
    encoder = video_encoder(dim=24, depth=2, num_heads=2, image_size=32)
    model = task_model(encoder, arch="stl", decoder="vit", num_classes=2)
    save_model(tmp_path / "model.safetensors", model, metadata={}, history=NEW)
    start_from(tmp_path / "model.safetensors", tmp_path / "start")
    params = encode.Params(
        frames=FRAMES.model_copy(update={"size": 32}),
        size=encoder.size,
        training=EncoderTraining(mode="frozen", drop_path=0, checkpointing=False),
        augment=NO_AUGMENTATION,
        mix=NO_MIXING,
        crops=1,
        precision="32-true",
    )
    encode.main(params, LocalShards(shards), tmp_path / "start", tmp_path / "cluster")
    monkeypatch.delenv(ADDRESS)
    encode.main(params, LocalShards(shards), tmp_path / "start", tmp_path / "here")
    assert in_bytes(tmp_path / "cluster") == in_bytes(tmp_path / "here")
    assert len(in_bytes(tmp_path / "here")) == 4
