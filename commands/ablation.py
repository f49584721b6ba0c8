"""The six structures as DVC experiments, one after the other.

    python -m commands.ablation [--seeds 3]

Runs what has not been run with the present parameters, code and commit: every structure with the
seed of params.yaml, and with as many seeds after it as are asked for. Ctrl-C
reaches the training, which saves its state; the same command goes on from there. `make ablation`
prints the table afterwards.
"""

import argparse

from commands.experiment_runs import Copied, Settings, run_or_exit
from commands.experiments import (
    Trial,
    committed_trial,
    experiment_name,
    present_state,
    read_params,
)
from pipeline.mtcae.structures import STRUCTURES


def trials(num_seeds: int) -> dict[str, Settings]:
    """All but the committed one, as experiments by name: one seed after the other."""
    params = read_params()
    committed = committed_trial(params)
    state = present_state(params)
    wanted: dict[str, Settings] = {}
    seeds = range(params["seed"], params["seed"] + num_seeds)
    for trial in (Trial(structure, seed) for seed in seeds for structure in STRUCTURES):
        name = experiment_name(trial, params, state)
        if trial == committed:
            print(f"{name} was run before")
        else:
            arch, decoder = trial.structure
            wanted[name] = {"arch": arch, "decoder": decoder, "seed": trial.seed}
    return wanted


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="how many (1)")
    args = parser.parse_args()
    run_or_exit("ablation", trials(args.seeds), Copied.of(read_params()))


if __name__ == "__main__":
    main()
