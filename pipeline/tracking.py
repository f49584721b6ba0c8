"""Experiments in MLflow: one per data set, a parent run per DVC experiment, a child per fold.

The only module that knows MLflow. Files are the truth: whatever fails here is a warning, never the
end of a training, and `log_experiment` adds from the files what was not logged live. No frames of
anybody's face are logged.
"""

import hashlib
import json
import os
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Read by MLflow when it is imported: no usage reports, no chatter, and an unreachable server costs
# seconds, not minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from sqlalchemy.exc import SQLAlchemyError

Choices = Mapping[str, str | int]
"""What tells DVC experiments apart: dataset, arch, decoder, model, recipe, seed."""


class FoldLog:
    """A fold's run in MLflow; after the first failure it stays silent."""

    def __init__(self, client: MlflowClient | None, run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers; those that are not finite are left out."""
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
def track_fold(choices: Choices, fold: int, params: Mapping[str, Any]) -> Iterator[FoldLog]:
    """Log a fold live, in a child run that ends with the block: finished, or failed by an error."""
    log = FoldLog(None, "")
    with _tolerance():
        store = Store(choices["dataset"])
        parent = store.find(choices, status="RUNNING") or store.create(choices)
        log = FoldLog(store.client, store.create_child(parent, fold, params))
    try:
        yield log
    except BaseException:
        log.end("FAILED")
        raise
    log.end("FINISHED")


def log_experiment(
    choices: Choices,
    params: Mapping[str, Any],
    folds: Mapping[int, tuple[list[dict[str, float]], dict[str, float]]],
    summary: Mapping[str, float],
    artifacts: list[Path],
) -> None:
    """Close the experiment's parent run with its aggregate.

    Folds that were not logged live, because DVC took them from its cache, are added. When the same
    results were logged before, nothing is added.

    Args:
        choices: See `Choices`.
        params: Parameters of the whole experiment.
        folds: Learning curve (a dict per epoch, with `epoch`) and final metrics of each fold.
        summary: Metrics over all folds.
        artifacts: Tables to attach.
    """
    digest = hashlib.sha256(
        json.dumps([sorted(summary.items()), sorted(folds)]).encode()
    ).hexdigest()
    with _tolerance():
        store = Store(choices["dataset"])
        if store.find(choices, status="FINISHED", digest=digest):
            return
        parent = store.find(choices, status="RUNNING") or store.create(choices)
        client, run_id = store.client, parent.info.run_id
        logged = store.children(parent)
        for fold, (history, metrics) in folds.items():
            if fold not in logged:
                child = FoldLog(client, store.create_child(parent, fold, params))
                for line in history:
                    child.metrics(line, step=int(line["epoch"]))
                child.metrics(metrics)
                child.end("FINISHED")
        client.log_batch(
            run_id,
            metrics=_metrics(summary, step=0),
            params=_params(params),
            tags=[RunTag("result_digest", digest)],
        )
        for path in artifacts:
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id, "FINISHED")


class Store:
    """The runs of one data set."""

    def __init__(self, dataset: str | int) -> None:
        root = project_root(Path.cwd())
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self.client = MlflowClient(uri or f"sqlite:///{root / 'mlflow.db'}")
        name = f"dfer-{dataset}"
        experiment = self.client.get_experiment_by_name(name)
        # A remote server knows best where artifacts go.
        location = None if uri else (root / "mlartifacts").as_uri()
        self.experiment_id = (
            experiment.experiment_id
            if experiment
            else self.client.create_experiment(name, artifact_location=location)
        )

    def find(self, choices: Choices, status: str, digest: str | None = None) -> Run | None:
        """The parent run of these choices, code and DVC experiment."""
        terms = [f"tags.key = '{_key(choices)}'", f"attributes.status = '{status}'"]
        if digest:
            terms.append(f"tags.result_digest = '{digest}'")
        found = self.client.search_runs([self.experiment_id], " and ".join(terms), max_results=1)
        return found[0] if found else None

    def create(self, choices: Choices) -> Run:
        """A new parent run."""
        name = os.environ.get("DVC_EXP_NAME") or "-".join(
            str(choices[part]) for part in ("arch", "decoder", "model", "recipe")
        )
        tags = {
            MLFLOW_RUN_NAME: name,
            "key": _key(choices),
            "dvc_experiment": os.environ.get("DVC_EXP_NAME", ""),
            **_code_tags(),
            **{part: str(choices[part]) for part in ("arch", "decoder", "model", "recipe")},
        }
        return self.client.create_run(self.experiment_id, tags=tags)

    def children(self, parent: Run) -> dict[int, str]:
        """Run ids of the parent's folds."""
        runs = self.client.search_runs(
            [self.experiment_id], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}'"
        )
        return {int(run.data.tags["fold"]): run.info.run_id for run in runs}

    def create_child(self, parent: Run, fold: int, params: Mapping[str, Any]) -> str:
        """A new run for a fold; an earlier one of the same fold and parent is deleted."""
        if stale := self.children(parent).get(fold):
            self.client.delete_run(stale)
        inherited = ("dvc_experiment", "arch", "decoder", "model", "recipe")
        tags = {
            MLFLOW_RUN_NAME: f"{parent.info.run_name} fold {fold}",
            MLFLOW_PARENT_RUN_ID: parent.info.run_id,
            "fold": str(fold),
            **_code_tags(),
            **{tag: parent.data.tags[tag] for tag in inherited},
        }
        run = self.client.create_run(self.experiment_id, tags=tags)
        self.client.log_batch(run.info.run_id, params=_params({**params, "fold": fold}))
        return str(run.info.run_id)


def project_root(folder: Path) -> Path:
    """The project's own folder, also from the copy of it in which DVC runs a queued experiment."""
    parts = folder.resolve().parts
    for i in range(len(parts) - 2):
        if parts[i : i + 3] == (".dvc", "tmp", "exps"):
            return Path(*parts[:i])
    return folder.resolve()


@contextmanager
def _tolerance(on_failure: Callable[[], None] = lambda: None) -> Iterator[None]:
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        warnings.warn(
            f"MLflow: {reason}; going on without it, the files hold everything", stacklevel=4
        )
        on_failure()


def _key(choices: Choices) -> str:
    identity = [*sorted(choices.items()), os.environ.get("DVC_EXP_NAME", ""), _git_commit()]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _code_tags() -> dict[str, str]:
    return {MLFLOW_GIT_COMMIT: _git_commit(), "dvc_stage": os.environ.get("DVC_STAGE", "")}


def _git_commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--quiet", "--verify", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def _metrics(values: Mapping[str, float], step: int) -> list[Metric]:
    now = int(time.time() * 1000)
    finite = {name: value for name, value in values.items() if abs(value) < float("inf")}
    return [Metric(name, value, now, step) for name, value in finite.items()]


def _params(values: Mapping[str, Any], prefix: str = "") -> list[Param]:
    """Nested parameters under dotted names."""
    flat: list[Param] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat += _params(value, f"{prefix}{name}.")
        else:
            flat.append(Param(f"{prefix}{name}", str(value)))
    return flat
