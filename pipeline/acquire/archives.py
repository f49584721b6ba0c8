"""Unpacking downloaded zip and tar archives, without trusting them.

A folder gets its name when everything in it is written and checked, so one that is there was whole,
and the `SHA256SUMS` in it tells whether it still is.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from pipeline.acquire.archive_members import Member, NothingWanted, UnsafeArchive, open_archive
from pipeline.common.files import sha256_of

SUMS = "SHA256SUMS"


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
    with open_archive(archive) as members:
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


def _check_members(archive: Path, members: Iterator[Member], max_files: int) -> list[Member]:
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
    archive: Path, members: list[Member], choose: Callable[[str], str | None], max_bytes: int
) -> dict[str, Member]:
    """The wanted files by their paths in the folder."""
    wanted: dict[str, Member] = {}
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
    archive: Path, wanted: dict[str, Member], folder: Path, max_bytes: int
) -> dict[str, str]:
    """Write the files; their SHA-256 by their paths."""
    digests = {}
    num_bytes = 0
    for path, member in wanted.items():
        digest = hashlib.sha256()
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("xb") as file:
            for chunk in member.chunks():
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
