"""A folder that keeps the bytes of clips which came from a host, up to a given size.

Any number of processes share it. A clip is found by what the manifest says of its content: one that
changes at the host is another one here. Whoever reads a clip verifies it, so that a file that a
crash left in pieces is none.

A library could do this, but diskcache, the usual one, is no longer maintained, unpickles what lies
in its folder and exceeds its bound; those of fsspec keep whole files, without a bound.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.common.files import project_root

# Environment variables: where clips are kept, and how many GB of them.
FOLDER, GIGABYTES = "SHARDS_CACHE", "SHARDS_CACHE_GB"
# Where none are named, but never more than half of what the disk has room for.
DEFAULT_BYTES = 10 * 10**9
# Of the bound; room is made for many clips at once, because that looks at every file.
SPARE = 0.1


class ClipCache:
    """Parts of shards by name, of at most `max_bytes` together.

    The least recently used ones make room, but none that was used since this cache was opened: a
    training reads its clips in a new order in every epoch, where plain "least recently used" with
    room for half of them would serve 15 % of the reads. Once only such clips are left, no others
    are taken in.

    Raises:
        ValueError: The disk has no room for so many bytes.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.max_bytes = max_bytes
        self._opened = time.time()
        self._full = False
        if (room := _room(folder)) < max_bytes:
            raise ValueError(
                f"{folder} may take {max_bytes / 1e9:.3g} GB and its disk has room for "
                f"{room / 1e9:.3g} GB: set {GIGABYTES} to less, or {FOLDER} to another folder"
            )

    def get(self, name: str) -> bytes | None:
        """What was put under that name, if it is still there."""
        path = self._path(name)
        try:
            part = path.read_bytes()
        except FileNotFoundError:
            return None
        with suppress(FileNotFoundError):  # It has made room since.
            _touch(path)
        return part

    def put(self, name: str, part: bytes) -> None:
        """Keep a part, if there is room."""
        if self._full:
            return
        with self._locked():
            path = self._path(name)
            if path.exists():
                return
            total = _total(self.folder) + len(part)
            if total > self.max_bytes:
                total = self._make_room(len(part)) + len(part)
            if total > self.max_bytes:
                self._full = True
                return
            # Counted first: after a crash the count is too high, and the next cleaning mends it.
            self._write("total", str(total).encode())
            path.parent.mkdir(exist_ok=True)
            self._write(f"{path.parent.name}/{path.name}", part)

    def drop(self, name: str) -> None:
        """Forget a part."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one process or thread at a time; the lock of one that dies is free."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_room(self, wanted: int) -> int:
        """Remove the parts that were not used for longest; how many bytes are left."""
        entries = sorted(_entries(self.folder))
        left = sum(size for _, size, _ in entries)
        for used, size, path in entries:
            if used >= self._opened or left + wanted <= (1 - SPARE) * self.max_bytes:
                break
            path.unlink(missing_ok=True)
            left -= size
        self._write("total", str(left).encode())
        return left

    def _write(self, name: str, data: bytes) -> None:
        """A file that appears only when it is whole; only the holder of the lock writes."""
        partial = self.folder / "partial"
        partial.write_bytes(data)
        _touch(partial)
        partial.replace(self.folder / name)


def chosen_cache() -> ClipCache:
    """The cache that the environment names, or `.scratch/shards` of the project.

    Raises:
        ValueError: The number of GB is none.
    """
    folder = Path(os.environ.get(FOLDER) or project_root(Path()) / ".scratch/shards")
    size = os.environ.get(GIGABYTES)
    if size is None:
        folder.mkdir(parents=True, exist_ok=True)
        return ClipCache(folder, min(DEFAULT_BYTES, _room(folder) // 2))
    try:
        num_bytes = int(float(size) * 1e9)
    except (ValueError, OverflowError):
        num_bytes = 0
    if num_bytes <= 0:
        raise ValueError(f"{GIGABYTES} is {size!r}; expected a number of GB, such as 10 or 0.5")
    return ClipCache(folder, num_bytes)


def _room(folder: Path) -> int:
    """Bytes that the cache takes or can take yet."""
    return _total(folder) + shutil.disk_usage(folder).free


def _total(folder: Path) -> int:
    """Bytes that are kept, or a little more."""
    try:
        return int((folder / "total").read_bytes())
    except (FileNotFoundError, ValueError):
        return sum(size for _, size, _ in _entries(folder))


def _entries(folder: Path) -> list[tuple[float, int, Path]]:
    """Of every part when it was last used, its size and its file."""
    entries = []
    for path in folder.glob("??/*"):
        with suppress(FileNotFoundError):
            status = path.stat()
            entries.append((status.st_mtime, status.st_size, path))
    return entries


def _touch(path: Path) -> None:
    """Say that a file was used now, by the clock that `_opened` was read from."""
    now = time.time()
    os.utime(path, (now, now))
