"""Unpacking downloaded zip and tar archives, without trusting them.

A folder gets its name when everything in it is written and checked, so one that is there was whole,
and the `SHA256SUMS` in it tells whether it still is.
"""

import errno
import hashlib
import lzma
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from pipeline.common.files import sha256_of

CHUNK_BYTES = 2**20
# Of a tar's long names and attributes.
_MAX_HEADER_BYTES = 2**20
SUMS = "SHA256SUMS"
# What the standard library raises for an archive that is damaged.
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    UnicodeDecodeError,
)


class UnusableArchive(ValueError):
    """An archive that is not unpacked; the message names it and says why."""


class UnsafeArchive(UnusableArchive):
    """An archive that would write outside its folder, too much, or something other than files."""


class NothingWanted(UnusableArchive):
    """An archive without a single file of those that were asked for."""


class DamagedArchive(UnusableArchive):
    """An archive that is not whole, is encrypted, or is no archive at all."""


class _Member(NamedTuple):
    name: str
    size: int
    is_file: bool
    # A link, a device, a pipe.
    is_special: bool
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path,
    target: Path,
    choose: Callable[[str], str | None],
    *,
    max_bytes: int,
    max_files: int = 20_000,
) -> None:
    """Unpack the files that are wanted into a folder that appears when all of it is there.

    Replaces `target`. Beside the files it gets `SHA256SUMS`, as `sha256sum` writes it.

    Args:
        archive: A zip or a tar, however compressed.
        target: The folder.
        choose: From a file's name in the archive to its path in the folder, or None to leave it.
        max_bytes: That all wanted files together may have when unpacked.
        max_files: That may be in the archive, wanted or not.

    Raises:
        UnsafeArchive: There is a link, a device, or a path that leads out of the folder, wanted or
            not; two files are wanted at one path; or there is more than the limits allow.
        DamagedArchive: It cannot be read to its end, or a checksum in it is wrong.
        ValueError: None of its files is wanted.
    """
    target = target.resolve()
    if target.exists() and not target.is_dir():
        raise ValueError(f"{archive} cannot be unpacked to {target}: a file is there; remove it")
    work = target.with_name(f".{target.name}.unpacking")
    replaced = target.with_name(f".{target.name}.replaced")
    for leftover in (work, replaced):
        if leftover.exists():
            shutil.rmtree(leftover)
    with _open_archive(archive) as members:
        checked = _check_members(archive, members, max_files)
        wanted = _choose_members(archive, checked, choose, max_bytes)
        try:
            work.mkdir(parents=True)
            digests = _extract(archive, wanted, work, max_bytes)
            lines = [f"{digest}  {path}\n" for path, digest in sorted(digests.items())]
            (work / SUMS).write_text("".join(lines), encoding="utf-8")
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    if target.exists():
        target.rename(replaced)
    work.rename(target)
    if replaced.exists():
        shutil.rmtree(replaced)


def is_whole(target: Path) -> bool:
    """Whether a folder has every file of its `SHA256SUMS`, as it was when it was unpacked."""
    if not (target / SUMS).is_file():
        return False
    lines = (target / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        entry = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if not entry or _path_fault(entry[2]):
            return False
        path = target / entry[2]
        if not path.resolve().is_relative_to(target.resolve()) or not path.is_file():
            return False
        if sha256_of(path) != entry[1]:
            return False
    return bool(lines)


@contextmanager
def _open_archive(archive: Path) -> Iterator[Iterator[_Member]]:
    """The archive's members; whatever reading them raises is a DamagedArchive."""
    with archive.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    try:
        if is_zip:
            with zipfile.ZipFile(archive) as zipped:
                yield _zip_members(zipped)
        else:
            with tarfile.open(archive, tarinfo=_SmallHeaders) as tarred:
                yield _tar_members(tarred)
    except (*DAMAGE, OSError) as error:
        # Of an OSError, damage has no number (gzip, bz2) or that of seeking to nowhere.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise DamagedArchive(
            f"{archive} is damaged or no zip or tar archive ({error}); delete it and fetch it again"
        ) from error


