"""A web host on this machine that serves given bytes, and goes wrong when it is told to."""

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from pathlib import Path
from socket import SHUT_RDWR, socket
from threading import Lock, Thread
from types import TracebackType
from typing import Any, NamedTuple, Self


class Fault(Enum):
    """What goes wrong with one answer."""

    CUT = auto()  # Half of the body, then the connection is closed.
    DROP = auto()  # Closed before any answer.
    WRONG_BYTES = auto()  # As many as the right ones.
    LONGER = auto()  # By four bytes, and the length says so.
    ENDLESS = auto()  # Zeros, without a length.
    TRICKLE = auto()  # `trickle_bytes` every `trickle_pause_s`.
    SILENCE = auto()  # Half of the body, then nothing for a second.
    PAGE = auto()  # A web page.
    IGNORE_RANGE = auto()
    WRONG_RANGE = auto()  # Says that it sends from the first byte.
    NO_RANGE = auto()  # 416
    REDIRECT = auto()  # To `location`
    FORBIDDEN = auto()  # 403
    NOT_FOUND = auto()  # 404
    TOO_MANY = auto()  # 429, with `retry_after` seconds
    SERVER_ERROR = auto()  # 500


STATUS = {
    Fault.NO_RANGE: 416,
    Fault.FORBIDDEN: 403,
    Fault.NOT_FOUND: 404,
    Fault.TOO_MANY: 429,
    Fault.SERVER_ERROR: 500,
}
LFS_ENDPOINT = ".git/info/lfs/objects/batch"
PAGE = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"


class Request(NamedTuple):
    """What a client asked for; `range` is its Range header, `path` is without the query."""

    method: str
    path: str
    range: str | None
    headers: Mapping[str, str]
    query: str


class Host:
    """Serves until the block ends; whatever it is given may be changed while it serves.

    >>> with Host() as host:
    ...     host.add("/file", b"content")
    ...     host.fail("/file", Fault.CUT, times=2)
    ...     url = host.address + "/file"
    """

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.statuses: dict[str, int] = {}
        self.lfs: dict[str, dict[str, bytes]] = {}
        # Repositories without budget, and SHA-256s that the host says it has not.
        self.over_quota: set[str] = set()
        self.lost: set[str] = set()
        self.requests: list[Request] = []
        self.retry_after = 0
        # Where redirects lead; None says nothing of it.
        self.location: str | None = "?moved"
        self.trickle_bytes = 10
        self.trickle_pause_s = 0.02
        self._faults: dict[str, deque[Fault]] = {}
        self._lock = Lock()
        self._connections: list[socket] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def add(self, path: str, content: bytes) -> None:
        """Serve bytes at a path that begins with a slash."""
        self.contents[path] = content

    def add_folder(self, path: str, folder: Path) -> str:
        """Serve the files of a folder as they are now; its address here."""
        for file in folder.iterdir():
            self.add(f"{path}/{file.name}", file.read_bytes())
        return self.address + path

    def add_hub_file(self, repository: str, file: str, content: bytes, revision: str) -> str:
        """Serve a file of a model repository as Hugging Face does; its path here."""
        path = f"/{repository}/resolve/{revision}/{file}"
        self.add(path, content)
        self.headers[path] = {
            "X-Repo-Commit": "0123456789abcdef0123456789abcdef01234567",
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "ETag": '"etag"',
        }
        return path

    def add_json(self, path: str, value: Any) -> None:
        """Serve a JSON document."""
        self.add(path, json.dumps(value).encode())

    def add_record(self, number: str, files: Mapping[str, bytes]) -> None:
        """Serve a Zenodo record at /api/records/<number>, and its files."""
        entries = []
        for name, content in files.items():
            path = f"/api/records/{number}/files/{name}/content"
            self.add(path, content)
            entries.append(
                {
                    "key": name,
                    "size": len(content),
                    "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
                    "links": {"self": self.address + path},
                }
            )
        self.add_json(f"/api/records/{number}", {"id": int(number), "files": entries})

    def add_lfs(self, repository: str, objects: Iterable[bytes]) -> dict[bytes, str]:
        """Serve Git LFS objects of owner/name at /lfs/<SHA-256>; the SHA-256 of each."""
        oids = {content: hashlib.sha256(content).hexdigest() for content in objects}
        self.lfs[repository] = {oid: content for content, oid in oids.items()}
        for content, oid in oids.items():
            self.add(f"/lfs/{oid}", content)
        return oids

    def fail(self, path: str, *faults: Fault, times: int = 1) -> None:
        """Go wrong in these ways, in this order, with the next requests of a path."""
        self._faults.setdefault(path, deque()).extend(faults * times)

    def ranges(self, path: str) -> list[str | None]:
        """The Range header of each request of a path."""
        return [request.range for request in self.requests if request.path == path]

    def next_fault(self, path: str) -> Fault | None:
        with self._lock:
            waiting = self._faults.get(path)
            return waiting.popleft() if waiting else None

    def batch(self, repository: str, body: Any) -> tuple[int, Any]:
        """The answer of the Git LFS batch API, with its status."""
        if repository in self.over_quota:
            return 403, {
                "message": "This repository is over its data quota. Account responsible for LFS "
                "bandwidth should purchase more data packs to restore access.",
                "documentation_url": "https://docs.github.com",
            }
        objects: list[dict[str, Any]] = []
        for asked in body["objects"]:
            oid = asked["oid"]
            if oid in self.lost or oid not in self.lfs[repository]:
                error = {"code": 404, "message": "Object does not exist"}
                objects.append({**asked, "error": error})
            else:
                download = {
                    "href": f"{self.address}/lfs/{oid}?token=secret",
                    "header": {"X-Ticket": oid},
                }
                objects.append({**asked, "actions": {"download": download}})
        return 200, {"transfer": "basic", "objects": objects}

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close every connection, and take no other."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(SHUT_RDWR)


