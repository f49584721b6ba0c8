"""Where MLflow keeps the runs of one set of choices: how they are found, made and tagged."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
)

from pipeline.common.files import project_root
from pipeline.tracking.packaging import package_model

Choices = Mapping[str, str | int]
"""What tells DVC experiments apart: dataset, arch, decoder, model, recipe, seed."""

_SEARCHABLE = ("arch", "decoder", "model", "recipe", "seed")


class Store:
    """The runs of these choices."""

    def __init__(self, choices: Choices, data_digest: str = "") -> None:
        self.choices = choices
        self.data_digest = data_digest
        name = f"dfer-{choices['dataset']}"
        root = project_root(Path.cwd())
        artifacts: str | None = (root / "mlartifacts").as_uri()
        if uri := os.environ.get("MLFLOW_TRACKING_URI"):
            relative = re.fullmatch(r"sqlite:///([^/].*)", uri)
            self.client = MlflowClient(f"sqlite:///{root / relative[1]}" if relative else uri)
            if not uri.startswith("sqlite:"):
                artifacts = None  # A server knows best where artifacts go.
        else:
            self.client = _local_client(local_database())
        self.experiment_id = _experiment(self.client, name, artifacts)

    def find(self, **tags: str) -> Run | None:
        """The newest parent run of these choices, data, code and DVC experiment with such tags."""
        found = self._search({"key": self._key(), **tags}, max_results=1)
        return found[0] if found else None

    def create(self) -> Run:
        """A new parent run."""
        name = os.environ.get("DVC_EXP_NAME") or "-".join(
            str(self.choices[part]) for part in ("arch", "decoder", "model", "recipe")
        )
        return self._create(name, {"key": self._key(), "aggregated": "no"})

    def children(self, parent: Run) -> dict[int, Run]:
        """Runs of the parent's folds."""
        runs = self._search({MLFLOW_PARENT_RUN_ID: parent.info.run_id})
        return {int(run.data.tags["fold"]): run for run in runs}

    def create_child(self, parent: Run, fold: int, params: Mapping[str, Any]) -> str:
        """A new run for a fold; an earlier one of the same fold and parent is deleted."""
        if stale := self.children(parent).get(fold):
            self.client.delete_run(stale.info.run_id)
        tags = {MLFLOW_PARENT_RUN_ID: parent.info.run_id, "fold": str(fold)}
        run_id = self._create(f"{parent.info.run_name} fold {fold}", tags).info.run_id
        self.client.log_batch(run_id, params=flat_params({**params, "fold": fold}))
        return str(run_id)

    def add_model(self, run_id: str, weights: Path) -> None:
        """Attach a fold's model to its run, unless it has one."""
        outputs = self.client.get_run(run_id).outputs
        if outputs and outputs.model_outputs:
            return
        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            package_model(weights, folder)
            model = self.client.create_logged_model(
                self.experiment_id, name="model", source_run_id=run_id
            )
            self.client.log_model_artifacts(model.model_id, str(folder))
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])

    def training_seconds(self) -> float | None:
        """See the function of this name."""
        tags = {part: str(self.choices[part]) for part in _SEARCHABLE}
        newest: dict[str, float] = {}
        for run in self._search(tags, "metrics.training_seconds >= 0"):
            newest.setdefault(run.data.tags["fold"], run.data.metrics["training_seconds"])
        return sum(newest.values()) / len(newest) if newest else None

    def _search(self, tags: Mapping[str, str], *terms: str, max_results: int = 1000) -> list[Run]:
        terms = (*terms, *(f"tags.`{name}` = '{value}'" for name, value in tags.items()))
        return list(
            self.client.search_runs(
                [self.experiment_id], " and ".join(terms), max_results=max_results
            )
        )

    def _create(self, name: str, tags: Mapping[str, str]) -> Run:
        common = {
            MLFLOW_RUN_NAME: name,
            MLFLOW_GIT_COMMIT: _git_commit(),
            "dvc_experiment": os.environ.get("DVC_EXP_NAME", ""),
            "dvc_stage": os.environ.get("DVC_STAGE", ""),
            **{part: str(self.choices[part]) for part in _SEARCHABLE},
        }
        run = self.client.create_run(self.experiment_id, tags={**common, **tags})
        name = str(self.choices["dataset"])
        data = Dataset(
            name,
            # MLflow takes no more characters.
            self.data_digest[:36],
            source_type="local",
            source=json.dumps({"uri": f"data/shards/{name}"}),
            profile=json.dumps({"sha256": self.data_digest}),
        )
        context = InputTag(MLFLOW_DATASET_CONTEXT, "training")
        self.client.log_inputs(run.info.run_id, [DatasetInput(data, [context])])
        return run

    def _key(self) -> str:
        experiment = os.environ.get("DVC_EXP_NAME", "")
        identity = [*sorted(self.choices.items()), self.data_digest, experiment, _git_commit()]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def local_database() -> Path:
    """Where the runs are unless MLFLOW_TRACKING_URI says otherwise; it may not exist yet."""
    return project_root(Path.cwd()) / "mlflow.db"


def _local_client(database: Path) -> MlflowClient:
    """A client of the database file, which is made where there is none.

    Under another name until it is whole: that takes MLflow seconds, in which another process must
    not find it and a kill must not leave half of it.
    """
    if not database.exists():
        partial = database.with_name(f"{database.name}.{os.getpid()}.partial")
        MlflowClient(f"sqlite:///{partial}")
        with suppress(FileExistsError):
            database.hardlink_to(partial)
        partial.unlink()
    return MlflowClient(f"sqlite:///{database}")


def _experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """Id of the experiment, which is made where there is none."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts)
        except MlflowException as error:
            # Another process was faster.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = client.get_experiment_by_name(name)
        assert experiment
    return str(experiment.experiment_id)


def flat_params(values: Mapping[str, Any], prefix: str = "") -> list[Param]:
    """Nested parameters under dotted names."""
    flat: list[Param] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat += flat_params(value, f"{prefix}{name}.")
        else:
            flat.append(Param(f"{prefix}{name}", str(value)))
    return flat


def _git_commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--quiet", "--verify", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()
