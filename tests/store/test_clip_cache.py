import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import ROOT

from pipeline.store.clip_cache import FOLDER, GIGABYTES, ClipCache, chosen_cache

KB = bytes(1000)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("??/*")}


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in [*folder.glob("??/*"), *folder.glob("partial")])


def make_old(folder: Path, *names: str) -> None:
    """As if they had been used on other days, the first one longest ago."""
    for days, name in enumerate(reversed(names), start=1):
        used = time.time() - days * 86400
        os.utime(folder / name[:2] / name, (used, used))


def test_a_part_that_was_put_is_found_by_its_name_and_by_others(tmp_path: Path) -> None:
    cache = ClipCache(tmp_path, 10_000)
    cache.put("aa1", b"one")
    cache.put("aa2", b"two")
    assert [cache.get(name) for name in ("aa1", "aa2", "aa3")] == [b"one", b"two", None]
    assert ClipCache(tmp_path, 10_000).get("aa2") == b"two"
    cache.drop("aa2")
    assert (cache.get("aa1"), cache.get("aa2")) == (b"one", None)


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    earlier = ClipCache(tmp_path, 10_000)
    for i in range(10):
        earlier.put(f"aa{i}", KB)
    make_old(tmp_path, *(f"aa{i}" for i in range(10)))
    cache = ClipCache(tmp_path, 10_000)
    assert cache.get("aa0") == KB
    cache.put("bb0", KB)
    # With the new one they fill nine tenths.
    assert names_in(tmp_path) == {"aa0", "bb0", *(f"aa{i}" for i in range(3, 10))}


def test_what_is_in_use_stays_and_nothing_more_is_taken_in(tmp_path: Path) -> None:
    cache = ClipCache(tmp_path, 10_000)
    for _ in range(2):
        for i in range(20):
            if cache.get(f"aa{i:02}") is None:
                cache.put(f"aa{i:02}", KB)
    assert names_in(tmp_path) == {f"aa{i:02}" for i in range(10)}


def test_a_part_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = ClipCache(tmp_path, 10_000)
    cache.put("aa1", bytes(10_001))
    assert names_in(tmp_path) == set()


def test_a_wrong_count_is_mended_when_room_is_made(tmp_path: Path) -> None:
    earlier = ClipCache(tmp_path, 10_000)
    earlier.put("aa1", KB)
    # As after many crashes, and as after a crash of the machine.
    for found in ("9900", "", "no number"):
        (tmp_path / "total").write_text(found)
        cache = ClipCache(tmp_path, 10_000)
        for i in range(9):
            cache.put(f"bb{i}", KB)
        assert names_in(tmp_path) == {"aa1", *(f"bb{i}" for i in range(9))}
        for i in range(9):
            cache.drop(f"bb{i}")


FILL = """
import os, sys
from pathlib import Path
from pipeline.store.clip_cache import ClipCache
seed = sys.argv[2]
for opened in range(20):  # Each time, what was there before may make room.
    cache = ClipCache(Path(sys.argv[1]), 100_000)
    for i in range(30):
        name = f"{(i * 7 + opened) % 50:02}-{seed}-{opened}"
        part = cache.get(name)
        assert part in (None, bytes(3000)), len(part)
        cache.put(name, bytes(3000))
"""


def start_filling(folder: Path, seed: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", FILL, str(folder), str(seed)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_processes_that_share_a_cache_never_exceed_its_bound(tmp_path: Path) -> None:
    processes = [start_filling(tmp_path, seed) for seed in range(3)]
    largest = 0
    while any(process.poll() is None for process in processes):
        with (tmp_path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # Nothing is written or removed meanwhile.
            largest = max(largest, bytes_in(tmp_path))
        time.sleep(0.001)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert 50_000 < largest <= 100_000


def test_a_killed_process_leaves_the_cache_usable_and_no_part_in_pieces(tmp_path: Path) -> None:
    for seed in range(3):
        process = start_filling(tmp_path, seed)
        while not any(f"-{seed}-" in name for name in names_in(tmp_path)):
            time.sleep(0.01)
        time.sleep(0.02 * seed)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert {path.stat().st_size for path in tmp_path.glob("??/*")} == {3000}
    cache = ClipCache(tmp_path, 100_000)
    cache.put("aa", KB)
    assert cache.get("aa") == KB
    assert bytes_in(tmp_path) <= 100_000


def test_the_environment_names_folder_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "here"))
    monkeypatch.setenv(GIGABYTES, "0.5")
    cache = chosen_cache()
    assert (cache.folder, cache.max_bytes) == (tmp_path / "here", 500_000_000)
    monkeypatch.delenv(FOLDER)
    monkeypatch.delenv(GIGABYTES)
    monkeypatch.chdir(tmp_path)
    for free, expected in ((10**12, 10**10), (10**9, 500_000_000)):
        usage = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        cache = chosen_cache()
        assert (cache.folder, cache.max_bytes) == (tmp_path / ".scratch/shards", expected)


@pytest.mark.parametrize("size", ["0", "-1", "ten", "nan", "inf", ""])
def test_a_size_that_is_none_is_refused(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GIGABYTES, size)
    with pytest.raises(ValueError, match=f"SHARDS_CACHE_GB is '{size}'; expected a number of GB"):
        chosen_cache()


def test_a_cache_that_the_disk_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"may take 1e\+09 GB and its disk has room for .* GB"):
        ClipCache(tmp_path, 10**18)
