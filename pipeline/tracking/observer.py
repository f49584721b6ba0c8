"""Experiments in MLflow: one per data set, a parent run per DVC experiment, a child per fold.

An observer: files are the truth, and no stage's result rests on what happens here. Whatever fails
is a warning, never the end of a training, and `log_experiment` adds from the files what was not
logged live. No frames of anybody's face are logged.

MLflow is imported when something is logged for the first time: that takes it seconds, and a machine
that trains need not have it.
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
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.tracking import names
from pipeline.tracking.database import database_file, tracking_uri
from pipeline.tracking.experiment import TrackedExperiment, flat_params

if TYPE_CHECKING:
    from mlflow.entities import Run

    from pipeline.tracking.runs import Store

# Read by MLflow when it is imported: no usage reports, no chatter, and an unreachable server costs
# seconds, not minutes.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}


# Characters that MLflow's database takes of a description.
_LONGEST_NOTE = 8000


class FoldFiles(NamedTuple):
    """What a fold's files say: its history, a dict per epoch, and its final metrics."""

    history: list[dict[str, float]]
    metrics: dict[str, float]


class RunLog:
    """A run in MLflow; after the first failure it stays silent."""

    def __init__(self, store: "Store | None", run_id: str) -> None:
        self.store = store
        self.run_id = run_id
        # Of the epochs, also of those before a stop, which are logged again when it goes on.
        self.seconds = 0.0

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers; those that are not finite are left out."""
        self.seconds += values.get("seconds", 0.0)
        if self.store:
            with _tolerance(self._give_up):
                self.store.log_metrics(self.run_id, _finite(values), step)

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        if self.store:
            with _tolerance(self._give_up):
                self.store.client.set_terminated(self.run_id, status)

    def _give_up(self) -> None:
        self.store = None


@contextmanager
def track_fold(experiment: TrackedExperiment, fold: int) -> Iterator[RunLog]:
    """Log a fold live, in a child run that ends with the block: finished, failed, or killed.

    The parent ends with it and is opened again by the next fold: nobody knows whether there will be
    one, nor whether the results will be new ones that DVC aggregates.
    """
    log = parent_log = RunLog(None, "")
    end_monitor: Callable[[], None] | None = None
    with _tolerance():
        store = _open_store(experiment)
        parent = store.find_open()
        if parent:
            store.resume(parent)
        else:
            parent = store.create()
        log = RunLog(store, store.create_child(parent, fold))
        parent_log = RunLog(store, parent.info.run_id)
        end_monitor = store.start_monitor(log.run_id)
    start = time.perf_counter()
    status = "FAILED"
    try:
        yield log
        taken = max(time.perf_counter() - start, log.seconds)
        log.metrics({names.SECONDS: taken})
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        if end_monitor:
            with _tolerance(log._give_up):
                end_monitor()
        log.end(status)
        if log.store:
            parent_log.end(status)


@contextmanager
def track_training(experiment: TrackedExperiment) -> Iterator[RunLog]:
    """Log a training without folds live, in a run that ends with the block."""
    log = RunLog(None, "")
    with _tolerance():
        store = _open_store(experiment)
        # One that was stopped goes on.
        run = store.find_open() or store.create()
        store.resume(run)
        log = RunLog(store, run.info.run_id)
    status = "FAILED"
    try:
        yield log
        if log.store:
            with _tolerance():
                log.store.client.set_tag(log.run_id, names.AGGREGATED, "yes")
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        log.end(status)


def log_pictures(experiment: TrackedExperiment, folder: Path) -> None:
    """Attach the files of a folder to the newest run of a training without folds."""
    with _tolerance():
        store = _open_store(experiment)
        if run := store.find_by_name():
            store.client.log_artifacts(run.info.run_id, str(folder), "look")


def log_experiment(
    experiment: TrackedExperiment,
    folds: Mapping[int, FoldFiles],
    summary: Mapping[str, float],
    artifacts: list[Path],
    models: Mapping[int, Path],
    more_params: Mapping[str, Any],
) -> None:
    """Close the experiment's parent run with its aggregate.

    Folds that were not logged live to their end, because DVC took them from its cache or MLflow
    could not be reached, are added; a run with other metrics than the files', of a training with
    other code, is replaced. When the same results were logged before and no fold has run since,
    nothing is added.

    Args:
        experiment: As the folds were trained: with anything else it is another one.
        folds: What the files of each fold say.
        summary: Metrics over all folds.
        artifacts: Tables and figures to attach; no pictures of faces. The first one in Markdown
            is what the run says of itself, too.
        models: model.safetensors of the folds whose model is to be attached to their run.
        more_params: What no fold alone knows, nested, under names that the experiment's parameters
            do not have: which folds there are, and what they test.
    """
    with _tolerance():
        store = _open_store(experiment)
        results = [sorted(summary.items()), sorted(folds), sorted(flat_params(more_params).items())]
        digest = hashlib.sha256(json.dumps(results).encode()).hexdigest()
        parent = store.find_open()
        if not parent:
            if store.find_result(digest):
                return
            parent = store.create()
        children = _complete_children(store, parent, folds)
        run_id = parent.info.run_id
        for path in artifacts:
            store.client.log_artifact(run_id, str(path))
        with _tolerance():
            for fold, weights in models.items():
                store.add_model(children[fold], weights)
        tags = {names.RESULT: digest, names.AGGREGATED: "yes", **_note(artifacts)}
        store.close(run_id, metrics=_finite(summary), more_params=more_params, tags=tags)


def training_seconds(experiment: TrackedExperiment) -> float | None:
    """How long the training of a fold took, as the mean over the folds, each as last run live.

    Runs with the experiment's choices count, of every commit. None where MLflow knows of no such
    run.
    """
    database = database_file(tracking_uri())
    if database and not database.exists():
        return None
    with _tolerance():
        return _open_store(experiment).training_seconds()
    return None


def _open_store(experiment: TrackedExperiment) -> "Store":
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from pipeline.tracking.runs import Store

    return Store(experiment)


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


def _complete_children(
    store: "Store", parent: "Run", folds: Mapping[int, FoldFiles]
) -> dict[int, str]:
    """The run of every fold; one that is missing, or differs from the files, is made from them."""
    children = {
        fold: run.info.run_id
        for fold, run in store.children(parent).items()
        if run.info.status == "FINISHED" and fold in folds and _agrees(run, folds[fold])
    }
    for fold, files in folds.items():
        if fold not in children:
            children[fold] = store.create_child(parent, fold)
            child = RunLog(store, children[fold])
            for row in files.history:
                child.metrics(row, step=int(row["epoch"]))
            child.metrics(files.metrics)
            child.end("FINISHED")
    return children


def _agrees(run: "Run", files: FoldFiles) -> bool:
    """Whether a run ended with the final metrics of the fold's files."""
    logged = run.data.metrics
    return all(
        isclose(logged.get(names.grouped(name), nan), value)
        for name, value in _finite(files.metrics).items()
    )


def _note(artifacts: list[Path]) -> dict[str, str]:
    """The description of a run: whole lines, as many as MLflow takes."""
    page = next((path for path in artifacts if path.suffix == ".md"), None)
    if not page:
        return {}
    text = page.read_text(encoding="utf-8")
    if len(text) > _LONGEST_NOTE:
        text = text[:_LONGEST_NOTE].rpartition("\n")[0]
    return {"mlflow.note.content": text}


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isfinite(value)}
