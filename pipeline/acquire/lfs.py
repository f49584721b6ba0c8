"""Fetching files of a Git LFS repository without git: by path, SHA-256 and size.

Source: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md
"""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import requests
from tqdm import tqdm

from pipeline.acquire.download import check_space, download
from pipeline.acquire.http import (
    DownloadFailed,
    DownloadInterrupted,
    HostRefusal,
    open_session,
    post_json,
)
from pipeline.common.files import sha256_of
from pipeline.common.hosts import RetryPolicy

# Links expire, so no more of them than are soon used.
BATCH_SIZE = 100
MEDIA_TYPE = "application/vnd.git-lfs+json"


class LfsObject(NamedTuple):
    """A file that the repository holds as a pointer."""

    # Relative, with forward slashes.
    path: str
    sha256: str
    # In bytes.
    size: int


class BudgetSpent(DownloadFailed):
    """The repository's owner has no bandwidth or storage left at the host."""


def fetch_objects(
    address: str,
    objects: Sequence[LfsObject],
    folder: Path,
    *,
    policy: RetryPolicy,
    num_threads: int = 8,
) -> None:
    """Bring the objects to their paths in a folder, except those that are there and right.

    Args:
        address: The repository's, such as `https://github.com/owner/name.git`.
        objects: Of the repository.
        folder: Need not exist.
        policy: How long to wait, how often to ask again.
        num_threads: That download at the same time.

    Raises:
        BudgetSpent: At once.
        DownloadFailed: Some objects cannot be had; all others have been fetched. Or the host as a
            whole cannot be reached or makes no sense.
        ValueError: An object's path leads out of the folder, or two objects have one path.
    """
    objects = list(dict.fromkeys(objects))
    _check(objects, folder)
    with ThreadPoolExecutor(num_threads) as pool:
        is_there = list(pool.map(partial(_is_there, folder), objects))
    missing = [item for item, there in zip(objects, is_there, strict=True) if not there]
    num_bytes = sum(item.size for item in missing)
    print(
        f"{len(missing)} of {len(objects)} files ({num_bytes / 1e6:.1f} MB) are to be fetched from "
        f"{address} to {folder}",
        flush=True,
    )
    check_space(folder, num_bytes)
    with (
        open_session(policy) as session,
        tqdm(total=num_bytes, unit="B", unit_scale=True, mininterval=1) as progress,
    ):
        fetch = partial(_fetch_all, session, address, folder, policy, num_threads, progress)
        failures = fetch(missing)
        # A link may have expired while it waited for its turn.
        refused = [item for item in failures if isinstance(failures[item], HostRefusal)]
        for item in refused:
            del failures[item]
        failures |= fetch(refused)
    if failures:
        few = "\n".join(f"  {item.path}: {failures[item]}" for item in list(failures)[:5])
        raise DownloadFailed(
            f"{len(failures)} of {len(objects)} files could not be fetched from {address}; all "
            f"others are in {folder}. Run this again, or report them to the host. The first "
            f"{min(5, len(failures))}:\n{few}"
        )


def _check(objects: Sequence[LfsObject], folder: Path) -> None:
    by_path: dict[str, LfsObject] = {}
    for item in objects:
        path = PurePosixPath(item.path)
        leads_out = path.is_absolute() or PureWindowsPath(item.path).anchor or ".." in path.parts
        inside = (folder / path).parent.resolve().is_relative_to(folder.resolve())
        if leads_out or not inside or not path.name:
            raise ValueError(f"the path {item.path!r} leads out of {folder}")
        if not re.fullmatch("[0-9a-f]{64}", item.sha256) or item.size < 0:
            raise ValueError(f"{item.path}: {item.sha256!r}, {item.size} are no SHA-256 and size")
        if by_path.setdefault(str(path), item) != item:
            raise ValueError(f"two objects have the path {item.path!r}")


def _is_there(folder: Path, item: LfsObject) -> bool:
    path = folder / item.path
    return path.is_file() and path.stat().st_size == item.size and sha256_of(path) == item.sha256


