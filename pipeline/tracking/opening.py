"""The database and the experiment in it, made where there are none."""

import os
from contextlib import suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.tracking import names
from pipeline.tracking.database import sqlite_uri


def ensure_database(database: Path) -> None:
    """Make a database file where there is none.

    Under another name until it is whole: that takes MLflow seconds, in which another process must
    not find it and a kill must not leave half of it.
    """
    if not database.exists():
        partial = database.with_name(f"{database.name}.{os.getpid()}.partial")
        # MLflow makes an experiment called Default, in which nothing is ever logged.
        MlflowClient(sqlite_uri(partial)).delete_experiment("0")
        with suppress(FileExistsError):
            database.hardlink_to(partial)
        partial.unlink()


def experiment_id(client: MlflowClient, name: str, artifacts: str | None, view: str) -> str:
    """Id of the experiment, which is made where there is none."""
    tags = {names.VIEW_TAG: view, "mlflow.experimentKind": "custom_model_development"}
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts, tags=tags)
        except MlflowException as error:
            # Another process was faster.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = client.get_experiment_by_name(name)
        assert experiment
    if experiment.tags.get(names.VIEW_TAG) != view:
        client.set_experiment_tag(experiment.experiment_id, names.VIEW_TAG, view)
    return str(experiment.experiment_id)
