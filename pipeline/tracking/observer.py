"""Experiments in MLflow: one per data set, a parent run per DVC experiment, a child per fold.

Files are the truth: whatever fails here is a warning, never the end of a training, and
`log_experiment` adds from the files what was not logged live. No frames of anybody's face are
logged.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isclose, isfinite, nan
from pathlib import Path
from typing import Any

# Read by MLflow when it is imported: no usage reports, no chatter, and an unreachable server costs
# seconds, not minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag
from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from pipeline.tracking.runs import Choices, Store, flat_params, local_database


class FoldLog:
    """A fold's run in MLflow; after the first failure it stays silent."""

    def __init__(self, client: MlflowClient | None, run_id: str) -> None:
        self.client = client
        self.run_id = run_id
        # Of the epochs, also of those before a stop, which are logged again when it goes on.
        self.seconds = 0.0

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers; those that are not finite are left out."""
        self.seconds += values.get("seconds", 0.0)
        if self.client:
            with _tolerance(self._give_up):
                self.client.log_batch(self.run_id, metrics=_metrics(values, step))

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        if self.client:
            with _tolerance(self._give_up):
                self.client.set_terminated(self.run_id, status)

    def _give_up(self) -> None:
        self.client = None


@contextmanager
def track_fold(
    choices: Choices, fold: int, params: Mapping[str, Any], data_digest: str
) -> Iterator[FoldLog]:
    """Log a fold live, in a child run that ends with the block: finished, failed, or killed.

    The parent ends with it and is opened again by the next fold: nobody knows whether there will be
    one, nor whether the results will be new ones that DVC aggregates.

    Args:
        choices: See `Choices`.
        fold: Number of the fold.
        params: Parameters of the training.
        data_digest: SHA-256 of the shards' manifest, in hexadecimal.
    """
    log = parent_log = FoldLog(None, "")
    monitor: Any = None
    with _tolerance():
        store = Store(choices, data_digest)
        parent = store.find(aggregated="no")
        if parent:
            store.client.update_run(parent.info.run_id, "RUNNING")
        else:
            parent = store.create()
        log = FoldLog(store.client, store.create_child(parent, fold, params))
        parent_log = FoldLog(store.client, parent.info.run_id)
        if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():  # type: ignore[no-untyped-call]
            monitor = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
                log.run_id, tracking_uri=store.client.tracking_uri
            )
            monitor.start()
    start = time.perf_counter()
    status = "FAILED"
    try:
        yield log
        taken = max(time.perf_counter() - start, log.seconds)
        log.metrics({"training_seconds": taken})
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        if monitor:
            monitor.finish()
        log.end(status)
        if log.client:
            parent_log.end(status)


def log_experiment(
    choices: Choices,
    params: Mapping[str, Any],
    data_digest: str,
    folds: Mapping[int, tuple[list[dict[str, float]], dict[str, float]]],
    summary: Mapping[str, float],
    artifacts: list[Path],
    models: Mapping[int, Path],
) -> None:
    """Close the experiment's parent run with its aggregate.

    Folds that were not logged live to their end, because DVC took them from its cache or MLflow
    could not be reached, are added; a run with other metrics than the files', of a training with
    other parameters, is replaced. When the same results were logged before and no fold has run
    since, nothing is added.

    Args:
        choices: See `Choices`.
        params: Parameters of the whole experiment.
        data_digest: SHA-256 of the shards' manifest, in hexadecimal.
        folds: Learning curve (a dict per epoch, with `epoch`) and final metrics of each fold.
        summary: Metrics over all folds.
        artifacts: Tables and figures to attach; no pictures of faces.
        models: model.safetensors of the folds whose model is to be attached to their run.
    """
    digest = hashlib.sha256(
        json.dumps([sorted(summary.items()), sorted(folds)]).encode()
    ).hexdigest()
    with _tolerance():
        store = Store(choices, data_digest)
        parent = store.find(aggregated="no")
        if not parent:
            if store.find(result_digest=digest):
                return
            parent = store.create()
        client, run_id = store.client, parent.info.run_id
        children = {
            fold: run.info.run_id
            for fold, run in store.children(parent).items()
            if run.info.status == "FINISHED" and _agrees(run, folds.get(fold))
        }
        for fold, (history, metrics) in folds.items():
            if fold not in children:
                children[fold] = store.create_child(parent, fold, params)
                child = FoldLog(client, children[fold])
                for line in history:
                    child.metrics(line, step=int(line["epoch"]))
                child.metrics(metrics)
                child.end("FINISHED")
        for path in artifacts:
            client.log_artifact(run_id, str(path))
        with _tolerance():
            for fold, weights in models.items():
                store.add_model(children[fold], weights)
        closed = {"result_digest": digest, "aggregated": "yes"}
        client.log_batch(
            run_id,
            metrics=_metrics(summary, step=0),
            params=flat_params(params),
            tags=[RunTag(*tag) for tag in closed.items()],
        )
        client.set_terminated(run_id, "FINISHED")


def training_seconds(choices: Choices) -> float | None:
    """How long the training of a fold took, as the mean over the folds, each as last run live.

    Runs of every commit and DVC experiment count. None where MLflow knows of no such run.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI") and not local_database().exists():
        return None
    with _tolerance():
        return Store(choices).training_seconds()
    return None


@contextmanager
def _tolerance(on_failure: Callable[[], None] = lambda: None) -> Iterator[None]:
    try:
        yield
    # Each store and each cloud of artifacts has errors of its own, and none may end a training.
    except Exception as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        warnings.warn(
            f"MLflow: {reason}; going on without it, the files hold everything", stacklevel=4
        )
        on_failure()


def _agrees(run: Run, fold: tuple[list[dict[str, float]], dict[str, float]] | None) -> bool:
    """Whether a run ended with the final metrics of the fold's files."""
    if fold is None:
        return False
    logged = run.data.metrics
    finite = _finite(fold[1])
    return all(isclose(logged.get(name, nan), value) for name, value in finite.items())


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isfinite(value)}


def _metrics(values: Mapping[str, float], step: int) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, value, now, step) for name, value in _finite(values).items()]