def _zip_members(zipped: zipfile.ZipFile) -> Iterator[_Member]:
    def open_member(info: zipfile.ZipInfo) -> IO[bytes]:
        if info.flag_bits & 1:
            raise zipfile.BadZipFile(f"{info.filename} is encrypted")
        return zipped.open(info)

    for info in zipped.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        is_special = kind not in (0, stat.S_IFREG, stat.S_IFDIR)
        is_file = not (info.is_dir() or kind == stat.S_IFDIR)
        # `filename` has already been cut at a null byte.
        yield _Member(
            info.orig_filename, info.file_size, is_file, is_special, partial(open_member, info)
        )


class _SmallHeaders(tarfile.TarInfo):
    """Refuses long names and attributes that tarfile would read into memory, however long."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        is_read_whole = self.type in (
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
        )
        if is_read_whole and self.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return member


def _tar_members(tarred: tarfile.TarFile) -> Iterator[_Member]:
    def open_member(info: tarfile.TarInfo) -> IO[bytes]:
        file = tarred.extractfile(info)
        assert file is not None, f"{info.name} is a file"
        return file

    for info in tarred:
        is_special = not (info.isreg() or info.isdir())
        yield _Member(info.name, info.size, info.isreg(), is_special, partial(open_member, info))
    # tarfile takes a damaged header for the end, and does not read on to the checksum of a gzip.
    assert tarred.fileobj is not None, "the archive is open"
    tarred.fileobj.seek(tarred.offset)
    if tarred.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it breaks off, or has a damaged header")
    while tarred.fileobj.read(CHUNK_BYTES):
        pass


def _check_members(archive: Path, members: Iterator[_Member], max_files: int) -> list[_Member]:
    checked = []
    for member in members:
        fault = "is a link or a device" if member.is_special else _path_fault(member.name)
        if fault:
            raise UnsafeArchive(f"{archive}: the member {member.name!r} {fault}; do not unpack it")
        checked.append(member)
        if len(checked) > max_files:
            raise UnsafeArchive(f"{archive} has more than the {max_files} members that are allowed")
    return checked


def _path_fault(path: str) -> str:
    """Why a relative path could lead out of the folder it is meant for, if it could."""
    if path.startswith("/") or re.match("[A-Za-z]:", path):
        return "has an absolute path"
    if "\\" in path or "\0" in path:
        return "has a path with a backslash or a null byte"
    if ".." in path.split("/"):
        return "has a path that leads upwards"
    return ""


def _choose_members(
    archive: Path, members: list[_Member], choose: Callable[[str], str | None], max_bytes: int
) -> dict[str, _Member]:
    """The wanted files by their paths in the folder."""
    wanted: dict[str, _Member] = {}
    for member in members:
        chosen = choose(member.name) if member.is_file else None
        if chosen is None:
            continue
        path = str(PurePosixPath(chosen))
        fault = _path_fault(chosen)
        if fault or path in (".", SUMS) or not path.isprintable():
            raise UnsafeArchive(
                f"{archive}: {member.name!r} is wanted at {chosen!r}, which "
                f"{fault or 'is no name for a file here'}"
            )
        if path in wanted:
            raise UnsafeArchive(
                f"{archive}: {wanted[path].name!r} and {member.name!r} are both wanted at {path!r}"
            )
        wanted[path] = member
    for path in wanted:
        folder = next((str(up) for up in PurePosixPath(path).parents if str(up) in wanted), None)
        if folder is not None:
            raise UnsafeArchive(f"{archive}: {folder!r} is wanted as a file and as a folder")
    if not wanted:
        raise NothingWanted(f"{archive} has none of the wanted files; is it the right one?")
    if sum(member.size for member in wanted.values()) > max_bytes:
        raise UnsafeArchive(_too_large(archive, max_bytes))
    return wanted


def _extract(
    archive: Path, wanted: dict[str, _Member], folder: Path, max_bytes: int
) -> dict[str, str]:
    """Write the files; their SHA-256 by their paths."""
    digests = {}
    num_bytes = 0
    for path, member in wanted.items():
        digest = hashlib.sha256()
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, (folder / path).open("xb") as file:
            while chunk := source.read(CHUNK_BYTES):
                # What the archive declares need not be what it holds.
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    raise UnsafeArchive(_too_large(archive, max_bytes))
                digest.update(chunk)
                file.write(chunk)
        digests[path] = digest.hexdigest()
    return digests


def _too_large(archive: Path, max_bytes: int) -> str:
    return f"{archive} would unpack to more than the {max_bytes} bytes that are allowed"
