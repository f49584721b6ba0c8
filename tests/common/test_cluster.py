import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from cluster_items import add, add_slowly, crash_on, start
from project import ROOT
from small_cluster import SmallCluster, small_cluster

from pipeline.common import cluster as cluster_module
from pipeline.common.workers import map_in_processes

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
    with pytest.raises(TypeError, match="bad operand type for abs"):
        list(map_in_processes(abs, [-1, "x"], "failing"))
    with pytest.raises(ValueError, match="invalid literal"):
        list(map_in_processes(abs, [1], "failing", initializer=int, initargs=("x",)))


def refusal(folders: list[Path]) -> str:
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
    assert f"does not see {own}/{os.getpid()}/" in refusal([tmp_path, own])
    assert not list(tmp_path.iterdir())


def test_other_code_libraries_or_threads_are_said_with_the_worker(
    on_cluster: SmallCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.common.cluster_worker._PATIENCE_SECONDS", 0)
    on_cluster.await_workers(2)
    late = on_cluster.add_worker(nthreads=2)
    on_cluster.await_workers(3)
    assert "does 2 things at a time in one process: start it with --nthreads 1" in refusal([])
    on_cluster.end(late)
    on_cluster.await_workers(2)
    with monkeypatch.context() as patch:
        patch.setattr(cluster_module, "_versions", lambda: {"numpy": "0.1"})
        assert " and not 0.1: install what requirements.txt says" in refusal([])
    with monkeypatch.context() as patch:
        patch.setattr(cluster_module, "_code", lambda _: {"pipeline/common/files.py": "0"})
        said = refusal([])
    assert f"sees other code in {ROOT}/pipeline/common/files.py than was started here" in said
    assert said.startswith("the worker tcp://127.0.0.1:")


def test_a_scheduler_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "_CONNECT_SECONDS", 1)
    monkeypatch.setenv(ADDRESS, "tcp://127.0.0.1:1")
    assert refusal([]).startswith(
        "the Dask scheduler of DASK_SCHEDULER_ADDRESS=tcp://127.0.0.1:1 cannot be reached"
    )
    monkeypatch.setattr("pipeline.common.workers.find_spec", lambda _: None)
    assert "-r requirements-cluster.txt" in refusal([])


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