def _fetch_all(
    session: requests.Session,
    address: str,
    folder: Path,
    policy: RetryPolicy,
    num_threads: int,
    progress: "tqdm[Any]",
    items: Sequence[LfsObject],
) -> dict[LfsObject, DownloadFailed]:
    """Fetch every object that can be had; why the others could not be."""
    failures: dict[LfsObject, DownloadFailed] = {}
    num_interrupted = 0

    def fetch(item: LfsObject, answer: Mapping[str, Any]) -> None:
        url, headers = _action(address, item, answer)
        download(
            session,
            url,
            folder / item.path,
            checksum=f"sha256:{item.sha256}",
            size=item.size,
            headers=headers,
            policy=policy,
            progress=progress,
        )

    pool = ThreadPoolExecutor(num_threads)
    try:
        for start in range(0, len(items), BATCH_SIZE):
            batch = items[start : start + BATCH_SIZE]
            answers = _ask(session, address, batch, policy)
            futures = {
                pool.submit(fetch, item, answers.get(item.sha256, {})): item for item in batch
            }
            for future in as_completed(futures):
                try:
                    future.result()
                except DownloadFailed as failure:
                    if isinstance(failure, HostRefusal):
                        _check_budget(address, failure.status, failure.reason)
                    failures[futures[future]] = failure
                    num_interrupted += isinstance(failure, DownloadInterrupted)
                    # As many cannot be a coincidence, and each takes minutes.
                    if isinstance(failure, BudgetSpent) or num_interrupted > num_threads:
                        raise
    finally:
        # After an error nothing new is begun.
        pool.shutdown(cancel_futures=True)
    return failures


def _ask(
    session: requests.Session, address: str, items: Sequence[LfsObject], policy: RetryPolicy
) -> dict[str, Mapping[str, Any]]:
    """What the host says about each object, by SHA-256."""
    url = f"{address.rstrip('/').removesuffix('.git')}.git/info/lfs/objects/batch"
    sizes = {item.sha256: item.size for item in items}
    body = {
        "operation": "download",
        "transfers": ["basic"],
        "hash_algo": "sha256",
        "objects": [{"oid": oid, "size": size} for oid, size in sizes.items()],
    }
    try:
        answer = post_json(
            session, url, body, {"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE}, policy
        )
    except HostRefusal as refused:
        _check_budget(address, refused.status, refused.reason)
        raise
    entries = _mapping(answer).get("objects")
    if not isinstance(entries, list) or _mapping(answer).get("transfer", "basic") != "basic":
        raise DownloadFailed(f"{url} does not answer as a Git LFS host; check the address")
    return {str(_mapping(entry).get("oid")): _mapping(entry) for entry in entries}


def _action(address: str, item: LfsObject, answer: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Where to get an object, and the headers to send there."""
    if error := _mapping(answer.get("error")):
        code, message = error.get("code"), str(error.get("message", ""))
        _check_budget(address, code, message)
        raise DownloadFailed(f"the host answers {code}, {_keep_printable(message)!r}")
    action = _mapping(_mapping(answer.get("actions")).get("download"))
    url, headers = action.get("href"), action.get("header") or {}
    if not isinstance(url, str) or not isinstance(headers, dict):
        raise DownloadFailed("the host gives no address for it")
    if answer.get("size") != item.size:
        raise DownloadFailed(
            f"the host has {answer.get('size')!r} bytes of it in place of {item.size}"
        )
    return url, {str(name): str(value) for name, value in headers.items()}


def _check_budget(address: str, code: Any, message: str) -> None:
    # GitHub answers 403 or 429 to whatever it refuses; only the words tell.
    if code == 509 or re.search("quota|bandwidth|budget", message, re.IGNORECASE):
        raise BudgetSpent(
            f"{address} has used up its bandwidth or storage at the host ({code}, "
            f"{_keep_printable(message)!r}); what has been fetched is kept. Run this again when "
            "the budget is renewed (GitHub: each month), or get the files elsewhere"
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    """A JSON object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def _keep_printable(message: str) -> str:
    return "".join(filter(str.isprintable, message))[:300]
