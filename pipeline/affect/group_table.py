"""What the scores of all trainings rest on, in one table: a row per seed and group.

It is small and holds no picture's answer, so that git can keep it: intervals and comparisons of two
experiments are made of it without their data.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.affect.intervals import GroupSums
from pipeline.affect.labels import AUS

_NUMBERS = ("valence", "arousal")
_MOMENTS = ("known", "predicted", "actual", "predicted_squares", "actual_squares", "products")


def group_table(
    sums: Mapping[int, GroupSums], groups: Sequence[str], classes: Sequence[str]
) -> pd.DataFrame:
    """The sums of each seed's trainings.

    Args:
        sums: By seed, of the same groups.
        groups: Their names, in the order of the sums.
        classes: C names.
    """
    tables = []
    for seed, one in sums.items():
        values = np.concatenate([part.reshape(len(groups), -1) for part in one], axis=1)
        table = pd.DataFrame(values, columns=_columns(classes))
        table.insert(0, "group", groups)
        table.insert(0, "seed", seed)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def read_group_table(table: pd.DataFrame) -> dict[int, GroupSums]:
    """The inverse of `group_table`.

    Raises:
        ValueError: A column is missing.
    """
    ending = f"right_au{AUS[0]}"
    names = list(table.columns)
    if ending not in names:
        raise ValueError(f"no column {ending} in a table of {names[:4]}")
    named = [name for name in names[: names.index(ending)] if name.startswith("right_")]
    columns = _columns([name.removeprefix("right_") for name in named])
    if missing := sorted(set(columns) - set(names)):
        raise ValueError(f"no column {missing[0]} in a table of {names[:4]}")
    shapes = ((len(_NUMBERS), len(_MOMENTS)), (len(named), 2), (len(AUS), 3))
    ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
    found = {}
    for seed, rows in table.groupby("seed"):
        parts = np.split(rows[columns].to_numpy(np.float64), ends, axis=1)
        sums = (part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True))
        found[int(str(seed))] = GroupSums(*sums)
    return found


def _columns(classes: Sequence[str]) -> list[str]:
    """In the order of `GroupSums`."""
    return [
        *(f"{number}_{moment}" for number in _NUMBERS for moment in _MOMENTS),
        *(f"{kind}_{name}" for name in classes for kind in ("right", "either")),
        *(f"{kind}_au{unit}" for unit in AUS for kind in ("right", "either", "known")),
    ]
