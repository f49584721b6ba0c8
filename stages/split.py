"""Stage split: subject-independent folds of the labelled clips."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from pipeline.common.clips import StoredClip, read_stored
from pipeline.common.params import Section, StageParams, load_params
from pipeline.folds.folds import GroupFold, write_folds
from pipeline.folds.group_folds import balanced_tests, holdout_fold, make_folds, published_folds
from pipeline.folds.protocols import MAE_DFER_CLASSES, MAE_DFER_TESTS


class SplitParams(Section):
    """The protocol, how many folds, and how much of each training part chooses the epoch."""

    protocol: Literal["paper", "mae-dfer", "loso", "holdout"]
    num_folds: Annotated[int, Field(ge=2)]
    test_fraction: Annotated[float, Field(gt=0, le=0.5)]
    validation_fraction: Annotated[float, Field(gt=0, le=0.5)]


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    dataset: str
    folds: Annotated[list[int], Field(min_length=1)]
    split: SplitParams
    seed: NonNegativeInt


def main(params: Params, manifest: Path, out: Path) -> None:
    clips = read_stored(manifest)
    try:
        folds = split_clips(params, clips)
    except ValueError as error:
        raise SystemExit(f"split: {error}") from error
    if unknown := sorted(set(params.folds) - {fold.number for fold in folds}):
        raise SystemExit(
            f"protocol {params.split.protocol} makes {len(folds)} fold(s) of {params.dataset}, but "
            f"`folds` in params.yaml also lists {unknown}; the list of all is "
            f"-S 'folds={[fold.number for fold in folds]}'"
        )
    write_folds(out, clips, folds)
    sizes = "; ".join(
        f"{len(fold.train)}/{len(fold.validation)}/{len(fold.test)}" for fold in folds
    )
    print(
        f"split: {len(folds)} folds by protocol {params.split.protocol}, {len(params.folds)} of "
        f"them to be trained; subjects for training/validation/test: {sizes}"
    )


def split_clips(params: Params, clips: Sequence[StoredClip]) -> list[GroupFold]:
    """The folds of the chosen protocol."""
    split, seed = params.split, params.seed
    if split.protocol == "holdout":
        return holdout_fold(
            clips,
            test_fraction=split.test_fraction,
            validation_fraction=split.validation_fraction,
            seed=seed,
        )
    if split.protocol == "mae-dfer":
        if params.dataset not in MAE_DFER_TESTS:
            raise SystemExit(
                f"protocol mae-dfer is defined for {' and '.join(MAE_DFER_TESTS)}, not for "
                f"{params.dataset}; choose another split.protocol"
            )
        return published_folds(
            clips,
            MAE_DFER_TESTS[params.dataset],
            MAE_DFER_CLASSES[params.dataset],
            validation_fraction=split.validation_fraction,
            seed=seed,
        )
    if split.protocol == "loso":
        tests = [[subject] for subject in sorted({clip.group for clip in clips})]
    else:
        tests = balanced_tests(clips, split.num_folds, seed)
    return make_folds(clips, tests, validation_fraction=split.validation_fraction, seed=seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    main(load_params(Params), args.manifest, args.out)
