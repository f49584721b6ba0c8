"""Predictions of any other system on the same clips, as one more row beside ours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.common.vocabulary import normalise_label


def read_other(path: Path, tested: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The predictions in a CSV table, in the columns of ours that there are.

    It has a row for every tested clip: `clip`, the name in data/predictions/, optionally `actual`,
    and either `predicted` or `probability_<class>` for every class, or both.

    Args:
        path: Of the table.
        tested: Columns `fold`, `clip`, `subject` and `actual` of the clips of a training of ours.
        classes: In the order of params.yaml.

    Raises:
        ValueError: It lacks a column or a clip, has one twice, or says another truth or no class.
    """
    table = pd.read_csv(path, dtype={"clip": str})
    probabilities = [f"probability_{name}" for name in classes]
    has_probabilities = set(probabilities) <= set(table)
    if "clip" not in table or not ("predicted" in table or has_probabilities):
        raise ValueError(
            f"{path} has the columns {', '.join(map(str, table))}; it needs `clip`, and "
            f"`predicted` or all of {', '.join(probabilities)}"
        )
    if repeated := table["clip"][table["clip"].duplicated()].tolist():
        raise ValueError(f"{path} has {repeated[0]} more than once")
    read = ["clip", *(name for name in ("actual", "predicted", *probabilities) if name in table)]
    found = tested[["fold", "clip", "subject", "actual"]].merge(
        table[read].rename(columns={"actual": "theirs"}), on="clip", how="left", indicator=True
    )
    if missing := found["clip"][found["_merge"] == "left_only"].tolist():
        raise ValueError(
            f"{path} lacks {len(missing)} of the {len(tested)} clips that were tested, such as "
            f"{missing[0]}: their names are those in data/predictions/"
        )
    if has_probabilities and found[probabilities].isna().any(axis=None):
        empty_row = found["clip"][found[probabilities].isna().any(axis=1)].iloc[0]
        raise ValueError(f"{path} lacks a probability of {empty_row}")
    if has_probabilities and "predicted" not in found:
        best = found[probabilities].to_numpy().argmax(axis=1)
        found["predicted"] = np.array(classes)[best]
    found["predicted"] = [_class(path, name, classes) for name in found["predicted"]]
    if "theirs" in found:
        theirs = [_class(path, name, classes) for name in found["theirs"]]
        unlike = found["clip"][found["actual"] != theirs].tolist()
        if unlike:
            raise ValueError(
                f"{path} says another class of {len(unlike)} clips, such as {unlike[0]}"
            )
    kept = ["fold", "clip", "subject", "actual", "predicted"]
    kept += probabilities if has_probabilities else []
    empty = dict.fromkeys(("box_iou", "landmark_error", "interocular_error"), np.nan)
    return found[kept].assign(**empty).sort_values("clip", ignore_index=True)


def _class(path: Path, name: object, classes: Sequence[str]) -> str:
    word = normalise_label(str(name))
    if word not in classes:
        raise ValueError(f"{path}: {name!r} is none of {', '.join(classes)}")
    return word
