"""Downloads that end in the right file, or in an error that says what is wrong.

A file grows in a hidden folder beside its target and moves to its place when its checksum is right.
What an interrupted download has brought, even one that was killed, is where the next one goes on.
"""

import hashlib
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import requests
from tqdm import tqdm

from pipeline.acquire.http import (
    BrokenAnswer,
    DownloadFailed,
    DownloadInterrupted,
    ask,
    check_status,
    chunks_of,
    is_page,
)
from pipeline.common.hosts import RetryPolicy, pause, public


class _WrongFile(DownloadFailed):
    worth_resuming = False


def download(
    session: requests.Session,
    url: str,
    path: Path,
    *,
    checksum: str,
    size: int,
    headers: Mapping[str, str] = {},
    policy: RetryPolicy,
    progress: "tqdm[Any] | None" = None,
) -> None:
    """Bring the file at `url` to `path`, unless the right one is there.

    Args:
        session: From `open_session`.
        url: The file's address, http or https.
        path: Where the file appears when it is whole and right; replaces a wrong one.
        checksum: `md5:` or `sha256:` and the digest in hexadecimal.
        size: Of the whole file, in bytes.
        headers: To send to the host.
        policy: How long to wait, how often to ask again.
        progress: Advanced by `size` in all, also when nothing had to be done.

    Raises:
        DownloadFailed: What was there at `path` is untouched. A part that a later call can go on
            with is left beside it, in a hidden folder; otherwise nothing is.
    """
    if not re.fullmatch(r"md5:[0-9a-fA-F]{32}|sha256:[0-9a-fA-F]{64}", checksum):
        raise ValueError(f"checksum {checksum!r} of {path.name} is no md5:... or sha256:...")
    algorithm, _, digest = checksum.lower().partition(":")
    counter = _Counter(progress)
    if path.is_file() and path.stat().st_size == size:
        if _digest(path, algorithm) == digest:
            counter.show(size)
            return
    # A folder, so that what is left of another version of the file is found and removed.
    folder = path.absolute().with_name(f".{path.name}.download")
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / digest
    for left in folder.iterdir():
        if left != part or left.stat().st_size > size:
            left.unlink()
    fetch = _Fetch(session, url, part, size, headers, policy, counter)
    try:
        fetch.complete()
        if _digest(part, algorithm) != digest:
            part.unlink()
            fetch.complete()
        if (found := _digest(part, algorithm)) != digest:
            raise _WrongFile(
                f"{public(url)} was fetched once more from the start and is not the file that was "
                f"announced: its {algorithm} is {found}, not {digest}. If this goes on, look for a "
                "new version or tell the host."
            )
        part.replace(path)
    except DownloadFailed as failure:
        counter.show(0)
        if not failure.worth_resuming:
            part.unlink(missing_ok=True)
        raise
    finally:
        if part.is_file() and part.stat().st_size == 0:
            part.unlink()
        with suppress(OSError):  # It stays while it holds something to go on with.
            folder.rmdir()


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def check_space(folder: Path, num_bytes: int) -> None:
    """Make sure that the file system of a folder, which need not exist yet, can take more.

    Raises:
        DownloadFailed: It cannot.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise DownloadFailed(
            f"{folder} needs {num_bytes / 1e9:.1f} GB and its file system has {free / 1e9:.1f} GB "
            "free; make room, or choose a folder on another one"
        )


class _Counter:
    """One file's share of a progress bar, which other threads advance too."""

    def __init__(self, progress: "tqdm[Any] | None") -> None:
        self.progress = progress
        self.shown = 0

    def show(self, num_bytes: int) -> None:
        if self.progress is not None:
            with tqdm.get_lock():  # type: ignore[no-untyped-call]
                self.progress.update(num_bytes - self.shown)
        self.shown = num_bytes


class _Fetch(NamedTuple):
    """A file that grows at `part`."""

    session: requests.Session
    url: str
    part: Path
    size: int
    headers: Mapping[str, str]
    policy: RetryPolicy
    counter: _Counter

    def complete(self) -> None:
        """Bring all its bytes, right or wrong.

        Raises:
            DownloadFailed: They cannot be had.
        """
        self.part.touch()
        furthest = self.part.stat().st_size
        fruitless = 0
        while (offset := self.part.stat().st_size) < self.size:
            self.counter.show(offset)
            try:
                self._attempt(offset)
            except BrokenAnswer as broken:
                reached = self.part.stat().st_size
                # A trickle does not count as getting further.
                enough = self.policy.min_bytes_per_s * self.policy.stall_s
                fruitless = 0 if reached - furthest >= enough else fruitless + 1
                furthest = max(furthest, reached)
                if fruitless >= self.policy.attempts and reached < self.size:
                    raise DownloadInterrupted(
                        f"{public(self.url)} broke off at {reached} of {self.size} bytes, "
                        f"{fruitless} times in a row without getting further ({broken}); check "
                        "the connection and run this again"
                    ) from None
                tqdm.write(
                    f"{public(self.url)} broke off at {reached} of {self.size} bytes ({broken}); "
                    "going on from there",
                    file=sys.stderr,
                )
                pause(fruitless, self.policy)
        self.counter.show(self.size)

    def _attempt(self, offset: int) -> None:
        wanted = {"Range": f"bytes={offset}-"} if offset else {}
        with ask(self.session, self.url, self.policy, {**self.headers, **wanted}) as answer:
            given = answer.headers.get("Content-Range", "")
            right = re.fullmatch(rf"bytes {offset}-\d+/({self.size}|\*)", given)
            if (answer.status_code == 416 and offset) or (answer.status_code == 206 and not right):
                self.part.write_bytes(b"")
                raise BrokenAnswer(f"asked for the bytes from {offset}, the host gave {given!r}")
            check_status(answer, self.url, self.policy)
            chunks = chunks_of(answer, self.policy)
            first = next(chunks, b"")
            if answer.status_code == 200:
                offset = 0
                if is_page(first):
                    raise DownloadFailed(
                        f"{public(self.url)} gives a web page in place of a file of {self.size} "
                        "bytes; open it in a browser: it may ask for a login or have moved"
                    )
                if (length := answer.headers.get("Content-Length", "")) not in ("", str(self.size)):
                    raise self._wrong_size(length)
            try:
                with self.part.open("ab" if offset else "wb") as file:
                    for chunk in chain([first], chunks):
                        offset += len(chunk)
                        if offset > self.size:
                            raise self._wrong_size("more")
                        file.write(chunk)
                        file.flush()  # So that a killed download leaves all that it has counted.
                        self.counter.show(offset)
                        if offset == self.size:  # The host may keep the connection open.
                            return
            except OSError as error:
                raise DownloadInterrupted(
                    f"{self.part} cannot be written: {error.strerror}; make room, run this again"
                ) from error
            raise BrokenAnswer("the host closed the connection")

    def _wrong_size(self, found: str) -> _WrongFile:
        return _WrongFile(
            f"{public(self.url)} should be {self.size} bytes and the host sends {found}: not the "
            "file that was announced; look for a new version"
        )
