"""DVC experiments that run in copies of the project, one after the other."""

import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from commands.experiments import experiment_names, is_tracked

Settings = Mapping[str, str | int | float]
"""What an experiment changes in params.yaml, by dotted names."""


class Copied(NamedTuple):
    """What copies of the project run, and what they need that git does not know.

    Attributes:
        pipeline: One of the project's dvc.yaml.
        files: Files and folders to copy.
        source: Videos or pictures that are used where they are; None: there are none.
        source_setting: The line of params.yaml that says where they are.
    """

    pipeline: str
    files: Sequence[Path]
    source: str | None
    source_setting: str

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """For the whole params.yaml: weights, the user's own table, and the data set's videos."""
        dataset = params["dataset"]
        tables = (Path("datasets") / dataset).glob("clips.*")
        inputs = [Path("weights", params["encoder"]["weights"]), *tables]
        source = params["datasets"][dataset].get("source")
        return cls("dvc.yaml", untracked(inputs), source, f"datasets.{dataset}.source")


class ExperimentInterrupted(Exception):
    """Ctrl-C came, and the experiment has ended."""


def run_experiments(wanted: Mapping[str, Settings], copied: Copied) -> list[str]:
    """Run those that have no experiment of that name.

    Args:
        wanted: Their settings, by name.
        copied: What they run in.

    Returns:
        The names of those that failed.

    Raises:
        ExperimentInterrupted: By Ctrl-C.
        ValueError: Experiments cannot run in copies of this project.
    """
    there = experiment_names()
    for name in there.intersection(wanted):
        print(f"{name} was run before")
    missing = {name: settings for name, settings in wanted.items() if name not in there}
    if missing:
        refuse_what_copies_lack(copied)
    failed = []
    for number, (name, settings) in enumerate(missing.items(), start=1):
        print(f"{name}: experiment {number} of {len(missing)}", flush=True)
        if not run_experiment(name, settings, copied):
            failed.append(name)
    return failed


def run_or_exit(command: str, wanted: Mapping[str, Settings], copied: Copied) -> None:
    """`run_experiments`, for the command of that name.

    Raises:
        SystemExit: One was stopped or failed, or none can run; the message says which.
    """
    try:
        failed = run_experiments(wanted, copied)
    except ExperimentInterrupted as interrupted:
        raise SystemExit(f"{interrupted} was stopped; the next call goes on from there") from None
    except ValueError as error:
        raise SystemExit(f"{command}: {error}") from error
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; the next call runs them again")


def run_experiment(name: str, settings: Settings, copied: Copied) -> bool:
    """Run one experiment in a copy of the project; whether it came to its end.

    Args:
        name: Of the experiment.
        settings: What it changes.
        copied: What it runs in.

    Raises:
        ExperimentInterrupted: By Ctrl-C.
    """
    choices = [
        word for key, value in settings.items() for word in ("--set-param", f"{key}={value}")
    ]
    copies = [word for path in copied.files for word in ("--copy-paths", str(path))]
    command = ["dvc", "exp", "run", "--temp", "--name", name, *choices, *copies, copied.pipeline]
    interrupts: list[int] = []
    # The terminal tells the experiment, too, which saves its state: it is waited for.
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        status = subprocess.call(command)
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupts:
        raise ExperimentInterrupted(name)
    return status == 0


def untracked(inputs: Iterable[Path]) -> list[Path]:
    """Those in the project that git does not know."""
    return [path for path in inputs if not path.is_absolute() and not is_tracked(path)]


def refuse_what_copies_lack(copied: Copied) -> None:
    """Check that experiments can run in copies of the project, before the first of them fails.

    Raises:
        ValueError: DVC cannot make copies here, or they would lack the videos or pictures.
    """
    root = str(Path.cwd())
    # DVC 3.67 makes a URL of the folder and does not encode it.
    if not root.isascii() or "?" in root or "#" in root:
        raise ValueError(
            f"DVC cannot run experiments in copies of {root}: rename the folders so that the path "
            "holds only ASCII characters and neither ? nor #"
        )
    source = copied.source
    if source and not Path(source).is_absolute() and not is_tracked(Path(source)):
        raise ValueError(
            f"{copied.source_setting} is {source}, and git does not know that folder: the copies "
            f"of the project would lack it; write {Path.cwd() / source} into params.yaml"
        )
