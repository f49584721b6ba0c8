"""The runs of an experiment in MLflow: how they are found, made and tagged."""

import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
    MLFLOW_RUN_NOTE,
)
from mlflow.utils.validation import MAX_PARAMS_TAGS_PER_BATCH

from pipeline.tracking import names
from pipeline.tracking.database import (
    artifacts_uri,
    database_file,
    mend_places,
    tracking_uri,
)
from pipeline.tracking.experiment import TrackedExperiment, flat_params
from pipeline.tracking.opening import ensure_database, experiment_id
from pipeline.tracking.packaging import package_model
from pipeline.tracking.patience import patient, within_patience
from pipeline.tracking.processes import end_killed_runs, this_process

# Of a model that MLflow keeps.
_MOST_MODEL_PARAMS = 100
_MODEL_NOTE = (
    "Says who is in a video and what they show over time: a table of paths in, a table out "
    "(docs/predict.md). Tested on the subjects of fold {fold}, of whom its scores are."
)


class Store:
    """The runs of one experiment, and of others with its choices."""

    def __init__(self, experiment: TrackedExperiment) -> None:
        self.experiment = experiment
        choices = experiment.choices
        self.searchable = {k: str(v) for k, v in choices.items() if k != "dataset"}
        uri = tracking_uri()
        artifacts = None  # A server knows best where artifacts go.
        if database := database_file(uri):
            artifacts = artifacts_uri()
            ensure_database(database)
        self.client = MlflowClient(uri) if database else patient(MlflowClient(uri))
        if database:
            mend_places(database)
        view = names.stored_view(*experiment.columns)
        self.experiment_id = experiment_id(self.client, experiment.group, artifacts, view)
        end_killed_runs(self.client, self.experiment_id)

    def find_open(self) -> Run | None:
        """The newest parent run of this experiment, code and DVC experiment without a result."""
        return self._find({names.AGGREGATED: "no"})

    def find_result(self, digest: str) -> Run | None:
        """The newest one that was closed with that result."""
        return self._find({names.RESULT: digest})

    def _find(self, tags: Mapping[str, str]) -> Run | None:
        found = self._search({names.KEY: self._key(), **tags}, max_results=1)
        return found[0] if found else None

    def resume(self, run: Run) -> None:
        """Have a parent run again while this process trains."""
        self.client.update_run(run.info.run_id, "RUNNING")
        self.client.set_tag(run.info.run_id, names.PROCESS, this_process())

    def find_by_name(self) -> Run | None:
        """The newest run of this experiment's name, of whatever commit and DVC experiment."""
        found = self._search({MLFLOW_RUN_NAME: self.experiment.name}, max_results=1)
        return found[0] if found else None

    def create(self) -> Run:
        """A new parent run, with the parameters that tell it from others while it runs."""
        tags = {names.KEY: self._key(), names.AGGREGATED: "no"}
        return self._create(self.experiment.name, tags, {})

    def children(self, parent: Run) -> dict[int, Run]:
        """Runs of the parent's folds."""
        runs = self._search({MLFLOW_PARENT_RUN_ID: parent.info.run_id})
        return {int(run.data.tags["fold"]): run for run in runs}

    def create_child(self, parent: Run, fold: int) -> str:
        """A new run for a fold; an earlier one of the same fold and parent is deleted."""
        if stale := self.children(parent).get(fold):
            self.client.delete_run(stale.info.run_id)
        tags = {MLFLOW_PARENT_RUN_ID: parent.info.run_id, "fold": str(fold)}
        child = self._create(f"{self.experiment.name} fold {fold}", tags, {"fold": str(fold)})
        return str(child.info.run_id)

    def add_model(self, run_id: str, weights: Path) -> None:
        """Attach a fold's model and its scores to its run, unless it has one."""
        run = self.client.get_run(run_id)
        if run.outputs and run.outputs.model_outputs:
            return
        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            package_model(weights, folder)
            model = self.client.create_logged_model(
                self.experiment_id,
                # Of other characters MLflow allows few.
                name=re.sub(r"[^A-Za-z0-9_-]+", "-", str(run.info.run_name)),
                source_run_id=run_id,
                tags={MLFLOW_RUN_NOTE: _MODEL_NOTE.format(fold=run.data.tags["fold"])},
                params=dict(list(run.data.params.items())[:_MOST_MODEL_PARAMS]),
            )
            self.client.log_model_artifacts(model.model_id, str(folder))
        for name, value in run.data.metrics.items():
            if name.startswith("test/"):
                self.client.log_metric(run_id, name, value, model_id=model.model_id)
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])

    def log_metrics(self, run_id: str, values: Mapping[str, float], step: int) -> None:
        """Log finite numbers."""
        self.client.log_batch(run_id, metrics=_metrics(values, step))

    def start_monitor(self, run_id: str) -> Callable[[], None] | None:
        """Log the machine's load, where the environment asks for it; what is returned ends that."""
        if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():  # type: ignore[no-untyped-call]
            return None
        monitor = SystemMetricsMonitor(run_id, tracking_uri=self.client.tracking_uri)  # type: ignore[no-untyped-call]
        monitor.start()  # type: ignore[no-untyped-call]
        return partial(within_patience, "the log of the machine's load", monitor.finish)

    def close(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float],
        more_params: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> None:
        """End a run as finished, with what is known of it at last."""
        # All of them: where MLflow could not be reached, a live run may lack some.
        self._log_params(run_id, self.experiment.flat_params() | flat_params(more_params))
        self.client.log_batch(
            run_id,
            metrics=_metrics(metrics, step=0),
            tags=[RunTag(*tag) for tag in tags.items()],
        )
        self.client.set_terminated(run_id, "FINISHED")

    def training_seconds(self) -> float | None:
        """Mean over the folds of the newest run that says how long it took; None without one."""
        newest: dict[str, float] = {}
        for run in self._search(self.searchable, f"metrics.`{names.SECONDS}` >= 0"):
            newest.setdefault(run.data.tags["fold"], run.data.metrics[names.SECONDS])
        return sum(newest.values()) / len(newest) if newest else None

    def _search(self, tags: Mapping[str, str], *terms: str, max_results: int = 1000) -> list[Run]:
        terms = (*terms, *(f"tags.`{name}` = '{value}'" for name, value in tags.items()))
        return list(
            self.client.search_runs(
                [self.experiment_id], " and ".join(terms), max_results=max_results
            )
        )

    def _create(self, name: str, tags: Mapping[str, str], params: dict[str, str]) -> Run:
        """A new run, with the parameters of the experiment and `params`."""
        common = {
            MLFLOW_RUN_NAME: name,
            MLFLOW_GIT_COMMIT: _git_commit(),
            names.DVC_EXPERIMENT: os.environ.get("DVC_EXP_NAME", ""),
            names.STAGE: os.environ.get("DVC_STAGE", ""),
            names.PROCESS: this_process(),
            **self.searchable,
        }
        run = self.client.create_run(self.experiment_id, tags={**common, **tags})
        name, digest = str(self.experiment.choices["dataset"]), self.experiment.data_digest
        data = Dataset(
            name,
            # MLflow takes no more characters.
            digest[:36],
            source_type="local",
            source=json.dumps({"uri": f"data/shards/{name}"}),
            profile=json.dumps({"sha256": digest}),
        )
        context = InputTag(MLFLOW_DATASET_CONTEXT, "training")
        inputs = [DatasetInput(data, [context])]
        try:
            self.client.log_inputs(run.info.run_id, inputs)
        except MlflowException:
            # MLflow looks whether it knows the data before it adds them, and another process may
            # have added them in between: now it finds them.
            self.client.log_inputs(run.info.run_id, inputs)
        self._log_params(run.info.run_id, self.experiment.flat_params() | params)
        return run

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        entries = [Param(name, value) for name, value in params.items()]
        for i in range(0, len(entries), MAX_PARAMS_TAGS_PER_BATCH):
            self.client.log_batch(run_id, params=entries[i : i + MAX_PARAMS_TAGS_PER_BATCH])

    def _key(self) -> str:
        dvc_experiment = os.environ.get("DVC_EXP_NAME", "")
        experiment = self.experiment
        identity = [experiment.params_digest, experiment.data_digest, dvc_experiment, _git_commit()]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


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
    return [Metric(names.grouped(name), value, now, step) for name, value in values.items()]
