import time
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pipeline.tracking import patience
from pipeline.tracking.experiment import TrackedExperiment
from pipeline.tracking.observer import track_fold
from pipeline.tracking.patience import patient


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience._Clock, "waited_s", 0.0)


class SlowClient:
    """Takes a while for every call."""

    tracking_uri = "http://slow"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def log_batch(self, run_id: str) -> str:
        self.calls.append(run_id)
        time.sleep(0.1)
        return f"logged {run_id}"

    def log_artifact(self, run_id: str) -> None:
        time.sleep(0.3)


def test_no_more_calls_are_made_when_all_together_took_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "LIMIT_S", 0.15)
    slow = SlowClient()
    client: Any = patient(slow)  # type: ignore[arg-type]
    client.log_artifact("uploads are as long as they are")
    assert client.log_batch("a") == "logged a"
    client.log_batch("b")
    with pytest.raises(TimeoutError, match=r"the server http://slow took 0 s .* 0 s are allowed"):
        client.log_batch("c")
    # Of another client too.
    with pytest.raises(TimeoutError):
        patient(slow).log_artifact("d", "file")  # type: ignore[arg-type]
    assert slow.calls == ["a", "b"]


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
