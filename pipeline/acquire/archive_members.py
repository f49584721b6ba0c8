"""What is in a zip or tar archive of strangers, and their content, read with care."""

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from pipeline.common.strangers import check_regular, each, refusing, words_of

CHUNK_BYTES = 2**20
# Of a tar's long names and attributes, one of them and all together: they stay in memory.
_MAX_HEADER_BYTES = 2**20
_MAX_ALL_HEADER_BYTES = 2**26


class UnusableArchive(ValueError):
    """An archive that is not unpacked; the message names it and says why."""


class UnsafeArchive(UnusableArchive):
    """An archive that would write outside its folder, too much, or something other than files."""


class NothingWanted(UnusableArchive):
    """An archive without a single file of those that were asked for."""


class DamagedArchive(UnusableArchive):
    """An archive that is not whole, is encrypted, or is no archive at all."""


class _NotUnpacked(Exception):
    """Raised within a parser: what the archive has that it should not have."""


class Member(NamedTuple):
    """Of an archive; whatever reading it raises is an UnusableArchive."""

    name: str
    size: int
    is_file: bool
    # A link, a device, a pipe.
    is_special: bool
    # The content, piece by piece.
    chunks: Callable[[], Iterator[bytes]]


@contextmanager
def open_archive(archive: Path) -> Iterator[Iterator[Member]]:
    """The archive's members; whatever reading them or their content raises is a DamagedArchive."""

    def refusal(error: Exception) -> UnusableArchive:
        if isinstance(error, _NotUnpacked):
            return UnsafeArchive(f"{archive} {error}")
        return DamagedArchive(
            f"{archive} is damaged or no zip or tar archive ({words_of(error)}); delete it and "
            "fetch it again"
        )

    def contents(open_member: Callable[[], IO[bytes]]) -> Iterator[bytes]:
        return each(_chunks(open_member), refusal)

    check_regular(archive)
    with archive.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    with refusing(refusal):
        opened = zipfile.ZipFile(archive) if is_zip else _CarefulTar.open(archive)
    with opened:
        members = (
            _zip_members(opened, contents)
            if isinstance(opened, zipfile.ZipFile)
            else _tar_members(opened, contents)
        )
        yield each(members, refusal)


Contents = Callable[[Callable[[], IO[bytes]]], Iterator[bytes]]
"""From what opens a member to its content."""


def _chunks(open_member: Callable[[], IO[bytes]]) -> Iterator[bytes]:
    with open_member() as source:
        while chunk := source.read(CHUNK_BYTES):
            yield chunk


def _zip_members(zipped: zipfile.ZipFile, contents: Contents) -> Iterator[Member]:
    def open_member(info: zipfile.ZipInfo) -> IO[bytes]:
        if info.flag_bits & 1:
            raise zipfile.BadZipFile(f"{info.filename} is encrypted")
        return zipped.open(info)

    for info in zipped.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        is_special = kind not in (0, stat.S_IFREG, stat.S_IFDIR)
        is_file = not (info.is_dir() or kind == stat.S_IFDIR)
        chunks = partial(contents, partial(open_member, info))
        # `filename` has already been cut at a null byte.
        yield Member(info.orig_filename, info.file_size, is_file, is_special, chunks)


class _CarefulHeader(tarfile.TarInfo):
    """Refuses what tarfile would read into memory, however long: long names, attributes, maps."""

    def _proc_member(self, tar: "_CarefulTar") -> tarfile.TarInfo:
        is_read_whole = self.type in (
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
        )
        if is_read_whole:
            tar.header_bytes += self.size
            if self.size > _MAX_HEADER_BYTES or tar.header_bytes > _MAX_ALL_HEADER_BYTES:
                raise _NotUnpacked(f"has headers of {tar.header_bytes} bytes and more")
        if self.type == tarfile.GNUTYPE_SPARSE:
            self._refuse_sparse()
        member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return member

    def _refuse_sparse(self, *_: object) -> None:
        """A map of a file's holes may have any length; videos and pictures have no holes."""
        raise _NotUnpacked("holds sparse files; pack it without --sparse")

    # The three ways in which attributes hold a map.
    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


class _CarefulTar(tarfile.TarFile):
    """Counts what its headers hold."""

    tarinfo = _CarefulHeader
    header_bytes = 0


def _tar_members(tarred: tarfile.TarFile, contents: Contents) -> Iterator[Member]:
    def open_member(info: tarfile.TarInfo) -> IO[bytes]:
        file = tarred.extractfile(info)
        assert file is not None, f"{info.name} is a file"
        return file

    for info in tarred:
        if info.size < 0:
            raise tarfile.ReadError(f"{info.name!r} is of {info.size} bytes")
        is_special = not (info.isreg() or info.isdir())
        chunks = partial(contents, partial(open_member, info))
        yield Member(info.name, info.size, info.isreg(), is_special, chunks)
    # tarfile takes a damaged header for the end, and does not read on to the checksum of a gzip.
    assert tarred.fileobj is not None, "the archive is open"
    tarred.fileobj.seek(tarred.offset)
    if tarred.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it breaks off, or has a damaged header")
    while tarred.fileobj.read(CHUNK_BYTES):
        pass
