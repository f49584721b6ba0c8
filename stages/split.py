"""Stage split: subject-independent folds of the labelled clips."""

import argparse
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt

from pipeline.data.clips import read_manifest
from pipeline.data.folds import subject_folds, write_folds
from pipeline.params import Section, StageParams, load_params


class SplitParams(Section):
    """How many folds, and how much of each training part chooses the epoch."""

    num_folds: Annotated[int, Field(ge=2)]
    validation_fraction: Annotated[float, Field(gt=0, le=0.5)]


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    split: SplitParams
    seed: NonNegativeInt


def main(params: Params, manifest: Path, out: Path) -> None:
    clips = read_manifest(manifest)
    folds = subject_folds(
        clips,
        num_folds=params.split.num_folds,
        validation_fraction=params.split.validation_fraction,
        seed=params.seed,
    )
    write_folds(out, folds)
    sizes = "; ".join(
        f"{len(fold.train)}/{len(fold.validation)}/{len(fold.test)}" for fold in folds
    )
    print(f"split: {len(folds)} folds, subjects for training/validation/test: {sizes}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    main(load_params(Params), args.manifest, args.out)
