"""How long a process waits for an MLflow server, all calls together."""

import time
from collections.abc import Callable
from typing import Any, cast

from mlflow import MlflowClient

# A training of hours loses a minute at most. A call that has begun is not broken off; MLflow's own
# timeout does that.
LIMIT_S = 60.0
# Take as long as their files are large.
_UPLOADS = ("log_artifact", "log_artifacts", "log_model_artifacts")


class _Clock:
    """Of one process."""

    waited_s = 0.0


def patient(client: MlflowClient) -> MlflowClient:
    """The client, whose calls end in a TimeoutError when all calls of this process took too long.

    A server that answers at last, each time after ten seconds or after it was asked again, would
    hold a training at every epoch.
    """
    return cast(MlflowClient, _Patient(client))


class _Patient:
    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._timed(name, found) if callable(found) else found

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if _Clock.waited_s >= LIMIT_S:
                raise TimeoutError(
                    f"the server {self._client.tracking_uri} took {_Clock.waited_s:.0f} s to "
                    f"answer, all calls together, and {LIMIT_S:.0f} s are allowed"
                )
            start = time.monotonic()
            try:
                return call(*args, **kwargs)
            finally:
                if name not in _UPLOADS:
                    _Clock.waited_s += time.monotonic() - start

        return timed
