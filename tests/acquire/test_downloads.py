import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hosts import Fault, Host
from tqdm import tqdm

from pipeline.acquire.download import check_space, download
from pipeline.acquire.http import (
    DownloadFailed,
    DownloadInterrupted,
    HostRefusal,
    get_json,
    open_session,
    post_json,
)
from pipeline.common.hosts import RetryPolicy

CONTENT = random.Random(0).randbytes(300_000)
HALF = len(CONTENT) // 2
POLICY = RetryPolicy(attempts=3, connect_s=5, stall_s=0.3, pause_s=0.01)


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        host.add("/file.zip", CONTENT)
        yield host


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with open_session(POLICY) as session:
        yield session


def fetch(host: Host, path: Path, content: bytes = CONTENT, **options: Any) -> None:
    """Download /file.zip, which should be `content`."""
    settings: dict[str, Any] = {
        "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
        "size": len(content),
        "policy": POLICY,
        **options,
    }
    with open_session(settings["policy"]) as session:
        download(session, f"{host.address}/file.zip?token=secret", path, **settings)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_file_comes_whole_and_leaves_nothing_beside_it(host: Host, tmp_path: Path) -> None:
    fetch(host, tmp_path / "new" / "file.zip")
    assert (tmp_path / "new" / "file.zip").read_bytes() == CONTENT
    assert names(tmp_path) == ["new", "new/file.zip"]
    assert (tmp_path / "new" / "file.zip").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_empty_file_is_a_file(host: Host, tmp_path: Path) -> None:
    fetch(host, tmp_path / "file.zip", b"")
    assert (tmp_path / "file.zip").read_bytes() == b""
    assert names(tmp_path) == ["file.zip"]


