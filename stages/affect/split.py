"""Stage split of the affect models: folds of whole groups."""

import argparse
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.affect.image_folds import SplitSettings, make_folds, write_folds
from pipeline.affect.labels import read_images
from pipeline.common.params import StageParams, load_params


class Params(StageParams):
    """Exactly this stage's `params` in affect/dvc.yaml."""

    folds: Annotated[list[int], Field(min_length=1)]
    split: SplitSettings


def main(params: Params, manifest: Path, out: Path) -> None:
    images = read_images(manifest)
    try:
        folds = make_folds(images, params.split)
    except ValueError as error:
        raise SystemExit(f"split: {error}") from error
    numbers = [fold.number for fold in folds]
    if unknown := sorted(set(params.folds) - set(numbers)):
        raise SystemExit(
            f"split: protocol {params.split.protocol} makes the folds {numbers}, and `folds` also "
            f"lists {unknown}"
        )
    write_folds(out, images, folds)
    for fold in folds:
        sizes = "/".join(
            str(len(fold.groups(images, part))) for part in ("train", "validation", "test")
        )
        print(f"split: fold {fold.number}: {sizes} groups for training/validation/test")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path, help="the manifest of the clips")
    parser.add_argument("out", type=Path, help="what is written")
    args = parser.parse_args()
    main(load_params(Params, Path("affect/params.yaml")), args.manifest, args.out)
