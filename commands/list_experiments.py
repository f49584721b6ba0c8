"""The committed run and the DVC experiments upon it, with what tells them apart and their scores.

    python -m commands.list_experiments

`dvc exp show` has the rest: every parameter, metric and file. Experiments of the other pipelines
are not in the table.
"""

import argparse

import pandas as pd

from commands.experiments import FinishedExperiment, Trial, all_finished
from pipeline.evaluation.markdown import markdown_table


def row_of(experiment: FinishedExperiment) -> dict[str, str]:
    """For people: choices, and scores in per cent with their 95 % intervals."""
    params, trial = experiment.params, Trial.of(experiment.params)
    return {
        "experiment": experiment.name,
        "dataset": params["dataset"],
        "structure": trial.structure.name,
        "model": params["model"],
        "recipe": params["recipe"],
        "encoder": params["encoder"]["weights"],
        "protocol": params["split"]["protocol"],
        "seed": str(trial.seed),
        **{name.upper(): _interval(experiment.summary[name]) for name in ("uar", "war")},
    }


def _interval(score: dict[str, float]) -> str:
    if "pooled_low" not in score:
        return f"{score['pooled']:.1%}"
    return f"{score['pooled']:.1%} [{score['pooled_low']:.1%}, {score['pooled_high']:.1%}]"


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    rows = [row_of(experiment) for experiment in all_finished()]
    if not rows:
        raise SystemExit("no finished run: `dvc repro` makes one, and a commit keeps it")
    print(markdown_table(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