def _handler(host: Host) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            host._connections.append(self.connection)

        def do_GET(self) -> None:
            path, fault = self.begin()
            content = host.contents.get(path)
            if content is None:
                self.answer(404, b"", {}, fault)
                return
            given = self.headers["Range"]
            first, _, last = (given or "bytes=0-").removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else len(content)
            if start >= len(content) > 0:
                fault = Fault.NO_RANGE
            if given is None or fault is Fault.IGNORE_RANGE:
                self.answer(host.statuses.get(path, 200), content, {}, fault)
            else:
                said = 0 if fault is Fault.WRONG_RANGE else start
                part = content[start:end]
                place = f"bytes {said}-{said + len(part) - 1}/{len(content)}"
                self.answer(206, part, {"Content-Range": place}, fault)

        def do_HEAD(self) -> None:
            path, fault = self.begin()
            content = host.contents.get(path)
            status = STATUS.get(fault, 200) if fault else 200
            self.send_response(404 if content is None else status)
            for name, value in host.headers.get(path, {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path, fault = self.begin()
            status, answer = host.batch(path.removesuffix(LFS_ENDPOINT).strip("/"), body)
            self.answer(status, json.dumps(answer).encode(), {}, fault)

        def begin(self) -> tuple[str, Fault | None]:
            path, _, query = self.path.partition("?")
            headers = dict(self.headers.items())
            given = self.headers["Range"]
            host.requests.append(Request(self.command, path, given, headers, query))
            return path, host.next_fault(path)

        def answer(
            self, status: int, content: bytes, headers: dict[str, str], fault: Fault | None
        ) -> None:
            length = len(content)
            pieces, pause_s = [content], 0.0
            if fault in STATUS:
                status, pieces, length = STATUS[fault], [], 0
                headers = {"Retry-After": str(host.retry_after)} if status == 429 else {}
            elif fault is Fault.REDIRECT:
                status, pieces, length = 302, [], 0
                headers = {} if host.location is None else {"Location": host.location}
            elif fault is Fault.PAGE:
                status, pieces, length, headers = 200, [PAGE], len(PAGE), {}
            elif fault is Fault.WRONG_BYTES:
                pieces = [bytes(byte ^ 1 for byte in content)]
            elif fault is Fault.LONGER:
                pieces, length = [content + b"more"], length + 4
            elif fault is Fault.CUT:
                pieces = [content[: length // 2]]
            elif fault is Fault.SILENCE:
                pieces, pause_s = [content[: length // 2], b""], 1.0
            elif fault is Fault.TRICKLE:
                step = host.trickle_bytes
                pieces = [content[at : at + step] for at in range(0, length, step)]
                pause_s = host.trickle_pause_s
            if fault in (Fault.CUT, Fault.DROP, Fault.SILENCE, Fault.ENDLESS):
                self.close_connection = True
            # The client may have had enough.
            with suppress(ConnectionError):
                if fault is Fault.DROP:
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if fault is not Fault.ENDLESS:
                    self.send_header("Content-Length", str(length))
                self.end_headers()
                for piece in repeat(bytes(2**16)) if fault is Fault.ENDLESS else pieces:
                    self.wfile.write(piece)
                    time.sleep(pause_s)

        def log_message(self, *_: object) -> None:
            """Say nothing: `requests` has it all."""

    return Handler
