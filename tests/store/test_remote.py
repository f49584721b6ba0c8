import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from hosts import Fault, Host
from project import ROOT

from pipeline.common.clips import Clip, StoredClip, write_stored
from pipeline.common.frames import FaceTrack
from pipeline.common.hosts import RetryPolicy
from pipeline.feed.loader import load_in_order
from pipeline.store.batch import Batch
from pipeline.store.clip_cache import ClipCache
from pipeline.store.contents import CLIPS
from pipeline.store.folders import LocalShards, Shards, open_shards, read_clips, read_contents
from pipeline.store.remote import RemoteShards
from pipeline.store.shards import write_shards
from pipeline.store.stored_frames import StoredFrames
from pipeline.store.strips import encode_strip

NUM_FRAMES, SIZE, NUM_CLIPS = 4, 16, 20
POLICY = RetryPolicy(attempts=3, connect_s=10, stall_s=10, pause_s=0.01)
# For a host that falls silent; on a busy machine any host does for a moment.
IMPATIENT = POLICY._replace(stall_s=0.6)


def write_folder(folder: Path, *, brightness: int = 60) -> list[StoredClip]:
    """Twenty grey clips, eight to a shard or so, with a manifest."""
    track = FaceTrack(
        np.full((NUM_FRAMES, 4), 8, np.float32),
        np.full((NUM_FRAMES, 5, 2), 4, np.float32),
        np.ones(NUM_FRAMES, np.bool_),
    )
    labelled = []
    for i in range(NUM_CLIPS):
        frames = np.full((NUM_FRAMES, SIZE, SIZE, 3), brightness + 5 * i, np.uint8)
        clip = Clip(f"c{i:02}", f"c{i:02}.mp4", "Ann", "sad")
        labelled.append((clip, encode_strip(frames, quality=95), track))
    clips = write_shards(folder, labelled, shard_bytes=50_000)
    assert Counter(clip.shard for clip in clips).most_common()[-1][1] > 1
    write_stored(folder / CLIPS, clips)
    return clips


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "shards")
    return tmp_path / "shards"


@pytest.fixture
def host(folder: Path) -> Iterator[Host]:
    with Host() as host:
        host.add_folder("/shards", folder)
        yield host


def remote(
    address: str, cache: Path, policy: RetryPolicy = POLICY, max_bytes: int = 10**7
) -> RemoteShards:
    return RemoteShards(address, ClipCache(cache, max_bytes), policy)


def frames_of(shards: Shards) -> StoredFrames:
    return StoredFrames(shards, read_clips(shards), classes=["sad"], image_size=SIZE)


def load(source: StoredFrames, num_workers: int = 0) -> list[Batch]:
    return list(load_in_order(source, batch_size=6, num_workers=num_workers))


def assert_equal(some: list[Batch], same: list[Batch]) -> None:
    for one, other in zip(some, same, strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.inputs, other.inputs)
        for name in ("boxes", "points", "expression"):
            assert torch.equal(one.targets[name].values, other.targets[name].values)


def asked_for(host: Host) -> Counter[tuple[str, str | None]]:
    return Counter((request.path, request.range) for request in host.requests)


def places(clips: list[StoredClip]) -> Counter[tuple[str, str | None]]:
    return Counter(
        (f"/shards/{clip.shard}", f"bytes={clip.first_byte}-{clip.end - 1}") for clip in clips
    )


MANIFEST = Counter({(f"/shards/{CLIPS}", None): 1})


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_from_a_host_are_those_from_the_disk(
    num_workers: int, folder: Path, host: Host, tmp_path: Path
) -> None:
    local = load(frames_of(LocalShards(folder)))
    source = frames_of(remote(f"{host.address}/shards/", tmp_path / "cache"))
    assert_equal(load(source, num_workers), local)
    # The manifest and every clip came once, and no other byte.
    clips = read_clips(LocalShards(folder))
    assert asked_for(host) == MANIFEST + places(clips)
    assert_equal(load(source, num_workers), local)
    assert len(host.requests) == 1 + NUM_CLIPS


