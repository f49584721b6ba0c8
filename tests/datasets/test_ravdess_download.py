"""What a download of RAVDESS does when its host, or what it sends, goes wrong."""

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import Fault, Host
from project import ROOT

from pipeline.acquire.archive_members import DamagedArchive, UnsafeArchive
from pipeline.acquire.http import DownloadFailed
from pipeline.common.hosts import RetryPolicy
from pipeline.datasets import ravdess

POLICY = RetryPolicy(attempts=3, connect_s=5, stall_s=0.3, pause_s=0.01)
FIRST, SECOND = (f"Video_Speech_Actor_{actor:02}.zip" for actor in (1, 2))
PATH = f"/api/records/{ravdess.RECORD}/files/{SECOND}/content"


def archive(actor: int, extra: dict[str, bytes] | None = None) -> bytes:
    """Two video-only clips of an actor with their audio-visual twins, and what else is wanted."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for modality in ("01", "02"):
            for emotion in ("01", "03"):
                name = f"{modality}-01-{emotion}-01-01-01-{actor:02}.mp4"
                file.writestr(f"Actor_{actor:02}/{name}", f"{actor} {emotion}".encode() * 5000)
        for name, content in (extra or {}).items():
            file.writestr(name, content)
    return stream.getvalue()


def listed(files: dict[str, bytes]) -> list[ravdess.Archive]:
    """What files.csv says of the archives."""
    return [
        ravdess.Archive(name, hashlib.md5(content).hexdigest(), len(content))
        for name, content in files.items()
    ]


BOTH = {FIRST: archive(1), SECOND: archive(2)}


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        host.add_record(ravdess.RECORD, BOTH)
        yield host


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def expected(host: Host, tmp_path: Path) -> dict[str, bytes]:
    """What an undisturbed download leaves."""
    ravdess.fetch(host.address, listed(BOTH), tmp_path / "calm", POLICY)
    files = files_in(tmp_path / "calm")
    assert sorted(files) == [
        *(f"Actor_01/02-01-{emotion}-01-01-01-01.mp4" for emotion in ("01", "03")),
        "Actor_01/SHA256SUMS",
        *(f"Actor_02/02-01-{emotion}-01-01-01-02.mp4" for emotion in ("01", "03")),
        "Actor_02/SHA256SUMS",
    ]
    assert files["Actor_02/02-01-03-01-01-01-02.mp4"] == b"2 03" * 5000
    return files


@pytest.mark.parametrize(
    "faults",
    [
        [Fault.CUT, Fault.CUT],
        [Fault.WRONG_BYTES],
        [Fault.TOO_MANY],
        [Fault.SERVER_ERROR, Fault.SERVER_ERROR],
        [Fault.REDIRECT],
        [Fault.SILENCE],
    ],
    ids=lambda faults: " ".join(fault.name for fault in faults),
)
def test_a_passing_fault_ends_in_the_same_files(
    faults: list[Fault], host: Host, expected: dict[str, bytes], tmp_path: Path
) -> None:
    host.fail(PATH, *faults)
    ravdess.fetch(host.address, listed(BOTH), tmp_path / "disturbed", POLICY)
    assert files_in(tmp_path / "disturbed") == expected


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.NOT_FOUND, "HTTP 404"),
        (Fault.TOO_MANY, "HTTP 429"),
        (Fault.SERVER_ERROR, "HTTP 500"),
        (Fault.PAGE, "web page"),
        (Fault.WRONG_BYTES, "not the file"),
        (Fault.ENDLESS, "bytes"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_lasting_fault_is_said_and_keeps_what_was_good(
    fault: Fault, said: str, host: Host, expected: dict[str, bytes], tmp_path: Path
) -> None:
    host.fail(PATH, fault, times=20)
    folder = tmp_path / "disturbed"
    with pytest.raises(DownloadFailed, match=said) as raised:
        ravdess.fetch(host.address, listed(BOTH), folder, POLICY)
    assert SECOND in str(raised.value)
    assert files_in(folder) == {
        name: content for name, content in expected.items() if name.startswith("Actor_01")
    }
    # The first actor is not asked for again.
    host.fail(PATH, *[])
    before = len(host.ranges(PATH.replace(SECOND, FIRST)))
    with Host() as mended:
        mended.add_record(ravdess.RECORD, BOTH)
        ravdess.fetch(mended.address, listed(BOTH), folder, POLICY)
        assert not mended.ranges(PATH.replace(SECOND, FIRST))
    assert len(host.ranges(PATH.replace(SECOND, FIRST))) == before
    assert files_in(folder) == expected


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (archive(2, {"../evil.mp4": b"x"}), UnsafeArchive, "evil"),
        (archive(2, {"/tmp/evil.mp4": b"x"}), UnsafeArchive, "evil"),
        (archive(2)[:-40], DamagedArchive, SECOND),
        (b"no archive at all" * 100, DamagedArchive, SECOND),
    ],
    ids=["up", "absolute", "truncated", "text"],
)
def test_a_bad_archive_is_not_unpacked(
    content: bytes, error: type[Exception], said: str, tmp_path: Path
) -> None:
    files = {FIRST: archive(1), SECOND: content}
    with Host() as host:
        host.add_record(ravdess.RECORD, files)
        with pytest.raises(error, match=said):
            ravdess.fetch(host.address, listed(files), tmp_path / "videos", POLICY)
    assert {path.name for path in (tmp_path / "videos").iterdir()} == {"Actor_01", SECOND}
    assert {path.name for path in tmp_path.iterdir()} == {"videos"}


def test_a_zip_bomb_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ravdess, "_MAX_UNPACKED", 100_000)
    bomb = archive(2, {"Actor_02/02-01-04-01-01-01-02.mp4": bytes(10_000_000)})
    files = {FIRST: archive(1), SECOND: bomb}
    with Host() as host:
        host.add_record(ravdess.RECORD, files)
        with pytest.raises(UnsafeArchive, match="bytes"):
            ravdess.fetch(host.address, listed(files), tmp_path / "videos", POLICY)
    assert {path.name for path in (tmp_path / "videos").iterdir()} == {"Actor_01", SECOND}


def test_a_clip_that_was_changed_on_disk_is_fetched_again(
    host: Host, expected: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "calm"
    (folder / "Actor_01/02-01-03-01-01-01-01.mp4").write_bytes(b"damaged")
    ravdess.fetch(host.address, listed(BOTH), folder, POLICY)
    assert files_in(folder) == expected
    assert len(host.ranges(PATH)) == 1


def test_a_record_without_the_archives_is_said() -> None:
    with Host() as host:
        host.add_record(ravdess.RECORD, {"Audio_Song_Actors_01-24.zip": b"x"})
        with pytest.raises(DownloadFailed, match=rf"lists no {FIRST}.*Audio_Song"):
            ravdess.fetch(host.address, listed(BOTH), Path("unused"), POLICY)


def test_a_record_that_lacks_one_archive_is_refused_before_anything_is_fetched(
    tmp_path: Path,
) -> None:
    with Host() as host:
        host.add_record(ravdess.RECORD, {FIRST: BOTH[FIRST]})
        with pytest.raises(DownloadFailed, match=rf"lists no {SECOND}; it lists {FIRST}"):
            ravdess.fetch(host.address, listed(BOTH), tmp_path / "videos", POLICY)
        assert len(host.requests) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"md5": "0" * 32}, {"size": 1000}], ids=["md5", "size"])
def test_a_record_with_another_archive_of_that_name_is_refused_before_anything_is_fetched(
    change: dict[str, Any], host: Host, tmp_path: Path
) -> None:
    first, second = listed(BOTH)
    other = second._replace(**change)
    with pytest.raises(DownloadFailed, match=f"another {SECOND}") as raised:
        ravdess.fetch(host.address, [first, other], tmp_path / "videos", POLICY)
    for archive in (second, other):
        assert f"(md5:{archive.md5}, {archive.size} bytes)" in str(raised.value)
    assert len(host.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_is_unpacked_already_is_not_looked_for_in_the_record(
    host: Host, expected: dict[str, bytes], tmp_path: Path
) -> None:
    other = [archive._replace(md5="0" * 32) for archive in listed(BOTH)]
    before = len(host.requests)
    ravdess.fetch(host.address, other, tmp_path / "calm", POLICY)
    assert len(host.requests) == before
    assert files_in(tmp_path / "calm") == expected


def test_the_24_published_archives_are_listed_with_their_checksums_and_sizes() -> None:
    archives = ravdess.read_archives(ROOT / "datasets/ravdess/files.csv")
    assert [archive.folder for archive in archives] == [f"Actor_{i:02}" for i in range(1, 25)]
    assert all(re.fullmatch("[0-9a-f]{32}", archive.md5) for archive in archives)
    assert len({archive.md5 for archive in archives}) == 24
    assert f"{sum(archive.size for archive in archives) / 2**30:.2f} GiB" == "12.44 GiB"


@pytest.mark.parametrize("answer", [[], {"files": "none"}, {"files": [{"key": "a.zip"}]}])
def test_a_host_that_is_no_zenodo_is_said(answer: object) -> None:
    with Host() as host:
        host.add_json(f"/api/records/{ravdess.RECORD}", answer)
        with pytest.raises(DownloadFailed, match="does not answer as Zenodo does"):
            ravdess.fetch(host.address, listed(BOTH), Path("unused"), POLICY)
