"""MLflow's pages over the runs of the project, at http://127.0.0.1:5000.

    python -m commands.ui [--port 5000]

Prints where the table of each experiment is, best run first, and where its runs stand side by side.
Where MLFLOW_TRACKING_URI names a server, the addresses are its own.
"""

import argparse
import os
import sqlite3
import sys
from contextlib import suppress

if __name__ == "__main__":
    # Before MLflow is imported, and for its server: no reports of usage, and none of the processes
    # for jobs and traces, which are for other projects.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from pipeline.tracking.database import database_file, mend_places, tracking_uri
from pipeline.tracking.names import AGGREGATED, VIEW_TAG, comparison_page, runs_page
from pipeline.tracking.processes import end_killed_runs

# That are compared on one page.
_MOST_COMPARED = 20


def addresses(client: MlflowClient, address: str) -> list[str]:
    """A line for the table of each experiment of the project, and one for the comparison."""
    lines = []
    for experiment in client.search_experiments():
        if VIEW_TAG not in experiment.tags:
            continue
        number = experiment.experiment_id
        end_killed_runs(client, number)
        lines.append(f"{experiment.name}: {runs_page(address, number)}")
        if len(runs := newest_runs(client, experiment)) > 1:
            lines.append(f"  side by side: {comparison_page(address, number, runs)}")
    return lines


def newest_runs(client: MlflowClient, experiment: Experiment) -> list[str]:
    """The newest finished run of each name."""
    newest: dict[str, str] = {}
    for run in client.search_runs([experiment.experiment_id], f"tags.`{AGGREGATED}` = 'yes'"):
        newest.setdefault(str(run.info.run_name), run.info.run_id)
    return list(newest.values())[:_MOST_COMPARED]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=5000, help="on this machine (5000)")
    args = parser.parse_args()
    uri = tracking_uri()
    if uri.startswith("http"):
        print(f"MLflow's pages are at {uri}")
        try:
            print("\n".join(addresses(MlflowClient(uri), uri.rstrip("/"))))
        except MlflowException as error:
            print(f"it does not answer: {str(error).splitlines()[0]}")
        return
    database = database_file(uri)
    if database and database.exists():
        # MLflow itself says best what is wrong with a database.
        with suppress(sqlite3.OperationalError):
            mend_places(database)
        print("\n".join(addresses(MlflowClient(uri), f"http://127.0.0.1:{args.port}")))
    else:
        print(f"{uri} holds no run yet: `make repro` logs the first one")
    print("Ctrl-C ends the pages.")
    sys.stdout.flush()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(args.port), "--workers", "1"]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
