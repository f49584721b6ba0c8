"""Table I: the finished experiments of the present parameters, beside the published numbers.

    python -m commands.table_one [--other NAME=predictions.csv ...]

prints it and writes metrics/ablation.md, .csv and .tex. What they are made of is kept in
metrics/ablation/, from which the same command makes them again in any clone.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from commands.experiments import (
    FinishedExperiment,
    Trial,
    finished_experiments,
    read_params,
    read_predictions,
    shared_digest,
)
from pipeline.common.files import atomic_path
from pipeline.evaluation.ablation_page import latex, page
from pipeline.evaluation.comparison import System, beside_linear, compare
from pipeline.evaluation.others import read_other
from pipeline.evaluation.record import Record, Run
from pipeline.evaluation.statistics import why_no_interval
from pipeline.mtcae.structures import STRUCTURES, Choices
from pipeline.tracking.experiment import TrackedExperiment
from pipeline.tracking.observer import training_seconds


def main(out: Path, others: Sequence[tuple[str, Path]]) -> None:
    """Write the table of the data set, model and recipe in params.yaml, over all their seeds."""
    params = read_params()
    try:
        record = collect(params, out / "ablation")
    except FileNotFoundError as error:
        raise SystemExit(f"table_one: {error}") from error
    if not record:
        raise SystemExit(
            "no finished experiment upon this commit has the parameters of params.yaml; "
            "`make ablation` runs the six structures"
        )
    try:
        text = write_tables(record, others, out)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"table_one: {error}") from error
    record.write(out / "ablation")
    print(text)


def write_tables(record: Record, others: Sequence[tuple[str, Path]], out: Path) -> str:
    """Write ablation.md, .csv and .tex; the text of the first.

    Args:
        record: What was run.
        others: Names of other systems, and their predictions.
        out: The folder.

    Raises:
        ValueError: The systems were not tested on the same clips; see also `read_other`.
        FileNotFoundError: There are no predictions of another system.
    """
    setting = record.setting.with_seeds(sorted({seed for _, seed in record.runs}))
    systems = [*ours(record), *theirs(record, others)]
    table = compare(systems, setting.classes, setting.dataset, record.baselines)
    text = page(table, setting, remarks=[*beside_linear(table), *remarks(record, table)])
    with atomic_path(out / "ablation.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    for name, content in (("ablation.md", text), ("ablation.tex", latex(table))):
        with atomic_path(out / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return text


def collect(params: dict[str, Any], folder: Path) -> Record | None:
    """What is recorded of these parameters, with what was run since; None where nothing was.

    Raises:
        FileNotFoundError: A finished experiment is neither recorded nor in DVC's cache.
    """
    digest = shared_digest(params)
    record = Record.read(folder)
    if record and record.parameters != digest:
        record = None
    for trial, finished in finished_experiments(params).items():
        try:
            predictions, baselines = (
                read_predictions(finished, kind) for kind in ("predictions", "baselines")
            )
        except FileNotFoundError:
            # Of a clone that has the results in git, and not in its cache.
            if record and (trial.structure.name, trial.seed) in record.runs:
                continue
            raise
        record = record or Record(digest, finished.setting, {}, {}, {})
        # What is recorded may be of an earlier state of the data.
        record = record._replace(setting=finished.setting)
        record.add(describe(trial, finished), predictions, baselines)
    return record


def describe(trial: Trial, finished: FinishedExperiment) -> Run:
    """A finished experiment as it is recorded."""
    return Run(
        structure=trial.structure.name,
        seed=trial.seed,
        experiment=finished.name,
        num_parameters=finished.summary["num_parameters"],
        training_seconds=training_seconds(
            TrackedExperiment(Choices.of(finished.params).model_dump(), {}, "")
        ),
    )


def ours(record: Record) -> list[System]:
    """The structures that were run, in the order of Table I, each over all its seeds."""
    systems = []
    for name in (structure.name for structure in STRUCTURES):
        keys = [(name, seed) for seed in record.seeds(name)]
        if not keys:
            continue
        runs = [record.runs[key] for key in keys]
        times = [run.training_seconds for run in runs if run.training_seconds is not None]
        systems.append(
            System(
                name,
                " ".join(run.experiment for run in runs),
                [record.predictions[key] for key in keys],
                record.seeds(name),
                num_parameters=runs[0].num_parameters,
                training_seconds=float(np.mean(times)) if times else np.nan,
            )
        )
    return systems


def theirs(record: Record, others: Sequence[tuple[str, Path]]) -> list[System]:
    """Other systems, by the predictions that somebody has of them."""
    tested = next(iter(record.predictions.values()))
    classes = record.setting.classes
    return [
        System(name, str(path.name), [read_other(path, tested, classes)]) for name, path in others
    ]


def remarks(record: Record, table: pd.DataFrame) -> list[str]:
    """What the reader of the table must know besides the setting."""
    found = []
    if table["uar_pooled_low"].isna().iloc[0]:
        tested = record.setting.coverage
        reason = why_no_interval(tested.subjects, tested.groups)
        found.append(f"{reason[0].upper()}{reason[1:]}.")
    names = [structure.name for structure in STRUCTURES]
    if missing := [name for name in names if not record.seeds(name)]:
        found.append(f"Not run yet: {', '.join(missing)}.")
    run = {name: record.seeds(name) for name in names if record.seeds(name)}
    if len({tuple(seeds) for seeds in run.values()}) > 1:
        counts = "; ".join(f"{name} {', '.join(map(str, seeds))}" for name, seeds in run.items())
        found.append(f"**The structures were not run with the same seeds**: {counts}.")
    return found


def _other(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not (name and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, Path(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("metrics"), help="where the result goes (%(default)s)"
    )
    parser.add_argument(
        "--other",
        type=_other,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="another system's predictions: a CSV with clip, and predicted or probability_<class>",
    )
    args = parser.parse_args()
    main(args.out, args.other)
