"""Stage baseline: what needs no network, trained and tested on the folds of the structures."""

import argparse
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from pipeline.common.clips import StoredClip
from pipeline.common.files import atomic_path
from pipeline.common.params import Preset, StageParams, load_params
from pipeline.common.workers import map_in_threads
from pipeline.evaluation.baselines import (
    LINEAR,
    MAJORITY,
    aligned_face,
    linear_probabilities,
    majority_probabilities,
    predictions_of,
)
from pipeline.evaluation.tables import score
from pipeline.folds.folds import read_fold, refuse_leaks
from pipeline.store.folders import Shards, open_shards, read_clips, read_contents
from pipeline.store.stored_frames import class_numbers
from pipeline.store.strips import decode_strip, strip_size


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    dataset: str
    folds: Annotated[list[int], Field(min_length=1)]
    classes: Annotated[list[str], Preset("datasets", chosen_by="dataset", key="classes")]


def main(params: Params, shards: Shards, folds: Path, out: Path) -> None:
    clips = read_clips(shards)
    faces = np.stack(list(map_in_threads(partial(read_face, shards), clips, "aligning")))
    labels = class_numbers(clips, params.classes)
    tables = []
    for number in params.folds:
        fold = read_fold(folds, number)
        refuse_leaks(fold, clips)
        train, test = fold.rows(clips, "train"), fold.rows(clips, "test")
        tested = pd.DataFrame(
            [(clips[i].clip, clips[i].group, clips[i].label) for i in test],
            columns=["clip", "subject", "actual"],
        )
        probabilities = {
            MAJORITY: majority_probabilities(labels[train], len(test), len(params.classes)),
            LINEAR: linear_probabilities(
                faces[train], labels[train], faces[test], len(params.classes)
            ),
        }
        tables += [
            predictions_of(name, number, tested, found, params.classes)
            for name, found in probabilities.items()
        ]
    predictions = pd.concat(tables, ignore_index=True)
    with atomic_path(out) as temporary:
        predictions.to_parquet(temporary, index=False)
    for name, table in predictions.groupby("baseline"):
        scores = score(table, params.classes)
        print(f"baseline: {name}, UAR {scores.uar:.1%}, WAR {scores.war:.1%} on {len(table)} clips")


def read_face(shards: Shards, clip: StoredClip) -> npt.NDArray[np.float32]:
    """The aligned face of a clip (T, A, A)."""
    [(strip, track)] = read_contents(shards, [clip])
    return aligned_face(decode_strip(strip, strip_size(strip)), track)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", help="a folder, or its address")
    parser.add_argument("folds", type=Path, help="table of clips x folds")
    parser.add_argument("out", type=Path, help="what is written")
    args = parser.parse_args()
    main(load_params(Params), open_shards(args.shards), args.folds, args.out)
