"""What a download of RAVDESS does when its host, or what it sends, goes wrong."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Fault, Host

from pipeline.acquire.archives import DamagedArchive, UnsafeArchive
from pipeline.acquire.http import DownloadFailed, Patience
from pipeline.datasets import ravdess

PATIENCE = Patience(attempts=3, connect_s=5, stall_s=0.3, pause_s=0.01)
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


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        host.add_record(ravdess.RECORD, {FIRST: archive(1), SECOND: archive(2)})
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
    ravdess.fetch(host.address, tmp_path / "calm", PATIENCE)
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
    ravdess.fetch(host.address, tmp_path / "disturbed", PATIENCE)
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
        ravdess.fetch(host.address, folder, PATIENCE)
    assert SECOND in str(raised.value)
    assert files_in(folder) == {
        name: content for name, content in expected.items() if name.startswith("Actor_01")
    }
    # The first actor is not asked for again.
    host.fail(PATH, *[])
    before = len(host.ranges(PATH.replace(SECOND, FIRST)))
    with Host() as mended:
        mended.add_record(ravdess.RECORD, {FIRST: archive(1), SECOND: archive(2)})
        ravdess.fetch(mended.address, folder, PATIENCE)
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
    with Host() as host:
        host.add_record(ravdess.RECORD, {FIRST: archive(1), SECOND: content})
        with pytest.raises(error, match=said):
            ravdess.fetch(host.address, tmp_path / "videos", PATIENCE)
    assert {path.name for path in (tmp_path / "videos").iterdir()} == {"Actor_01", SECOND}
    assert {path.name for path in tmp_path.iterdir()} == {"videos"}


def test_a_zip_bomb_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ravdess, "_MAX_UNPACKED", 100_000)
    bomb = archive(2, {"Actor_02/02-01-04-01-01-01-02.mp4": bytes(10_000_000)})
    with Host() as host:
        host.add_record(ravdess.RECORD, {FIRST: archive(1), SECOND: bomb})
        with pytest.raises(UnsafeArchive, match="bytes"):
            ravdess.fetch(host.address, tmp_path / "videos", PATIENCE)
    assert {path.name for path in (tmp_path / "videos").iterdir()} == {"Actor_01", SECOND}


def test_a_clip_that_was_changed_on_disk_is_fetched_again(
    host: Host, expected: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "calm"
    (folder / "Actor_01/02-01-03-01-01-01-01.mp4").write_bytes(b"damaged")
    ravdess.fetch(host.address, folder, PATIENCE)
    assert files_in(folder) == expected
    assert len(host.ranges(PATH)) == 1


def test_a_record_without_the_archives_is_said() -> None:
    with Host() as host:
        host.add_record(ravdess.RECORD, {"Audio_Song_Actors_01-24.zip": b"x"})
        with pytest.raises(DownloadFailed, match=r"lists no archive.*Audio_Song"):
            ravdess.fetch(host.address, Path("unused"), PATIENCE)


@pytest.mark.parametrize("answer", [[], {"files": "none"}, {"files": [{"key": "a.zip"}]}])
def test_a_host_that_is_no_zenodo_is_said(answer: object) -> None:
    with Host() as host:
        host.add_json(f"/api/records/{ravdess.RECORD}", answer)
        with pytest.raises(DownloadFailed, match="does not answer as Zenodo does"):
            ravdess.fetch(host.address, Path("unused"), PATIENCE)
