"""What fine-tuning gains from a start: the same experiment from several weights, side by side.

    python -m commands.starts --weights from_scratch pretrained.safetensors

runs the experiment of params.yaml from each of them, with the same folds and seeds, as DVC
experiments in copies of the project; what was run before is not run again. The table has the UAR of
every start with its interval over subjects, and its difference to the first one. What a frozen
encoder tells is another question: `python -m commands.encoders`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from commands.experiment_runs import Copied, Settings, run_or_exit
from commands.experiments import (
    Trial,
    experiment_name,
    finished_experiments,
    has_predictions,
    present_state,
    read_params,
    read_predictions,
)
from commands.pages import show_page
from commands.start_table import rests_on, start_table
from pipeline.evaluation.comparison import System


def started_from(params: dict[str, Any], weights: str) -> dict[str, Any]:
    """The parameters with another start."""
    return {**params, "encoder": {**params["encoder"], "weights": weights}}


def run_missing(params: dict[str, Any], starts: Sequence[str], seeds: Sequence[int]) -> None:
    """Run what has no finished experiment.

    Raises:
        SystemExit: One was stopped or failed, or none can run.
    """
    for weights in starts:
        its_params = started_from(params, weights)
        state = present_state(its_params)
        finished = finished_experiments(its_params)
        trials = [Trial.of(its_params | {"seed": seed}) for seed in seeds]
        wanted: dict[str, Settings] = {}
        for trial in trials:
            if trial not in finished or not has_predictions(finished[trial]):
                name = experiment_name(trial, its_params, state)
                wanted[name] = {"encoder.weights": weights, "seed": trial.seed}
        run_or_exit("starts", wanted, Copied.of(its_params))


def read_system(
    params: dict[str, Any], weights: str, seeds: Sequence[int]
) -> tuple[System, dict[int, pd.DataFrame]]:
    """The trainings from a start, and the baselines of their folds by seed.

    Raises:
        FileNotFoundError: One of them is not finished, or is not in DVC's cache.
    """
    its_params = started_from(params, weights)
    finished = finished_experiments(its_params)
    trials = [Trial.of(its_params | {"seed": seed}) for seed in seeds]
    if missing := [trial.seed for trial in trials if trial not in finished]:
        raise FileNotFoundError(f"no finished experiment from {weights} with the seeds {missing}")
    found = [finished[trial] for trial in trials]
    system = System(
        weights,
        " ".join(experiment.name for experiment in found),
        [read_predictions(experiment) for experiment in found],
        list(seeds),
    )
    baselines = [read_predictions(experiment, "baselines") for experiment in found]
    return system, dict(zip(seeds, baselines, strict=True))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", nargs="+", required=True, help="as encoder.weights has them")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the experiments (1 2 3)"
    )
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args(argv)
    params = read_params()
    run_missing(params, args.weights, args.seeds)
    try:
        found = [read_system(params, weights, args.seeds) for weights in args.weights]
        systems = [system for system, _ in found]
        classes = params["datasets"][params["dataset"]]["classes"]
        table = start_table(systems, classes, found[0][1], {})
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"starts: {error}") from error
    page = (
        f"Fine-tuned from each start: {Trial.of(params).structure.name}, model {params['model']}, "
        f"recipe {params['recipe']}, on {params['dataset']}: "
        f"{rests_on(systems, len(params['folds']))}\n\n{table}\n"
    )
    show_page(page, args.out)


if __name__ == "__main__":
    main()
