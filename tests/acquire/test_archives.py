import hashlib
import io
import os
import random
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.acquire.archive_members import DamagedArchive, UnsafeArchive
from pipeline.acquire.archives import is_whole, unpack

FILES = {"a/one.txt": b"one" * 1000, "b/two.txt": random.Random(0).randbytes(50_000)}
LIMIT = 10**6


def zipped(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes], compression: str = "gz") -> Path:
    with tarfile.open(path, f"w:{compression}") as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def special(path: Path, kind: bytes) -> Path:
    """A tar with a file, and behind it one member that is none."""
    tarred(path, FILES, "")
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("odd")
        member.type, member.linkname = kind, "a/one.txt"
        archive.addfile(member)
    return path


def unpack_all(archive: Path, target: Path, max_bytes: int = LIMIT) -> None:
    unpack(archive, target, str, max_bytes=max_bytes)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "make",
    [
        zipped,
        lambda path, files: zipped(path, files, zipfile.ZIP_STORED),
        tarred,
        lambda path, files: tarred(path, files, ""),
        lambda path, files: tarred(path, files, "xz"),
        lambda path, files: tarred(path, files, "bz2"),
    ],
)
def test_an_archive_unpacks_to_its_files_and_their_sums(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    unpack_all(make(tmp_path / "archive", FILES), tmp_path / "out")
    sums = contents(tmp_path / "out").pop("SHA256SUMS").decode()
    assert contents(tmp_path / "out") == {**FILES, "SHA256SUMS": sums.encode()}
    assert sums == "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in FILES.items()
    )
    subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "out", check=True
    )
    assert is_whole(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "out"]


def test_only_what_is_wanted_is_unpacked_where_it_is_wanted(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "archive", {"folder/": b"", **FILES})
    unpack(archive, tmp_path / "out", {"b/two.txt": "two"}.get, max_bytes=50_000)
    assert set(contents(tmp_path / "out")) == {"two", "SHA256SUMS"}
    with pytest.raises(ValueError, match="none of the wanted files"):
        unpack(archive, tmp_path / "other", lambda name: None, max_bytes=LIMIT)


