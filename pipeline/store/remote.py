"""Shards on a host, read by byte ranges through fsspec.

http and https are tried; s3, sftp and others need a package of their own, which fsspec names.

Messages leave out what may be a password in an address, and errors of the libraries below are not
chained to ours, because a traceback would show it.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from io import BufferedIOBase, BytesIO
from itertools import count, islice
from typing import Any, NamedTuple

import aiohttp
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from pipeline.common.hosts import RetryPolicy, pause, public
from pipeline.store.clip_cache import ClipCache
from pipeline.store.contents import ClipContent, Place, unpack_verified

# Requests of one process at a time.
AT_ONCE = 16
# A host that answers so may answer otherwise later; those from 500 on are others.
_PASSING = (408, 425, 429)


class _Part(NamedTuple):
    """What is asked for: bytes of a file, or all of it."""

    what: str
    file: str
    start: int | None = None
    end: int | None = None


class RemoteShards:
    """Shards below an address; see `Shards`.

    Clips are fetched many at a time, verified against the manifest and kept in the cache. Small
    files are fetched once.

    Args:
        address: Of the folder; what stands behind a `?` is sent with every file of it.
        cache: For clips.
        policy: How long to wait, and how often to ask again.

    Raises:
        ValueError: fsspec knows no such address, or misses a package for it.
    """

    def __init__(self, address: str, cache: ClipCache, policy: RetryPolicy) -> None:
        self.address = address
        self.cache = cache
        self.policy = policy
        # Every process has its own: connections, and the thread that serves them, do not outlive a
        # fork. A child holds on to its parent's: to close them, it would wait for that thread.
        self._systems: dict[int, tuple[AbstractFileSystem, str]] = {}
        self._files: dict[str, bytes] = {}
        try:
            self._system()
        except (ImportError, ValueError) as error:
            raise ValueError(f"{self} cannot be read: {error}") from None

    def __str__(self) -> str:
        return public(self.address).rstrip("/")

    def open(self, name: str) -> BufferedIOBase:
        """See `Shards`.

        Raises:
            FileNotFoundError: There is no such file.
            ConnectionError: The host does not answer, also when it is asked again.
            ValueError: The host refuses.
        """
        if name not in self._files:
            [self._files[name]] = self._fetch([_Part("it", name)])
        return BytesIO(self._files[name])

    def read(self, places: Iterable[Place]) -> Iterator[ClipContent]:
        """See `Shards`; raises as `open` does, too."""
        remaining = iter(places)
        while some := list(islice(remaining, AT_ONCE)):
            found = {place: content for place in some if (content := self._kept(place))}
            missing = [place for place in dict.fromkeys(some) if place not in found]
            wanted = [_Part(p.clip, p.shard, p.first_byte, p.end) for p in missing]
            for place, part in zip(missing, self._fetch(wanted), strict=True):
                found[place] = unpack_verified(part, place, self)
                self.cache.put(_key(place), part)
            yield from (found[place] for place in some)

    def _kept(self, place: Place) -> ClipContent | None:
        part = self.cache.get(_key(place))
        if part is None:
            return None
        try:
            return unpack_verified(part, place, self)
        except ValueError:
            self.cache.drop(_key(place))
            return None

    def _fetch(self, parts: Sequence[_Part]) -> list[bytes]:
        """The bytes of some parts; those that cannot be had are asked for again."""
        found: dict[_Part, bytes] = {}
        for attempt in count(1):
            missing = [part for part in parts if part not in found]
            answers = dict(zip(missing, self._ask(missing), strict=True))
            found |= {part: each for part, each in answers.items() if isinstance(each, bytes)}
            failures = {part: each for part, each in answers.items() if not isinstance(each, bytes)}
            if not failures:
                break
            for part, error in failures.items():
                if attempt == self.policy.attempts or _is_final(error):
                    raise self._failure(part, error, attempt) from None
            if attempt == 1:
                print(f"{self}: {_reason(error)}; asking again", flush=True)
            pause(attempt, self.policy)
        return [found[part] for part in parts]

    def _ask(self, parts: Sequence[_Part]) -> list[bytes | BaseException]:
        """Ask for all parts at the same time; an error stands where a part could not be had."""
        system, root = self._system()
        folder, mark, query = root.partition("?")
        paths = [f"{folder.rstrip('/')}/{part.file}{mark}{query}" for part in parts]
        starts, ends = [part.start for part in parts], [part.end for part in parts]
        answers: list[bytes | BaseException] = system.cat_ranges(
            paths, starts, ends, on_error="return"
        )
        return answers

    def _system(self) -> tuple[AbstractFileSystem, str]:
        """This process's connections, and the folder as fsspec calls it."""
        process = os.getpid()
        if process not in self._systems:
            web = self.address.startswith(("http://", "https://"))
            options = {"get_client": partial(_open_session, self.policy)} if web else {}
            self._systems[process] = url_to_fs(self.address, skip_instance_cache=True, **options)
        return self._systems[process]

    def _failure(self, part: _Part, error: BaseException, attempts: int) -> Exception:
        message = f"{self}/{part.file}: {part.what} cannot be read: {_reason(error)}"
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(message)
        if _is_final(error):
            return ValueError(message)
        return ConnectionError(
            f"{message}; asked {attempts} times. Run this again when the host answers: a training "
            "goes on where it was"
        )


def _key(place: Place) -> str:
    return hashlib.sha256(f"{place.digest} {place.clip}".encode()).hexdigest()


def _is_final(error: BaseException) -> bool:
    """Whether it is of no use to ask again."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status not in _PASSING and status < 500
    return isinstance(error, FileNotFoundError | PermissionError | ValueError)


def _reason(error: BaseException) -> str:
    """What an error says, without addresses."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return f"the host answers HTTP {status} {getattr(error, 'message', '')}".strip()
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    said = re.sub(r"\S+://\S+|\?\S+", "", str(error)).strip()
    return said or type(error).__name__


async def _open_session(policy: RetryPolicy, **settings: Any) -> aiohttp.ClientSession:
    """A session as fsspec wants it, with the user's own settings for fsspec above ours."""
    # The bytes of a compressed answer are not those of the file.
    headers = {"Accept-Encoding": "identity"} | settings.pop("headers", {})
    ours: dict[str, Any] = {
        "timeout": aiohttp.ClientTimeout(
            total=None, sock_connect=policy.connect_s, sock_read=policy.stall_s
        ),
        # Proxies and ~/.netrc, as the downloads know them.
        "trust_env": True,
        "middlewares": (_refuse_whole_files,),
    }
    return aiohttp.ClientSession(headers=headers, **(ours | settings))


async def _refuse_whole_files(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A host without ranges would send a whole shard for every clip."""
    answer = await handler(request)
    if "Range" in request.headers and answer.status == 200:
        answer.close()
        raise ValueError(
            "the host has no byte ranges, it sends the whole file; serve the folder by one that "
            "has them (nginx, Apache, S3), or copy it here"
        )
    return answer
