"""Stage split: folds of the labelled clips, in which no subject is in two parts."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt

from pipeline.common.clips import StoredClip, group_words, read_stored
from pipeline.common.params import StageParams, load_params
from pipeline.folds.folds import GroupFold, classes_lacking, read_folds, write_folds
from pipeline.folds.group_folds import balanced_tests, holdout_fold, make_folds, published_folds
from pipeline.folds.official import official_folds
from pipeline.folds.protocols import PUBLISHED, SplitSettings


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    dataset: str
    folds: Annotated[list[int], Field(min_length=1)]
    split: SplitSettings
    seed: NonNegativeInt


def main(params: Params, manifest: Path, out: Path) -> None:
    clips = read_stored(manifest)
    try:
        folds = split_clips(params, clips)
    except ValueError as error:
        raise SystemExit(f"split: {error}") from error
    words = group_words(clips)
    check_listed(params, folds, words)
    write_folds(out, clips, folds)
    sizes = "; ".join(
        f"{len(fold.train)}/{len(fold.validation)}/{len(fold.test)}" for fold in folds
    )
    print(
        f"split: {len(folds)} folds by protocol {params.split.protocol}, {len(params.folds)} of "
        f"them to be trained; {words} for training/validation/test: {sizes}"
    )
    for fold in read_folds(out):
        if fold.number in params.folds and (lacking := classes_lacking(fold, clips)):
            parts = "; ".join(f"{part} lacks {', '.join(lacking[part])}" for part in lacking)
            print(f"split: fold {fold.number}: {parts}; a UAR there is over the other classes")


def check_listed(params: Params, folds: Sequence[GroupFold], words: str) -> None:
    """Stop where `folds` lists a fold that there is not, or not all that the protocol wants.

    Args:
        params: Of the stage.
        folds: That the protocol makes.
        words: What their groups are, such as `subjects`.
    """
    protocol = params.split.protocol
    listed, made = set(params.folds), [fold.number for fold in folds]
    if unknown := sorted(listed.difference(made)):
        raise SystemExit(
            f"protocol {protocol} makes {len(folds)} fold(s) of {params.dataset}, but `folds` in "
            f"params.yaml also lists {unknown}; the list of all is -S 'folds={made}'"
        )
    # Protocol paper fixes no number of folds, and holdout has one.
    whole = protocol in ("loso", "official") or protocol in PUBLISHED
    left_out = [fold for fold in folds if fold.number not in listed]
    if left_out and whole and not params.split.partial:
        untested = sum(len(fold.test) for fold in left_out)
        raise SystemExit(
            f"protocol {protocol} tests {params.dataset} in {len(folds)} folds; `folds` in "
            f"params.yaml lists {len(listed)} of them, and {untested} {words} would not be tested. "
            f"The list of all is -S 'folds={made}'; if a part is wanted, say so by -S "
            "split.partial=true"
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
    if split.protocol == "official":
        return official_folds(clips, validation_fraction=split.validation_fraction, seed=seed)
    if split.protocol in PUBLISHED:
        defined = PUBLISHED[split.protocol]
        if params.dataset not in defined:
            raise SystemExit(
                f"protocol {split.protocol} is defined for {' and '.join(defined)}, not for "
                f"{params.dataset}; choose another split.protocol"
            )
        return published_folds(
            clips,
            defined[params.dataset],
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
    parser.add_argument("manifest", type=Path, help="the manifest of the clips")
    parser.add_argument("out", type=Path, help="what is written")
    args = parser.parse_args()
    main(load_params(Params), args.manifest, args.out)
