"""The six structures as DVC experiments, one after the other.

    python -m commands.ablation [--seeds 3]

Runs what has not been run with the present parameters, code and commit: every structure with the
seed of params.yaml, and with as many seeds after it as are asked for. Ctrl-C
reaches the training, which saves its state; the same command goes on from there. `make ablation`
prints the table afterwards.
"""

import argparse
import signal
import subprocess
from pathlib import Path
from typing import Any

from commands.experiments import (
    Trial,
    committed_trial,
    experiment_name,
    experiment_names,
    is_tracked,
    present_state,
    read_params,
)
from pipeline.mtcae.structures import STRUCTURES


class ExperimentInterrupted(Exception):
    """Ctrl-C came, and the experiment has ended."""


def run_missing(num_seeds: int) -> list[str]:
    """Run the trials that have no experiment of that name.

    Returns:
        The names of those that failed.

    Raises:
        ExperimentInterrupted: By Ctrl-C.
        ValueError: Experiments cannot run in copies of this project.
    """
    params = read_params()
    committed = committed_trial(params)
    state = present_state(params)
    missing = {}
    seeds = range(params["seed"], params["seed"] + num_seeds)
    for trial in (Trial(structure, seed) for seed in seeds for structure in STRUCTURES):
        name = experiment_name(trial, params, state)
        if name in experiment_names() or trial == committed:
            print(f"{name} was run before")
        else:
            missing[name] = trial
    if missing:
        refuse_what_copies_lack(params)
    failed = []
    for number, (name, trial) in enumerate(missing.items(), start=1):
        print(f"{name}: experiment {number} of {len(missing)}", flush=True)
        if not run_experiment(name, trial, untracked_inputs(params)):
            failed.append(name)
    return failed


def run_experiment(name: str, trial: Trial, copied: list[Path]) -> bool:
    """Run one trial in a copy of the project; whether it came to its end.

    Args:
        name: Of the experiment.
        trial: Whose choices it has.
        copied: Files that git does not know and the copy needs.

    Raises:
        ExperimentInterrupted: By Ctrl-C.
    """
    arch, decoder = trial.structure
    chosen = (f"arch={arch}", f"decoder={decoder}", f"seed={trial.seed}")
    settings = [word for choice in chosen for word in ("--set-param", choice)]
    copies = [word for path in copied for word in ("--copy-paths", str(path))]
    command = ["dvc", "exp", "run", "--temp", "--name", name, *settings, *copies]
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


def untracked_inputs(params: dict[str, Any]) -> list[Path]:
    """The encoder's weights and the user's own table, where git does not know them.

    Videos are used where they are.
    """
    tables = (Path("datasets") / params["dataset"]).glob("clips.*")
    inputs = [Path("weights", params["encoder"]["weights"]), *tables]
    return [path for path in inputs if not path.is_absolute() and not is_tracked(path)]


def refuse_what_copies_lack(params: dict[str, Any]) -> None:
    """Check that experiments can run in copies of the project, before the first of them fails.

    Raises:
        ValueError: DVC cannot make copies here, or they would lack the videos.
    """
    root = str(Path.cwd())
    # DVC 3.67 makes a URL of the folder and does not encode it.
    if not root.isascii() or "?" in root or "#" in root:
        raise ValueError(
            f"DVC cannot run experiments in copies of {root}: rename the folders so that the path "
            "holds only ASCII characters and neither ? nor #"
        )
    dataset = params["dataset"]
    source = params["datasets"][dataset].get("source")
    if source and not Path(source).is_absolute() and not is_tracked(Path(source)):
        raise ValueError(
            f"datasets.{dataset}.source is {source}, and git does not know that folder: the copies "
            f"of the project would lack it; write {Path.cwd() / source} into params.yaml"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="how many (1)")
    args = parser.parse_args()
    try:
        failed = run_missing(args.seeds)
    except ExperimentInterrupted as interrupted:
        raise SystemExit(f"{interrupted} was stopped; the next call goes on from there") from None
    except ValueError as error:
        raise SystemExit(f"ablation: {error}") from error
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; the next call runs them again")


if __name__ == "__main__":
    main()
