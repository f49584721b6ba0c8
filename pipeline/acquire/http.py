"""Asking a web host for something, patiently, with errors that say what is wrong.

Messages leave out everything after the `?` of an address, which may be a password. For the same
reason errors of the libraries below are not chained to ours: a traceback would show them.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from pipeline.acquire.retries import SpokenRetry, reason_of
from pipeline.common.hosts import MAX_PAUSE_S, RetryPolicy, pause, public
from pipeline.common.strangers import refusing, words_of

CHUNK_BYTES = 2**18
MAX_JSON_BYTES = 2**26


class DownloadFailed(RuntimeError):
    """What could not be had, why, and what to do about it."""

    worth_resuming = True


class DownloadInterrupted(DownloadFailed):
    """The connection or the disk gave up; the same call later goes on where this one was."""


class HostRefusal(DownloadFailed):
    """The host answered with an error: its status and, if it gave any, its reason."""

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.worth_resuming = status not in (404, 410)


class BrokenAnswer(Exception):
    """An answer ended before its time; asking again may help."""


def open_session(policy: RetryPolicy) -> requests.Session:
    """A session, which threads may share, that asks an overloaded or unreachable host again."""
    # It would print whole addresses, passwords included.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    session = requests.Session()
    # Cookies are the only thing in a session that answers change.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    # The size of a compressed answer is not that of the file.
    session.headers["Accept-Encoding"] = "identity"
    retry = SpokenRetry(
        total=policy.attempts - 1,
        status_forcelist={408, 429, 500, 502, 503, 504},
        allowed_methods=None,  # Nothing that is posted here changes anything at the host.
        backoff_factor=policy.pause_s,
        retry_after_max=MAX_PAUSE_S,
        raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=32))
    return session


def get_json(session: requests.Session, url: str, policy: RetryPolicy) -> Any:
    """The JSON document at an address.

    Raises:
        DownloadFailed: It cannot be had, or what is there is no JSON, or larger than 64 MiB.
    """
    return _json(session, url, policy, {}, None)


def post_json(
    session: requests.Session, url: str, body: Any, headers: Mapping[str, str], policy: RetryPolicy
) -> Any:
    """The JSON document that the host answers to another one.

    Raises:
        DownloadFailed: As in `get_json`.
    """
    headers = {"Content-Type": "application/json", **headers}
    return _json(session, url, policy, headers, json.dumps(body).encode())


def _json(
    session: requests.Session,
    url: str,
    policy: RetryPolicy,
    headers: Mapping[str, str],
    data: bytes | None,
) -> Any:
    for attempt in range(1, policy.attempts + 1):
        with ask(session, url, policy, headers, data) as answer:
            check_status(answer, url, policy)
            try:
                body = _read(answer, policy, MAX_JSON_BYTES + 1)
                break
            except BrokenAnswer as broken:
                if attempt == policy.attempts:
                    raise DownloadInterrupted(
                        f"{public(url)} broke off {attempt} times ({broken}); check the connection "
                        "and run this again"
                    ) from None
        pause(attempt, policy)
    if len(body) > MAX_JSON_BYTES:
        raise DownloadFailed(f"{public(url)} gives more than {MAX_JSON_BYTES >> 20} MiB of JSON")
    found = "a web page" if is_page(body) else "something else"
    with refusing(
        lambda error: DownloadFailed(
            f"{public(url)} gives {found} in place of JSON ({words_of(error)}); open it in a "
            "browser: it may ask for a login or have moved"
        )
    ):
        return json.loads(body)


def ask(
    session: requests.Session,
    url: str,
    policy: RetryPolicy,
    headers: Mapping[str, str],
    data: bytes | None = None,
) -> requests.Response:
    """The host's answer, whatever its status, with the body not read yet; POST if there is data.

    Raises:
        DownloadFailed: The address makes no sense, or nobody answers.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise DownloadFailed(f"{public(url)} is no http or https address")
    method = "GET" if data is None else "POST"
    timeout = (policy.connect_s, policy.stall_s)

    # Of TypeError and UnicodeError too, for an odd address that the host redirects to.
    def refusal(error: Exception) -> DownloadFailed:
        return DownloadFailed(f"{public(url)} cannot be fetched: {reason_of(error)}")

    unreachable = (requests.ConnectionError, requests.Timeout)
    try:
        with refusing(refusal, but=unreachable):
            return session.request(
                method, url, headers=dict(headers), data=data, stream=True, timeout=timeout
            )
    except unreachable as error:
        raise DownloadInterrupted(
            f"{public(url)} cannot be reached ({reason_of(error)}); check the connection and run "
            "this again"
        ) from None


def check_status(answer: requests.Response, url: str, policy: RetryPolicy) -> None:
    """Make sure that the answer is what was asked for.

    Raises:
        HostRefusal: The host says that it is not.
    """
    status = answer.status_code
    if status in (200, 206):
        return
    reason = _reason_in(answer, policy)
    if status in range(300, 400):
        advice = "it sends elsewhere without saying where: check the address"
    elif status in (401, 403):
        advice = "it may ask for a login or want fewer requests: open it in a browser, or wait"
    elif status in (404, 410):
        advice = "it is no longer there: check the address, look for a new version"
    else:
        advice = "run this again later"
    said = f"HTTP {status} {answer.reason or ''}".strip() + (f", {reason!r}" if reason else "")
    raise HostRefusal(f"{public(url)}: the host answers {said}; {advice}", status, reason)


def _reason_in(answer: requests.Response, policy: RetryPolicy) -> str:
    """What a refusal gives as its reason; empty for most hosts."""
    try:
        with refusing(lambda error: BrokenAnswer(words_of(error))):
            reason = str(json.loads(_read(answer, policy, 2**16))["message"])
    except BrokenAnswer:
        return ""
    # A host's words reach a terminal.
    return "".join(filter(str.isprintable, reason))[:300]


def chunks_of(answer: requests.Response, policy: RetryPolicy) -> Iterator[bytes]:
    """The body as it comes in.

    Raises:
        BrokenAnswer: The host falls silent or becomes too slow.
    """
    since, num_bytes = time.monotonic(), 0
    while True:
        with refusing(lambda error: BrokenAnswer(reason_of(error))):
            # Unlike `iter_content`, gives what there is without waiting for a chunk to be full.
            chunk = answer.raw.read1(CHUNK_BYTES, decode_content=False)
        if not chunk:
            return
        yield chunk
        num_bytes += len(chunk)
        elapsed = time.monotonic() - since
        if elapsed >= policy.stall_s:
            if num_bytes < policy.min_bytes_per_s * elapsed:
                raise BrokenAnswer(f"fewer than {policy.min_bytes_per_s:.0f} bytes per second")
            since, num_bytes = time.monotonic(), 0


def _read(answer: requests.Response, policy: RetryPolicy, max_bytes: int) -> bytes:
    body = bytearray()
    for chunk in chunks_of(answer, policy):
        body += chunk
        if len(body) >= max_bytes:
            break
    return bytes(body[:max_bytes])


def is_page(body: bytes) -> bool:
    """Whether this is the beginning of a web page."""
    start = body[:256].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith((b"<!doctype", b"<html", b"<head", b"<!--"))
