"""How long a process waits for an MLflow server, all calls together."""

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread
from typing import Any, cast

from mlflow import MlflowClient

# A training of hours loses a minute at most.
LIMIT_S = 60.0
# What a call may take beside it: a good server far away does not lose a training of many epochs.
_FREE_S = 0.5
# Uploads have the time for their bytes beside it; a slower line counts as a server that is slow.
_UPLOADS = ("log_artifact", "log_artifacts", "log_model_artifacts")
_UPLOAD_BYTES_PER_S = 100_000


class _Clock:
    """Of one process."""

    waited_s = 0.0


def patient(client: MlflowClient) -> MlflowClient:
    """The client, whose calls end in a TimeoutError when all calls of this process took too long.

    A server that answers at last, each time after ten seconds or after it was asked again, would
    hold a training at every epoch, and one that sends its answer byte by byte for ever.
    """
    return cast(MlflowClient, _Patient(client))


def within_patience(name: str, call: Callable[[], Any], allowance_s: float = 0.0) -> Any:
    """The result of a call, in a thread that is left behind when all calls took too long.

    Args:
        name: Of whom the call waits for.
        call: What may take long.
        allowance_s: What it may take beside half a second; neither counts.

    Raises:
        TimeoutError: The process has waited `LIMIT_S`.
    """
    left, free = LIMIT_S - _Clock.waited_s, _FREE_S + allowance_s
    if left > 0:
        start = time.monotonic()
        future = _in_thread(call)
        done = wait([future], left + free).done
        _Clock.waited_s += max(0.0, time.monotonic() - start - free)
        if done:
            return future.result()
        _Clock.waited_s = max(_Clock.waited_s, LIMIT_S)
    raise TimeoutError(
        f"{name} took {_Clock.waited_s:.0f} s to answer, all calls together, and "
        f"{LIMIT_S:.0f} s are allowed"
    )


def _in_thread(call: Callable[[], Any]) -> Future[Any]:
    """The call's outcome; Python ends without waiting for the thread, as a pool's it would not."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        # Whatever it is goes to whoever waits.
        except BaseException as error:
            future.set_exception(error)

    Thread(target=work, daemon=True).start()
    return future


class _Patient:
    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._timed(name, found) if callable(found) else found

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            # Their arguments: a run or model, and what is uploaded.
            allowance_s = _size(Path(args[1])) / _UPLOAD_BYTES_PER_S if name in _UPLOADS else 0.0
            return within_patience(
                f"the server {self._client.tracking_uri}",
                lambda: call(*args, **kwargs),
                allowance_s,
            )

        return timed


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