def test_a_sha256_is_checked_like_an_md5(host: Host, tmp_path: Path) -> None:
    fetch(host, tmp_path / "file.zip", checksum=f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
    with pytest.raises(DownloadFailed, match="0000"):
        fetch(host, tmp_path / "other.zip", checksum=f"sha256:{'0' * 64}")
    assert names(tmp_path) == ["file.zip"]


def test_a_good_file_is_not_fetched_again_and_not_touched(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "file.zip"
    path.write_bytes(CONTENT)
    before = path.stat()
    fetch(host, path)
    assert host.requests == []
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("old", [b"short", bytes(len(CONTENT))])
def test_a_wrong_file_is_replaced_only_by_the_right_one(
    host: Host, tmp_path: Path, old: bytes
) -> None:
    path = tmp_path / "file.zip"
    path.write_bytes(old)
    host.fail("/file.zip", Fault.NOT_FOUND)
    with pytest.raises(HostRefusal):
        fetch(host, path)
    assert path.read_bytes() == old
    fetch(host, path)
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["file.zip"]


@pytest.mark.parametrize(
    ("faults", "ranges"),
    [
        ([Fault.CUT], [None, f"bytes={HALF}-"]),
        ([Fault.SILENCE], [None, f"bytes={HALF}-"]),
        ([Fault.CUT, Fault.IGNORE_RANGE], [None, f"bytes={HALF}-"]),
        ([Fault.CUT, Fault.WRONG_RANGE], [None, f"bytes={HALF}-", None]),
        ([Fault.CUT, Fault.NO_RANGE], [None, f"bytes={HALF}-", None]),
        ([Fault.CUT, Fault.WRONG_BYTES], [None, f"bytes={HALF}-", None]),
        ([Fault.WRONG_BYTES], [None, None]),
        ([Fault.DROP], [None, None]),
        ([Fault.SERVER_ERROR] * 2, [None] * 3),
        ([Fault.TOO_MANY], [None, None]),
        ([Fault.REDIRECT], [None, None]),
    ],
)
def test_a_passing_fault_ends_in_the_right_file(
    host: Host, tmp_path: Path, faults: list[Fault], ranges: list[str | None]
) -> None:
    host.fail("/file.zip", *faults)
    with tqdm(total=len(CONTENT), disable=True) as quiet:
        fetch(host, tmp_path / "file.zip", progress=quiet)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert host.ranges("/file.zip") == ranges
    assert names(tmp_path) == ["file.zip"]


def test_any_number_of_cuts_is_borne_while_the_file_grows(host: Host, tmp_path: Path) -> None:
    # 300 kB, 150, 75, ... until the rest is less than the trickle that is borne.
    host.fail("/file.zip", Fault.CUT, times=8)
    fetch(host, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert len(host.requests) == 9 > POLICY.attempts


def test_the_same_half_again_and_again_is_no_progress(host: Host, tmp_path: Path) -> None:
    host.fail("/file.zip", Fault.CUT)
    for _ in range(10):
        host.fail("/file.zip", Fault.WRONG_RANGE, Fault.CUT)
    with pytest.raises(DownloadInterrupted):
        fetch(host, tmp_path / "file.zip")
    assert len(host.requests) == 1 + POLICY.attempts


@pytest.mark.parametrize(
    ("fault", "says", "num_requests"),
    [
        (Fault.NOT_FOUND, "HTTP 404", 1),
        (Fault.FORBIDDEN, "HTTP 403", 1),
        (Fault.SERVER_ERROR, "HTTP 500", 3),
        (Fault.TOO_MANY, "HTTP 429", 3),
        (Fault.DROP, "cannot be reached", 3),
        (Fault.PAGE, "web page", 1),
        (Fault.LONGER, "should be 300000 bytes and the host sends 300004", 1),
        (Fault.ENDLESS, "should be 300000 bytes and the host sends more", 1),
        (Fault.WRONG_BYTES, hashlib.md5(CONTENT).hexdigest(), 2),
    ],
)
def test_a_lasting_fault_is_named_and_leaves_nothing(
    host: Host, tmp_path: Path, fault: Fault, says: str, num_requests: int
) -> None:
    host.fail("/file.zip", fault, times=20)
    with pytest.raises(DownloadFailed, match=says) as caught:
        fetch(host, tmp_path / "file.zip")
    assert f"{host.address}/file.zip" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert len(host.requests) == num_requests
    assert names(tmp_path) == []


def test_a_wrong_checksum_is_told_with_the_one_that_was_found(host: Host, tmp_path: Path) -> None:
    found = bytes(byte ^ 1 for byte in CONTENT)
    host.fail("/file.zip", Fault.WRONG_BYTES, times=2)
    with pytest.raises(DownloadFailed, match=hashlib.md5(found).hexdigest()):
        fetch(host, tmp_path / "file.zip")


def test_a_trickle_is_broken_off_and_what_it_brought_is_kept(host: Host, tmp_path: Path) -> None:
    host.trickle_bytes = 5  # 250 bytes per second
    host.fail("/file.zip", Fault.TRICKLE, times=2)
    with pytest.raises(DownloadInterrupted, match="fewer than 1000 bytes per second"):
        fetch(host, tmp_path / "file.zip", policy=POLICY._replace(attempts=2))
    (part,) = tmp_path.glob(".file.zip.download/*")
    assert CONTENT.startswith(part.read_bytes())
    had = part.stat().st_size
    fetch(host, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert host.ranges("/file.zip")[-1] == f"bytes={had}-"
    assert names(tmp_path) == ["file.zip"]


@pytest.mark.parametrize(("fault", "is_kept"), [(Fault.FORBIDDEN, True), (Fault.NOT_FOUND, False)])
def test_a_part_is_kept_unless_the_file_is_gone(
    host: Host, tmp_path: Path, fault: Fault, is_kept: bool
) -> None:
    host.fail("/file.zip", Fault.CUT, fault)
    with pytest.raises(HostRefusal):
        fetch(host, tmp_path / "file.zip")
    assert bool(names(tmp_path)) == is_kept


def test_a_killed_download_goes_on_where_it_was(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "file.zip"
    host.trickle_bytes = 2  # Far too few to fill a buffer before it is killed.
    host.fail("/file.zip", Fault.TRICKLE)
    code = f"""
from pathlib import Path
from pipeline.acquire.download import *
from pipeline.acquire.http import *
from pipeline.common.hosts import *
download(open_session(RetryPolicy()), {host.address + "/file.zip"!r}, Path({str(path)!r}),
         checksum="md5:{hashlib.md5(CONTENT).hexdigest()}", size={len(CONTENT)},
         policy=RetryPolicy())
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 30
        while not any(part.stat().st_size > 50 for part in tmp_path.glob(".file.zip.download/*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not path.exists()
    (part,) = [found for found in tmp_path.glob(".file.zip.download/*") if found.stat().st_size]
    had = part.stat().st_size
    fetch(host, path)
    assert path.read_bytes() == CONTENT
    assert host.ranges("/file.zip") == [None, f"bytes={had}-"]
    assert names(tmp_path) == ["file.zip"]


def test_a_whole_file_that_was_killed_before_it_was_checked_is_not_fetched_again(
    host: Host, tmp_path: Path
) -> None:
    (tmp_path / ".file.zip.download").mkdir()
    part = tmp_path / ".file.zip.download" / hashlib.md5(CONTENT).hexdigest()
    part.write_bytes(CONTENT)
    fetch(host, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert host.requests == []
    assert names(tmp_path) == ["file.zip"]


def test_a_part_of_another_version_of_the_file_is_no_use_and_removed(
    host: Host, tmp_path: Path
) -> None:
    (tmp_path / ".file.zip.download").mkdir()
    for name, content in (("0" * 32, CONTENT), ("1" * 32, b"")):
        (tmp_path / ".file.zip.download" / name).write_bytes(content)
    fetch(host, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert host.ranges("/file.zip") == [None]
    assert names(tmp_path) == ["file.zip"]


def test_a_part_that_is_longer_than_the_file_is_fetched_anew(host: Host, tmp_path: Path) -> None:
    (tmp_path / ".file.zip.download").mkdir()
    part = tmp_path / ".file.zip.download" / hashlib.md5(CONTENT).hexdigest()
    part.write_bytes(CONTENT + b"more")
    fetch(host, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert host.ranges("/file.zip") == [None]


def test_a_part_of_other_bytes_costs_one_more_download(host: Host, tmp_path: Path) -> None:
    (tmp_path / ".file.zip.download").mkdir()
    part = tmp_path / ".file.zip.download" / hashlib.md5(CONTENT).hexdigest()
    part.write_bytes(bytes(1000))
    fetch(host, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert host.ranges("/file.zip") == ["bytes=1000-", None]


def test_the_progress_bar_ends_at_the_size_whatever_happened(host: Host, tmp_path: Path) -> None:
    host.fail("/file.zip", Fault.CUT, Fault.IGNORE_RANGE, Fault.WRONG_BYTES)
    with (tmp_path / "bar").open("w") as out, tqdm(total=len(CONTENT), file=out) as progress:
        fetch(host, tmp_path / "file.zip", progress=progress)
        assert progress.n == len(CONTENT)
        fetch(host, tmp_path / "file.zip", progress=progress)
        assert progress.n == 2 * len(CONTENT)
        host.fail("/file.zip", Fault.CUT, Fault.FORBIDDEN)
        with pytest.raises(HostRefusal):
            fetch(host, tmp_path / "other.zip", progress=progress)
        assert progress.n == 2 * len(CONTENT)


def test_a_host_that_is_not_there_is_an_error_without_the_password(
    host: Host, tmp_path: Path
) -> None:
    host.address = "http://user:hidden@127.0.0.1:9"
    with pytest.raises(
        DownloadInterrupted, match=r"http://127\.0\.0\.1:9/file\.zip cannot be"
    ) as caught:
        fetch(host, tmp_path / "file.zip")
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/a", "file:///etc/hostname", "http://[", "a"])
def test_only_web_addresses_are_fetched(
    session: requests.Session, tmp_path: Path, url: str
) -> None:
    with pytest.raises(DownloadFailed):
        download(session, url, tmp_path / "a", checksum=f"md5:{'0' * 32}", size=1, policy=POLICY)
    assert names(tmp_path) == []


def test_a_checksum_must_be_one(session: requests.Session, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'0000'"):
        download(session, "http://a", tmp_path / "a", checksum="0000", size=1, policy=POLICY)


def test_a_full_disk_is_told_and_the_part_is_kept(host: Host, tmp_path: Path) -> None:
    # A file size limit stands for a disk that is full; only a process of its own can have one.
    code = f"""
import resource, signal
from pathlib import Path
from pipeline.acquire.download import *
from pipeline.acquire.http import *
from pipeline.common.hosts import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    download(open_session(RetryPolicy()), {host.address + "/file.zip"!r},
             Path({str(tmp_path / "file.zip")!r}), size={len(CONTENT)}, policy=RetryPolicy(),
             checksum="md5:{hashlib.md5(CONTENT).hexdigest()}")
except DownloadInterrupted as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot be written: File too large" in done.stdout
    fetch(host, tmp_path / "file.zip")
    assert host.ranges("/file.zip") == [None, "bytes=100000-"]
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_json_comes_through_passing_faults(host: Host, session: requests.Session) -> None:
    host.add_record("7", {"a.zip": b"abc"})
    url = f"{host.address}/api/records/7"
    host.fail("/api/records/7", Fault.TOO_MANY, Fault.CUT, Fault.SERVER_ERROR, Fault.DROP)
    host.retry_after = 1
    since = time.monotonic()
    record = get_json(session, url, POLICY)
    assert time.monotonic() - since >= 1
    assert record["files"][0]["key"] == "a.zip"
    assert record["files"][0]["checksum"] == "md5:900150983cd24fb0d6963f7d28e17f72"


def test_what_is_no_json_is_named(host: Host, session: requests.Session) -> None:
    host.add_json("/json", [1])
    for fault, says in [
        (Fault.PAGE, "a web page in place of JSON"),
        (Fault.WRONG_BYTES, "something else in place of JSON"),
        (Fault.ENDLESS, "more than 64 MiB"),
        (Fault.NOT_FOUND, "HTTP 404"),
    ]:
        host.fail("/json", fault)
        with pytest.raises(DownloadFailed, match=says):
            get_json(session, f"{host.address}/json", POLICY)


def test_it_is_said_at_once_that_a_host_is_asked_again(
    host: Host, session: requests.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    host.add_json("/json", [1])
    host.fail("/json", Fault.SERVER_ERROR, Fault.DROP)
    assert get_json(session, f"{host.address}/json?token=secret", POLICY) == [1]
    first, second = capsys.readouterr().err.splitlines()
    assert first == "127.0.0.1: HTTP 500; asking again in 0 s, 2 more times at most"
    assert second.startswith("127.0.0.1: ")
    assert second.endswith("asking again in 0 s, 1 more time at most")
    assert "secret" not in second
    with pytest.raises(DownloadFailed):
        get_json(session, "http://127.0.0.1:9/", POLICY)
    lines = capsys.readouterr().err.splitlines()
    assert [line[-34:] for line in lines] == [
        "asking again in 0 s, 2 more times at most"[-34:],
        "asking again in 0 s, 1 more time at most"[-34:],
    ]


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b"\xff\xfe["])
@pytest.mark.parametrize("status", [200, 403])
def test_an_answer_that_no_parser_foresees_is_refused_in_words(
    body: bytes, status: int, host: Host, session: requests.Session
) -> None:
    host.add("/json", body)
    host.statuses["/json"] = status
    says = "something else in place of JSON" if status == 200 else "answers HTTP 403 Forbidden; it"
    with pytest.raises(DownloadFailed, match=f"{host.address}/json.*{says}"):
        get_json(session, f"{host.address}/json", POLICY)


@pytest.mark.parametrize(
    ("location", "says"),
    [
        (None, "sends elsewhere without saying where"),
        ("/file.zip", "30 redirects"),
        ("ftp://127.0.0.1/file", "cannot be fetched"),
        ("file:///etc/passwd", "cannot be fetched"),
        ("http://[bad/", "cannot be fetched"),
        ("http://127.0.0.1:99999/", "cannot be"),
        ("http://.a..b/", "cannot be"),
        ("/\xff\xfe", "cannot be fetched"),
        ("/" + "x" * 70_000, "cannot be"),
    ],
)
def test_an_odd_redirect_is_refused_in_words(
    location: str | None, says: str, host: Host, tmp_path: Path
) -> None:
    host.location = location
    host.fail("/file.zip", Fault.REDIRECT, times=40)
    with pytest.raises(DownloadFailed, match=says) as caught:
        fetch(host, tmp_path / "file.zip")
    assert f"{host.address}/file.zip" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert names(tmp_path) == []


def test_the_words_of_a_refusal_are_passed_on(host: Host, session: requests.Session) -> None:
    host.over_quota.add("owner/repo")
    url = f"{host.address}/owner/repo.git/info/lfs/objects/batch"
    with pytest.raises(HostRefusal, match="over its data quota") as caught:
        post_json(session, url, {"objects": []}, {}, POLICY)
    assert caught.value.status == 403


def test_a_wait_that_a_host_asks_for_has_a_limit(session: requests.Session) -> None:
    retry: Any = session.get_adapter("https://a").__dict__["max_retries"]
    assert retry.parse_retry_after("86400") == 600


def test_missing_space_is_told_with_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    check_space(folder, 1)
    with pytest.raises(DownloadFailed, match=f"{folder} needs 1000000.0 GB") as caught:
        check_space(folder, 10**15)
    free = re.search(r"has ([\d.]+) GB free", str(caught.value))
    assert free is not None
    assert float(free[1]) == pytest.approx(shutil.disk_usage(tmp_path).free / 1e9, rel=0.05, abs=1)
    assert names(tmp_path) == []