def test_a_process_reads_before_and_after_its_workers_do(
    folder: Path, host: Host, tmp_path: Path
) -> None:
    # No clip is found in the cache, which holds none; connections of the parent stay open.
    source = frames_of(remote(f"{host.address}/shards", tmp_path / "cache", max_bytes=1))
    local = load(frames_of(LocalShards(folder)))
    for num_workers in (0, 2, 0, 2, 0):
        assert_equal(load(source, num_workers), local)
    # Nothing had to be asked for a second time.
    clips = read_clips(LocalShards(folder))
    assert asked_for(host) == MANIFEST + Counter(dict.fromkeys(places(clips), 5))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_from_memory_are_those_from_the_disk(
    num_workers: int, folder: Path, tmp_path: Path
) -> None:
    memory = fsspec.filesystem("memory")
    for file in folder.iterdir():
        memory.pipe_file(f"/store/shards/{file.name}", file.read_bytes())
    try:
        source = frames_of(remote("memory://store/shards", tmp_path / "cache"))
        assert_equal(load(source, num_workers), load(frames_of(LocalShards(folder))))
        memory.rm_file("/store/shards/000001.tar")
        message = r"memory://store/shards/000001\.tar: c\d\d cannot be read: there is no such file"
        with pytest.raises(FileNotFoundError, match=message):
            load(frames_of(remote("memory://store/shards", tmp_path / "empty")))
    finally:
        memory.rm("/store", recursive=True)


def test_a_clip_that_comes_twice_in_a_batch_is_asked_for_once(host: Host, tmp_path: Path) -> None:
    source = frames_of(remote(f"{host.address}/shards", tmp_path / "cache", max_bytes=1))
    batch = source[[3, 7, 3, 3]]
    assert batch.ids == ["c03", "c07", "c03", "c03"]
    # The grey of clip i is 60 + 5 i.
    greys = batch.inputs.float().mean(dim=(1, 2, 3, 4))
    assert greys.tolist() == pytest.approx([75, 95, 75, 75], abs=1)
    assert len(host.requests) == 1 + 2


def test_clips_that_change_at_the_host_are_not_served_from_the_cache(
    host: Host, tmp_path: Path
) -> None:
    address = f"{host.address}/shards"
    load(frames_of(remote(address, tmp_path / "cache")))
    # The same clips at the same places, of other pixels.
    changed = tmp_path / "changed"
    write_folder(changed, brightness=100)
    host.add_folder("/shards", changed)
    again = load(frames_of(remote(address, tmp_path / "cache")))
    assert_equal(again, load(frames_of(LocalShards(changed))))
    assert again[0].inputs.float().mean() > 90


def test_shards_that_change_under_a_training_are_an_error(host: Host, tmp_path: Path) -> None:
    source = frames_of(remote(f"{host.address}/shards", tmp_path / "cache"))
    first = source[[0]]
    write_folder(tmp_path / "changed", brightness=100)
    host.add_folder("/shards", tmp_path / "changed")
    assert torch.equal(source[[0]].inputs, first.inputs)
    with pytest.raises(ValueError, match=r"000000\.tar does not hold c01 where its manifest says"):
        source[[1]]


