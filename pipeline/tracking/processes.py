"""Which process a run is of, and the end of runs whose process is no more."""

import socket

import psutil
from mlflow import MlflowClient

from pipeline.tracking import names


def this_process() -> str:
    """The machine, the process, and when that began: another one may get the same number."""
    process = psutil.Process()
    return f"{socket.gethostname()} {process.pid} {process.create_time():.2f}"


def end_killed_runs(client: MlflowClient, experiment_id: str) -> None:
    """Close the runs whose process is no more on this machine: SIGKILL leaves it no time to."""
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        host, _, process = run.data.tags.get(names.PROCESS, "").partition(" ")
        number, _, began = process.partition(" ")
        if host == socket.gethostname() and not _runs(int(number), float(began)):
            client.set_terminated(run.info.run_id, "KILLED")


def _runs(number: int, began: float) -> bool:
    try:
        return bool(abs(psutil.Process(number).create_time() - began) < 1)
    except psutil.NoSuchProcess:
        return False
