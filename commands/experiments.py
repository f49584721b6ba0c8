"""DVC experiments: what they are called, which of them are finished, what these hold.

With ablation.py the only module that knows DVC.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import pandas as pd
import yaml
from dvc.api import exp_show
from dvc.api import open as dvc_open
from dvc.exceptions import PathMissingError

from pipeline.common.files import sha256_of
from pipeline.evaluation.setting import Setting
from pipeline.mtcae.structures import Choices, Structure

# The name of the run that is committed with the code.
COMMITTED = "(committed)"
# For git: all but results and the parameters, which are compared for themselves.
_INPUTS = (":!dvc.lock", ":!metrics", ":!params.yaml")
# What is read of an experiment's commit.
_SHOWN = ("metrics/summary.json", "metrics/setting.json", "params.yaml")


class Trial(NamedTuple):
    """What of an experiment the table compares, and what it takes the mean of."""

    structure: Structure
    seed: int

    @classmethod
    def of(cls, params: dict[str, Any]) -> Self:
        """That of a whole params.yaml."""
        choices = Choices.of(params)
        return cls(choices.structure, choices.seed)


class FinishedExperiment(NamedTuple):
    """A finished experiment: its name, git commit, params.yaml, and two files of metrics/."""

    name: str
    commit: str
    params: dict[str, Any]
    summary: dict[str, Any]
    setting: Setting


def read_params(path: Path = Path("params.yaml")) -> dict[str, Any]:
    """The whole of params.yaml."""
    params: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return params


def shared_params(params: dict[str, Any]) -> dict[str, Any]:
    """What experiments of one table have in common: all but the trial and unused presets."""
    own = ("arch", "decoder", "seed")
    shared = {name: value for name, value in params.items() if name not in own}
    for section, choice in (("datasets", "dataset"), ("models", "model"), ("recipes", "recipe")):
        shared[section] = params[section][params[choice]]
    return shared


def shared_digest(params: dict[str, Any]) -> str:
    """SHA-256 of `shared_params`, in hexadecimal."""
    text = json.dumps(shared_params(params), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def all_finished() -> Iterator[FinishedExperiment]:
    """The run that is committed, and the finished experiments upon it from new to old."""
    for row in exp_show():
        if row["rev"] == "workspace" or row["State"] not in (None, "Success"):
            continue
        commit = _commit(row["Experiment"])
        texts = [_show(commit, path) for path in _SHOWN]
        if None in texts:
            continue
        summary, setting, params = map(str, texts)
        yield FinishedExperiment(
            row["Experiment"] or COMMITTED,
            commit,
            yaml.safe_load(params),
            json.loads(summary),
            Setting.model_validate_json(setting),
        )


def finished_experiments(params: dict[str, Any]) -> dict[Trial, FinishedExperiment]:
    """For each structure and seed a finished experiment with these parameters, upon this commit.

    That of `experiment_name` or, where there is none, the newest one of the present code; the run
    that is committed counts as the oldest.
    """
    found: dict[Trial, FinishedExperiment] = {}
    state = present_state(params)
    for experiment in all_finished():
        commit, trial = experiment.commit, Trial.of(experiment.params)
        if experiment.name == experiment_name(trial, params, state):
            found[trial] = experiment
            continue
        same = shared_params(experiment.params) == shared_params(params) and _has_this_code(commit)
        # exp_show gives the commit first, and then its experiments from new to old.
        if same and (trial not in found or found[trial].name == COMMITTED):
            found[trial] = experiment
    return found


def read_predictions(experiment: FinishedExperiment, folder: str = "predictions") -> pd.DataFrame:
    """The test predictions of all its folds, out of DVC's cache.

    Args:
        experiment: Whose.
        folder: `predictions`, or `baselines` for those of the baselines on the same folds.

    Raises:
        FileNotFoundError: They are not in the cache: the experiment was run elsewhere.
    """
    path = f"data/{folder}/{experiment.params['dataset']}.parquet"
    try:
        with dvc_open(path, rev=experiment.commit, mode="rb") as file:
            return pd.read_parquet(file)
    # DVC's own error for an output that is not there is none of these.
    except (FileNotFoundError, PathMissingError) as error:
        raise FileNotFoundError(
            f"the predictions of {experiment.name} are not in DVC's cache; run it here, or "
            "`dvc pull` from where it was run"
        ) from error


def has_predictions(experiment: FinishedExperiment) -> bool:
    """Whether they are here; those that are committed may be of another machine."""
    try:
        read_predictions(experiment)
    except FileNotFoundError:
        return False
    return True


def present_state(params: dict[str, Any]) -> str:
    """All that decides the results besides parameters and commit, as a text that can be compared.

    Uncommitted changes, and what git does not know: the encoder's weights, the user's own table,
    and videos that are used where they are, by their sizes and times.
    """
    tables = sorted((Path("datasets") / params["dataset"]).glob("clips.*"))
    files = [Path("weights", params["encoder"]["weights"]), *tables]
    contents = [[path.name, sha256_of(path)] for path in files if path.is_file()]
    source = params["datasets"][params["dataset"]].get("source")
    videos = sorted(path for path in Path(source).rglob("*") if path.is_file()) if source else []
    seen = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in videos]
    return json.dumps([changes(*_INPUTS), contents, seen])


def experiment_name(trial: Trial, params: dict[str, Any], state: str) -> str:
    """A name that is another one for other parameters and for another `present_state`."""
    identity = json.dumps([shared_params(params), state], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    kind = trial.structure.name.replace("_", "-").replace(" ", "-")
    return f"{params['dataset']}-{kind}-seed{trial.seed}-{digest}"


def committed_trial(params: dict[str, Any]) -> Trial | None:
    """The trial that is committed with its results, if these are of the present state."""
    if _git("status", "--porcelain", "--", ".", *_INPUTS):
        return None
    # Of this pipeline alone: that of pre-training may never have been run.
    if subprocess.run(["dvc", "status", "--quiet", "dvc.yaml"], check=False).returncode:
        return None  # Other data or weights, or a fresh clone: it was run elsewhere.
    for trial, experiment in finished_experiments(params).items():
        if experiment.name == COMMITTED:
            return trial if has_predictions(experiment) else None
    return None


def _refs() -> str:
    """Where git keeps the experiments upon the present commit."""
    head = _commit(None)
    return f"refs/exps/{head[:2]}/{head[2:]}"


def experiment_names() -> set[str]:
    """Of all DVC experiments upon the present commit."""
    return set(_git("for-each-ref", "--format=%(refname:lstrip=-1)", _refs()).split())


def _commit(experiment: str | None) -> str:
    """The commit of an experiment upon HEAD, or of HEAD itself."""
    return _git("rev-parse", f"{_refs()}/{experiment}" if experiment else "HEAD").strip()


def _has_this_code(commit: str) -> bool:
    """Whether the files of a commit are those of the workspace, but for `_INPUTS`."""
    compared = ["git", "diff", "--quiet", commit, "--", ".", *_INPUTS]
    return subprocess.run(compared, check=False).returncode == 0


def _show(commit: str, path: str) -> str | None:
    done = subprocess.run(["git", "show", f"{commit}:{path}"], capture_output=True, check=False)
    return done.stdout.decode() if done.returncode == 0 else None


def read_file_of(experiment: str, path: str) -> bytes:
    """A file that git keeps of a finished experiment upon HEAD.

    Raises:
        FileNotFoundError: There is no such experiment, or it has no such file.
    """
    commit = f"{_refs()}/{experiment}"
    done = subprocess.run(["git", "show", f"{commit}:{path}"], capture_output=True, check=False)
    if done.returncode:
        raise FileNotFoundError(f"the experiment {experiment} has no {path}")
    return done.stdout


def changes(*inputs: str) -> str:
    """What of the files differs from HEAD, as a text that can be compared; git's path patterns."""
    return _git("diff", "HEAD", "--", ".", *inputs)


def is_tracked(path: Path) -> bool:
    """Whether git knows a file, which DVC's copies of the project then have."""
    return bool(_git("ls-files", "--", str(path)))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, check=True)
    # A difference may hold any bytes.
    return done.stdout.decode(errors="backslashreplace")