@pytest.mark.parametrize("damage", [b"", b"\0" * 5000, b"half"])
def test_a_damaged_file_in_the_cache_is_fetched_again(
    damage: bytes, folder: Path, host: Host, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    source = frames_of(remote(f"{host.address}/shards", cache))
    load(source)
    for i, path in enumerate(sorted(cache.glob("??/*"))):
        whole = path.read_bytes()
        if i < 5:
            path.write_bytes(whole[: len(whole) // 2] if damage == b"half" else damage)
        elif i == 5:  # One bit of a picture.
            at = whole.index(b"\xff\xda") + 20
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    host.requests.clear()
    local = load(frames_of(LocalShards(folder)))
    assert_equal(load(source), local)
    assert len(host.requests) == 6
    assert_equal(load(source), local)
    assert len(host.requests) == 6


def test_several_trainings_share_what_one_of_them_fetched(host: Host, tmp_path: Path) -> None:
    address = f"{host.address}/shards"
    batches = [load(frames_of(remote(address, tmp_path / "cache")), 2) for _ in range(3)]
    assert_equal(batches[0], batches[2])
    assert len(host.requests) == 3 + NUM_CLIPS  # Each training reads the manifest.


PASSING = [Fault.CUT, Fault.DROP, Fault.SILENCE, Fault.TOO_MANY, Fault.SERVER_ERROR]


@pytest.mark.parametrize("fault", PASSING)
def test_what_goes_wrong_once_is_asked_for_again(
    fault: Fault, folder: Path, host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (CLIPS, "000000.tar"):
        host.fail(f"/shards/{name}", fault, times=2)
    policy = IMPATIENT if fault is Fault.SILENCE else POLICY
    source = frames_of(remote(f"{host.address}/shards", tmp_path / "cache", policy))
    assert_equal(load(source), load(frames_of(LocalShards(folder))))
    # The clips that came were not asked for again; a closed connection aiohttp itself tries anew.
    assert len(host.requests) <= 1 + NUM_CLIPS + 4
    assert "asking again" in capsys.readouterr().out or fault is Fault.DROP


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        (Fault.FORBIDDEN, ValueError, r"c00 cannot be read: the host answers HTTP 403 Forbidden$"),
        (Fault.NO_RANGE, ValueError, r"c00 cannot be read: the host answers HTTP 416"),
        (Fault.NOT_FOUND, FileNotFoundError, r"c00 cannot be read: there is no such file$"),
        (Fault.IGNORE_RANGE, ValueError, r"c00 .*no byte ranges, it sends the whole file; serve"),
        (Fault.PAGE, ValueError, r"c00 cannot be read: the host has no byte ranges"),
        (Fault.WRONG_BYTES, ValueError, r"does not hold c00 where its manifest says"),
        (Fault.SERVER_ERROR, ConnectionError, r"c00 .*HTTP 500 .*; asked 1 times\. Run this again"),
        (Fault.SILENCE, ConnectionError, r"c00 cannot be read: .*; asked 1 times\. Run this again"),
    ],
)
def test_what_cannot_be_mended_is_said_with_the_clip(
    fault: Fault, error: type[Exception], said: str, host: Host, tmp_path: Path
) -> None:
    address = host.address.replace("//", "//user:secret@") + "/shards?token=secret"
    policy = (IMPATIENT if fault is Fault.SILENCE else POLICY)._replace(attempts=1)
    source = frames_of(remote(address, tmp_path / "cache", policy))
    host.fail("/shards/000000.tar", fault)
    with pytest.raises(error, match=said) as raised:
        source[[0]]
    assert str(raised.value).startswith(f"{host.address}/shards/000000.tar")
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None
    # The next time all is well, and nothing wrong was kept.
    assert source[[0]].ids == ["c00"]


def test_what_stands_behind_the_address_is_sent_with_every_file(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fsspec.config.conf, "http", {"headers": {"X-Ticket": "mine"}})
    address = host.address.replace("//", "//user:secret@") + "/shards?token=secret"
    load(frames_of(remote(address, tmp_path / "cache")))
    assert len(host.requests) == 1 + NUM_CLIPS
    for request in host.requests:
        # "user:secret" in base 64, and what fsspec's own configuration adds.
        assert request.headers["Authorization"] == "Basic dXNlcjpzZWNyZXQ="
        assert request.headers["X-Ticket"] == "mine"
        assert request.headers["Accept-Encoding"] == "identity"
        assert request.query == "token=secret"


def test_a_host_that_dies_in_an_epoch_is_named_with_the_clip(host: Host, tmp_path: Path) -> None:
    source = frames_of(remote(f"{host.address}/shards", tmp_path / "cache"))
    source[[0, 1, 2]]
    host.stop()
    with pytest.raises(ConnectionError, match=r"shards/000000\.tar: c03 cannot be read: .*asked 3"):
        load(source)


@pytest.mark.slow  # Of which torch's shutdown of the workers is most.
def test_a_host_that_fails_a_worker_ends_the_process_with_the_clip(
    host: Host, tmp_path: Path
) -> None:
    clips = read_clips(remote(f"{host.address}/shards", tmp_path / "cache"))
    first = next(clip.clip for clip in clips if clip.shard == "000001.tar")
    host.fail("/shards/000001.tar", Fault.SERVER_ERROR, times=1000)
    program = f"""
from pathlib import Path
from test_remote import frames_of, load, remote
load(frames_of(remote("{host.address}/shards", Path("{tmp_path}/cache"))), num_workers=2)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests:{ROOT}/tests/store"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = f"shards/000001.tar: {first} cannot be read: the host answers HTTP 500"
    assert done.returncode == 1
    assert said in done.stderr
    assert "asking again" in done.stdout


def test_a_port_where_nobody_listens_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/shards"
        with pytest.raises(ConnectionError, match=f"{address}/clips.parquet: .*asked 3 times"):
            read_clips(remote(address, tmp_path / "cache"))


def test_an_address_of_an_unknown_kind_and_one_without_its_package_say_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be read: Protocol not known: gopher"):
        remote("gopher://host/shards", tmp_path)
    with pytest.raises(ValueError, match=r"gs://bucket/shards cannot be read: .*install gcsfs"):
        remote("gs://bucket/shards", tmp_path)


@pytest.mark.parametrize(
    ("shard", "first_byte", "end"),
    [
        ("/etc/passwd", 0, 100),
        ("../000000.tar", 0, 100),
        ("other/000000.tar", 0, 100),
        ("000000.tar?x=", 0, 100),
        ("http://elsewhere/000000.tar", 0, 100),
        ("", 0, 100),
        ("000000.tar", -512, 100),
        ("000000.tar", 512, 512),
        ("000000.tar", 1024, 512),
    ],
)
def test_a_manifest_that_names_another_place_is_refused(
    shard: str, first_byte: int, end: int, folder: Path
) -> None:
    shards = LocalShards(folder)
    first, *others = read_clips(shards)
    wrong = replace(first, shard=shard, first_byte=first_byte, end=end)
    write_stored(folder / CLIPS, [*others, wrong])
    with pytest.raises(ValueError, match=r"clips\.parquet says that c00 is in bytes .* of '"):
        read_clips(shards)


def test_a_place_beyond_the_end_of_its_shard_is_refused(
    folder: Path, host: Host, tmp_path: Path
) -> None:
    last = read_clips(LocalShards(folder))[-1]
    for shift in (512, 10**9):
        moved = replace(last, first_byte=last.first_byte + shift, end=last.end + shift)
        for shards in (LocalShards(folder), remote(f"{host.address}/shards", tmp_path / "cache")):
            with pytest.raises(ValueError, match=rf"{last.shard}.* c19 (where|cannot be read)"):
                list(read_contents(shards, [moved]))


@pytest.mark.parametrize("content", [b"", b"<html>Please log in</html>", b"PAR1PAR1"])
def test_something_else_in_place_of_the_manifest_is_refused(
    content: bytes, host: Host, tmp_path: Path
) -> None:
    host.add(f"/shards/{CLIPS}", content)
    with pytest.raises(ValueError, match=r"shards/clips\.parquet is no manifest of shards"):
        read_clips(remote(f"{host.address}/shards", tmp_path / "cache"))


def test_a_path_is_a_folder_and_an_address_is_not_made_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDS_CACHE", str(tmp_path))
    local, far = open_shards("data/shards/a"), open_shards("https://me:secret@host/shards/a/?key=1")
    assert (type(local), str(local)) == (LocalShards, "data/shards/a")
    assert (type(far), str(far)) == (RemoteShards, "https://host/shards/a")


def test_shards_on_a_disk_are_read_without_fsspec(folder: Path) -> None:
    program = f"""
import sys
from pipeline.store.folders import open_shards, read_clips, read_contents
shards = open_shards({str(folder)!r})
print(len(list(read_contents(shards, read_clips(shards)))), "fsspec" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(NUM_CLIPS), "False"]
