import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from project import ROOT

from pipeline.tracking import patience
from pipeline.tracking.experiment import TrackedExperiment
from pipeline.tracking.observer import track_fold
from pipeline.tracking.patience import patient, within_patience


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience._Clock, "waited_s", 0.0)


class SlowClient:
    """Takes a tenth of a second for a call and half a second for an upload, or for ever."""

    tracking_uri = "http://slow"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def log_batch(self, run_id: str) -> str:
        self.calls.append(run_id)
        Event().wait(None if run_id == "hangs" else 0.1)
        return f"logged {run_id}"

    def log_artifact(self, run_id: str, path: str) -> None:
        Event().wait(None if run_id == "hangs" else 0.5)


def test_no_more_calls_are_made_when_all_together_took_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "LIMIT_S", 2.0)
    monkeypatch.setattr(patience, "_FREE_S", 0.0)
    slow = SlowClient()
    client: Any = patient(slow)  # type: ignore[arg-type]
    assert client.log_batch("a") == "logged a"
    assert 0.1 <= patience._Clock.waited_s < 2
    assert client.log_batch("b") == "logged b"
    assert 0.2 <= patience._Clock.waited_s < 2
    with pytest.raises(TimeoutError, match=r"the server http://slow took 2 s .* 2 s are allowed"):
        client.log_batch("hangs")
    with pytest.raises(TimeoutError):
        client.log_batch("c")
    # Of another client too.
    with pytest.raises(TimeoutError):
        patient(slow).log_batch("d")  # type: ignore[arg-type]
    assert slow.calls == ["a", "b", "hangs"]


def test_a_server_that_answers_soon_is_waited_for_in_every_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "LIMIT_S", 0.2)
    client: Any = patient(SlowClient())  # type: ignore[arg-type]
    assert [client.log_batch(f"{epoch}") for epoch in range(5)][-1] == "logged 4"
    assert patience._Clock.waited_s == 0


def test_an_upload_has_the_time_for_its_bytes_and_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(patience, "LIMIT_S", 0.2)
    client: Any = patient(SlowClient())  # type: ignore[arg-type]
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(bytes(20 * patience._UPLOAD_BYTES_PER_S))
    small.write_bytes(b"small")
    client.log_artifact("a run", str(large))
    assert patience._Clock.waited_s == 0
    with pytest.raises(TimeoutError):
        client.log_artifact("hangs", str(small))


def test_what_a_call_raises_comes_through() -> None:
    def fail() -> None:
        raise ConnectionError("no route")

    with pytest.raises(ConnectionError, match="no route"):
        within_patience("the server", fail)


@pytest.fixture
def overloaded() -> Iterator[str]:
    """The address of a server that always asks to wait for a minute."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(429)
            self.send_header("Retry-After", "60")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_overloaded_server_holds_no_training_and_costs_one_warning(
    overloaded: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", overloaded)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    choices: dict[str, str | int] = {"dataset": "sample", "arch": "cascaded", "decoder": "vit"}
    choices |= {"model": "tiny", "recipe": "quick", "seed": 1}
    start = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with track_fold(TrackedExperiment(choices, {}, "0" * 64), 1) as log:
            for epoch in range(3):
                log.metrics({"train_loss": 1.0}, epoch)
    assert time.monotonic() - start < 40
    said = [str(one.message) for one in caught if str(one.message).startswith("MLflow: ")]
    assert len(said) == 1
    assert "going on without it" in said[0]


TRAINING = """
import threading
from pipeline.tracking import patience
from pipeline.tracking.experiment import TrackedExperiment
from pipeline.tracking.observer import track_fold

patience.LIMIT_S = 2.0
choices = {"dataset": "sample", "arch": "cascaded", "decoder": "vit"}
choices |= {"model": "tiny", "recipe": "quick", "seed": 1}
with track_fold(TrackedExperiment(choices, {}, "0" * 64), 1) as log:
    log.metrics({"train_loss": 1.0}, 1)
print(f"trained, and {threading.active_count() - 1} thread still waits")
"""


@pytest.fixture
def trickling() -> Iterator[str]:
    """The address of a server whose answers come byte by byte, for minutes."""
    over = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "3000")
            self.end_headers()
            with suppress(ConnectionError):
                for _ in range(3000):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    if over.wait(0.2):
                        return

        do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    over.set()
    server.shutdown()
    server.server_close()


def test_an_answer_that_trickles_holds_neither_a_training_nor_its_end(
    trickling: str, project: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAINING],
        env=os.environ | {"MLFLOW_TRACKING_URI": trickling, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        # The answer would take ten minutes.
        timeout=400,
    )
    assert done.stdout == "trained, and 1 thread still waits\n"
    assert done.stderr.count("going on without it") == 1
    assert "took 2 s to answer, all calls together, and 2 s are allowed" in done.stderr
