"""What Table I is made of, in files small enough for git.

`experiments.json` says what was run, `predictions.parquet` has a row per system, seed and tested
clip: with these two the table is made again in any clone, and can be checked.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import pandas as pd

from pipeline.common.files import atomic_path, write_json
from pipeline.common.params import Section
from pipeline.evaluation.setting import Setting
from pipeline.evaluation.tables import OPTIMISTIC

EXPERIMENTS, PREDICTIONS = "experiments.json", "predictions.parquet"
# Of every frame: not for git, and in no table.
_LEFT_OUT = ["boxes", "points", "times"]


class Run(Section):
    """One structure, trained with one seed on all folds.

    Attributes:
        structure: Its name.
        experiment: Name of the DVC experiment.
        training_seconds: Mean over the folds; None where nobody took the time.
    """

    structure: str
    seed: int
    experiment: str
    num_parameters: int
    training_seconds: float | None


class _Contents(Section):
    """What experiments.json says.

    Attributes:
        parameters: Digest of what the runs have in common.
    """

    parameters: str
    setting: Setting
    runs: list[Run]


class Record(NamedTuple):
    """The runs of a table, with their predictions and those of the baselines.

    Attributes:
        parameters: Digest of what the runs have in common.
        setting: Of a run; seeds and folds differ.
        runs: By structure and seed.
        predictions: Of the same runs, without frames.
        baselines: Of every seed; a column `baseline` names them.
    """

    parameters: str
    setting: Setting
    runs: dict[tuple[str, int], Run]
    predictions: dict[tuple[str, int], pd.DataFrame]
    baselines: dict[int, pd.DataFrame]

    def seeds(self, structure: str) -> list[int]:
        """Those that the structure was run with."""
        return sorted(seed for name, seed in self.runs if name == structure)

    def add(self, run: Run, predictions: pd.DataFrame, baselines: pd.DataFrame) -> None:
        """Add a run, or put it in the place of one of the same structure and seed."""
        key = (run.structure, run.seed)
        self.runs[key] = run
        self.predictions[key] = predictions.drop(columns=_LEFT_OUT, errors="ignore")
        self.baselines[run.seed] = baselines

    def write(self, folder: Path) -> None:
        """Write both files; equal records give equal bytes."""
        order = sorted(self.runs)
        contents = _Contents(
            parameters=self.parameters,
            setting=self.setting,
            runs=[self.runs[key] for key in order],
        )
        tables = [
            *(_named(self.predictions[key], *key) for key in order),
            *(
                _named(part.drop(columns="baseline"), str(name), seed)
                for seed, table in sorted(self.baselines.items())
                for name, part in table.groupby("baseline")
            ),
        ]
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / PREDICTIONS) as temporary:
            pd.concat(tables, ignore_index=True).to_parquet(temporary, index=False)
        write_json(folder / EXPERIMENTS, contents.model_dump(mode="json", exclude_defaults=True))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """What `write` wrote; None where nothing was."""
        if not (folder / EXPERIMENTS).is_file():
            return None
        text = (folder / EXPERIMENTS).read_text(encoding="utf-8")
        contents = _Contents.model_validate_json(text)
        table = pd.read_parquet(folder / PREDICTIONS)
        runs = {(run.structure, run.seed): run for run in contents.runs}
        parts = {
            (str(system), int(str(seed))): part.drop(columns=["system", "seed"]).reset_index(
                drop=True
            )
            for (system, seed), part in table.groupby(["system", "seed"])
        }
        return cls(
            contents.parameters,
            contents.setting,
            runs,
            {key: _without_empty(parts[key]) for key in runs},
            _baselines(runs, parts),
        )


def _named(predictions: pd.DataFrame, system: str, seed: int) -> pd.DataFrame:
    table = predictions.assign(system=system, seed=seed)
    return table[["system", "seed", *predictions.columns]]


def _without_empty(predictions: pd.DataFrame) -> pd.DataFrame:
    """Without the best epochs on the test clips where nobody looked for them."""
    if OPTIMISTIC in predictions and predictions[OPTIMISTIC].isna().all():
        return predictions.drop(columns=OPTIMISTIC)
    return predictions


def _baselines(
    runs: Iterable[tuple[str, int]], parts: Mapping[tuple[str, int], pd.DataFrame]
) -> dict[int, pd.DataFrame]:
    """Of every seed, those systems that are no runs."""
    known = set(runs)
    seeds = sorted({seed for _, seed in parts})

    def of(seed: int) -> Sequence[pd.DataFrame]:
        return [
            _without_empty(part).assign(baseline=name)
            for (name, its_seed), part in sorted(parts.items(), key=lambda item: item[0])
            if its_seed == seed and (name, its_seed) not in known
        ]

    return {seed: pd.concat(of(seed), ignore_index=True) for seed in seeds}
