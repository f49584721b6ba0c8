"""Copies of the repository in which tests run the real stages through DVC."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from project import ROOT

SMALL = {
    "dataset": "sample",
    "arch": "cascaded",
    "decoder": "vit",
    "model": "tiny",
    "recipe": "quick",
    "folds": "[1,2]",
    "split.num_folds": "2",
    "datasets.sample.num_subjects": "4",
    "datasets.sample.clips_per_emotion": "1",
    "recipes.quick.engine.epochs": "2",
    "recipes.quick.engine.min_steps": "1",
}

Run = Callable[..., str]


def environment() -> dict[str, str]:
    """Of a command in a copy: this virtual environment, an author for git, a MLflow of its own."""
    changed = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_AUTHOR_NAME": "tests",
        "GIT_AUTHOR_EMAIL": "tests@localhost",
        "GIT_COMMITTER_NAME": "tests",
        "GIT_COMMITTER_EMAIL": "tests@localhost",
    }
    changed.pop("MLFLOW_TRACKING_URI", None)
    return changed


def run_in(folder: Path) -> Run:
    """What runs a command in a folder and gives what it says; `fails`: it has to."""

    def run(*command: str, fails: bool = False) -> str:
        done = subprocess.run(
            command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
        )
        output = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, output
        return output

    return run


def new_clone(folder: Path, **changes: str) -> Run:
    """A repository of its own with the project's files as they are now and a smaller experiment."""
    run = run_in(ROOT)
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    for name, value in (SMALL | changes).items():
        section = params
        *parents, last = name.split(".")
        for parent in parents:
            section = section[parent]
        section[last] = yaml.safe_load(value)
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    run = run_in(folder)
    run("git", "init", "--quiet")
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "--message", "start")
    return run


def lock_of(folder: Path) -> dict[str, Any]:
    lock: dict[str, Any] = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    return lock["stages"]  # type: ignore[no-any-return]


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def mlflow_runs(folder: Path, name: str = "dfer-sample") -> list[MlflowRun]:
    client = client_of(folder)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def undescribed(folder: Path, *patterns: str) -> set[str]:
    """Columns and keys of the files that docs/files.md does not name, as `file: name`."""
    page = (ROOT / "docs/files.md").read_text(encoding="utf-8")
    described = set(re.findall(r"`([^`]+)`", page))
    found = set()
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        for name in names_in(path):
            general = re.sub(r"^probability_.*", "probability_<class>", name)
            general = re.sub(r"^fold\d+$", "fold1", general)
            # Flat names of what summary.json nests.
            parts = "mean|std|pooled|pooled_low|pooled_high|seed_std"
            general = re.sub(rf"^([uw]ar(_optimistic)?)_({parts})$", r"\1", general)
            if general not in described and re.sub(r"_(low|high)$", "", general) not in described:
                found.add(f"{path.name}: {name}")
    return found


def names_in(path: Path) -> Iterator[str]:
    """The columns of a table, or the keys of a JSON file but for those that are names of things."""
    if path.suffix == ".parquet":
        yield from pd.read_parquet(path).columns
    elif path.suffix == ".csv":
        yield from pd.read_csv(path).columns
    else:
        pending = [json.loads(path.read_text(encoding="utf-8"))]
        while pending:
            value = pending.pop()
            if isinstance(value, dict):
                yield from value
                pending += [
                    inner
                    for name, inner in value.items()
                    if name not in ("refused_by_reason", "groups", "lacking", "encoder")
                ]
            elif isinstance(value, list):
                pending += value