def test_files_are_plain_whatever_the_archive_says(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive", "w") as archive:
        member = tarfile.TarInfo("run")
        member.mode, member.mtime, member.uid = 0o6777, 0, 12345
        archive.addfile(member)
    (tmp_path / "plain").touch()
    unpack_all(tmp_path / "archive", tmp_path / "out")
    found, plain = (tmp_path / "out" / "run").stat(), (tmp_path / "plain").stat()
    assert (found.st_mode, found.st_uid) == (plain.st_mode, plain.st_uid)
    assert found.st_mtime > 10**9


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "C:\\evil", "C:evil", "..\\evil", "a\\evil"]
)
def test_a_path_that_leads_out_is_refused_though_nobody_wants_it(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path], name: str
) -> None:
    archive = make(tmp_path / "archive", {**FILES, name: b"evil"})
    with pytest.raises(UnsafeArchive) as caught:
        unpack(archive, tmp_path / "out", {"a/one.txt": "one"}.get, max_bytes=LIMIT)
    assert str(archive) in str(caught.value)
    assert repr(name) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(UnsafeArchive, match="'odd' is a link or a device"):
        unpack_all(special(tmp_path / "archive", kind), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("odd")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(zipped(tmp_path / "archive", FILES), "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UnsafeArchive, match="'odd' is a link"):
        unpack_all(tmp_path / "archive", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ("../out of it", "leads upwards"),
        ("/etc/passwd", "absolute"),
        ("", "no name for a file"),
        ("SHA256SUMS", "no name for a file"),
        ("two\nlines", "no name for a file"),
        ("same", "both wanted at 'same'"),
    ],
)
def test_the_chosen_paths_are_checked_too(tmp_path: Path, chosen: str, says: str) -> None:
    archive = zipped(tmp_path / "archive", FILES)
    with pytest.raises(UnsafeArchive, match=says):
        unpack(archive, tmp_path / "out", lambda name: chosen, max_bytes=LIMIT)
    paths = {"a/one.txt": "x", "b/two.txt": "x/y"}
    with pytest.raises(UnsafeArchive, match="'x' is wanted as a file and as a folder"):
        unpack(archive, tmp_path / "out", paths.get, max_bytes=LIMIT)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_bomb_is_refused_by_what_it_declares(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    archive = make(tmp_path / "archive", {"a": b"small", "bomb": bytes(10**7)})
    assert archive.stat().st_size < 20_000
    with pytest.raises(UnsafeArchive, match="1000000 bytes"):
        unpack_all(archive, tmp_path / "out")
    # What nobody wants does not count.
    unpack(archive, tmp_path / "out", {"a": "a"}.get, max_bytes=5)


def test_a_bomb_that_declares_little_never_writes_more(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "archive", {"bomb": bytes(10**7)})
    data, size = archive.read_bytes(), (10**7).to_bytes(4, "little")
    assert data.count(size) == 2, "before the content, and in the directory at the end"
    archive.write_bytes(data.replace(size, (1000).to_bytes(4, "little")))
    with pytest.raises(DamagedArchive, match="CRC"):
        unpack_all(archive, tmp_path / "out", max_bytes=1000)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_the_bytes_are_counted_as_well_as_the_declared_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # zipfile itself stops at the declared size; so one that gives more stands for another reader.
    archive = zipped(tmp_path / "archive", {"bomb": bytes(1000)})
    bomb = io.BytesIO(bytes(10**8))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda self, info: bomb)
    with pytest.raises(UnsafeArchive, match="1000 bytes"):
        unpack_all(archive, tmp_path / "out", max_bytes=1000)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_the_number_of_members_is_limited(tmp_path: Path) -> None:
    for make in (zipped, tarred):
        archive = make(tmp_path / "archive", {str(i): b"" for i in range(11)})
        unpack(archive, tmp_path / "out", str, max_bytes=0, max_files=11)
        with pytest.raises(UnsafeArchive, match="more than the 10 members"):
            unpack(archive, tmp_path / "out", str, max_bytes=0, max_files=10)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize(
    "make",
    [
        zipped,
        tarred,
        lambda path, files: tarred(path, files, ""),
        lambda path, files: tarred(path, files, "xz"),
        lambda path, files: tarred(path, files, "bz2"),
    ],
)
def test_a_truncated_archive_is_told_and_leaves_nothing(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path], kept: float
) -> None:
    archive = make(tmp_path / "archive", FILES)
    # An uncompressed tar ends in up to 10 kB of nothing, half of which is no loss.
    length = 53_000 + 3 * 512 if tarfile_is_plain(archive) else archive.stat().st_size
    with archive.open("rb+") as file:
        file.truncate(int(length * kept))
    with pytest.raises(DamagedArchive, match=r"archive is damaged or no"):
        unpack_all(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def tarfile_is_plain(archive: Path) -> bool:
    return archive.read_bytes()[257:262] == b"ustar"


def test_a_tar_with_an_endless_name_is_refused_before_it_is_read(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("a.mp4")
        member.pax_headers = {"comment": "x" * 2**21}
        tar.addfile(member)
    with pytest.raises(UnsafeArchive, match="has headers of 2097169 bytes and more"):
        unpack_all(archive, tmp_path / "out")


def test_a_tar_that_ends_between_two_files_is_not_whole(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "archive", FILES, "")
    with archive.open("rb+") as file:
        file.truncate(512 + 3072)  # The first header, 3000 bytes in blocks of 512.
    with pytest.raises(DamagedArchive, match="breaks off"):
        unpack_all(archive, tmp_path / "out")


@pytest.mark.parametrize(
    "make", [zipped, lambda path, files: zipped(path, files, zipfile.ZIP_STORED), tarred]
)
def test_no_flipped_byte_goes_unnoticed(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    archive = make(tmp_path / "archive", FILES)
    data = archive.read_bytes()
    chance = random.Random(1)
    for at in (chance.randrange(200, len(data) - 300) for _ in range(40)):
        archive.write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
        with pytest.raises((DamagedArchive, UnsafeArchive)):
            unpack_all(archive, tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_a_directory_that_points_to_nowhere_is_damage(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "archive", FILES)
    data = bytearray(archive.read_bytes())
    end = data.index(b"PK\x05\x06")
    # A larger size of the directory moves the start of everything to before the file.
    data[end + 14] ^= 0x80
    archive.write_bytes(data)
    with pytest.raises(DamagedArchive):
        unpack_all(archive, tmp_path / "out")


def test_an_encrypted_zip_is_told(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "archive", {"a": b"abc"})
    data = bytearray(archive.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(DamagedArchive, match="a is encrypted"):
        unpack_all(archive, tmp_path / "out")


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(b"<!DOCTYPE html>" * 100)
    with pytest.raises(DamagedArchive, match="no zip or tar archive"):
        unpack_all(tmp_path / "archive", tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        unpack_all(tmp_path / "missing", tmp_path / "out")


def test_a_folder_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    good = zipped(tmp_path / "good", FILES)
    bad = zipped(tmp_path / "bad", {"c": b"c", **FILES}, zipfile.ZIP_STORED)
    bad.write_bytes(bad.read_bytes().replace(b"oneone", b"onetwo"))
    unpack(good, tmp_path / "out", {"a/one.txt": "one"}.get, max_bytes=LIMIT)
    before = (tmp_path / "out" / "one").stat()
    with pytest.raises(DamagedArchive):
        unpack_all(bad, tmp_path / "out")
    after = (tmp_path / "out" / "one").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    unpack_all(good, tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {*FILES, "SHA256SUMS"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "good", "out"]


def test_what_a_killed_unpacking_left_is_removed(tmp_path: Path) -> None:
    for left in (".out.unpacking", ".out.replaced"):
        (tmp_path / left / "a").mkdir(parents=True)
        (tmp_path / left / "a" / "one.txt").write_bytes(b"half")
    unpack_all(zipped(tmp_path / "archive", FILES), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "out"]
    assert is_whole(tmp_path / "out")


def test_a_folder_on_another_disk_stays_behind_its_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "out").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "out")
    unpack_all(zipped(tmp_path / "archive", FILES), tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert is_whole(tmp_path / "disk" / "out")


def test_a_folder_that_lost_or_changed_a_file_is_not_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not is_whole(out)
    unpack_all(zipped(tmp_path / "archive", FILES), out)
    (out / "more").touch()
    assert is_whole(out)
    (out / "a" / "one.txt").write_bytes(b"two" * 1000)
    assert not is_whole(out)
    (out / "a" / "one.txt").unlink()
    assert not is_whole(out)


@pytest.mark.parametrize("path", ["../secret", "{tmp}/secret", "link/secret"])
def test_sums_of_files_elsewhere_do_not_count(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_bytes(b"abc")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    digest = hashlib.sha256(b"abc").hexdigest()
    sums = tmp_path / "out" / "SHA256SUMS"
    sums.write_text(f"{digest}  {path.format(tmp=tmp_path)}\n")
    assert not is_whole(tmp_path / "out")
    for text in ("", "\n", "no sum\n"):
        sums.write_text(text)
        assert not is_whole(tmp_path / "out")


# --- Headers that nobody writes


def raw_header(size: bytes = b"%011o\0" % 0, kind: bytes = b"0") -> bytes:
    """A tar header with a checksum that is right, whatever else is wrong."""
    block = bytearray(tarfile.TarInfo("odd").tobuf(tarfile.GNU_FORMAT))
    block[124:136], block[156:157] = size, kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def attributes(**values: str) -> bytes:
    """An extended header, and the member that it belongs to."""
    body = b""
    for key, value in values.items():
        rest = f" {key.replace('__', '.')}={value}\n".encode()
        length = next(
            n for n in range(len(rest), 2 * len(rest) + 9) if len(str(n)) + len(rest) == n
        )
        body += str(length).encode() + rest
    padding = bytes(-len(body) % tarfile.BLOCKSIZE)
    return raw_header(b"%011o\0" % len(body), b"x") + body + padding + raw_header()


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (attributes(GNU__sparse__map="5", GNU__sparse__size="9"), UnsafeArchive, "sparse files"),
        (attributes(GNU__sparse__map="x,y", GNU__sparse__size="9"), UnsafeArchive, "sparse files"),
        (attributes(GNU__sparse__size="9"), UnsafeArchive, "sparse files"),
        (
            attributes(GNU__sparse__major="1", GNU__sparse__minor="0"),
            UnsafeArchive,
            "sparse files",
        ),
        (raw_header(kind=b"S"), UnsafeArchive, "sparse files"),
        (raw_header(b"\x80" + b"\xff" * 11), DamagedArchive, "damaged"),
        (raw_header(b"\x80\0\0\0" + b"\xff" * 8), DamagedArchive, "damaged"),
        (raw_header(b"\xff" * 12), DamagedArchive, "'odd' is of -1 bytes"),
        (attributes(size="9" * 30), DamagedArchive, "damaged"),
        (attributes(size="-5"), DamagedArchive, "'odd' is of -5 bytes"),
        (attributes(comment="x")[:1024] * 2000, DamagedArchive, "recursion"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused_in_words(
    content: bytes, error: type[Exception], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "odd.tar"
    path.write_bytes(content + bytes(1024))
    with pytest.raises(error, match=f"{path}.*{says}"):
        unpack_all(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_headers_are_limited_together_because_they_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.acquire.archive_members._MAX_ALL_HEADER_BYTES", 50_000)
    path = tmp_path / "large.tar"
    path.write_bytes(attributes(comment="x" * 9000) * 6 + bytes(1024))
    with pytest.raises(UnsafeArchive, match=r"has headers of 54\d+ bytes and more"):
        unpack_all(path, tmp_path / "out")


def test_a_pipe_is_no_archive(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(ValueError, match="is a pipe or a device, where a file is needed"):
        unpack_all(tmp_path / "pipe.zip", tmp_path / "out")


def nowhere(member: str) -> str:
    places: dict[str, str] = {}
    return places[member]


def test_a_fault_of_ours_is_not_called_damage(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        unpack(zipped(tmp_path / "a.zip", FILES), tmp_path / "out", nowhere, max_bytes=LIMIT)
