"""Stage collect of pre-training: what there is to learn from, and what of it is held out."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, field_validator
from pydantic_core.core_schema import ValidationInfo

from pipeline.common.files import write_json
from pipeline.common.params import Preset, Section, StageParams, load_params
from pipeline.common.refusals import check_share, described
from pipeline.datasets import sample
from pipeline.datasets.action_units import EXPRESSIONS
from pipeline.pretrain.collect import collect_pictures, collect_videos
from pipeline.pretrain.collect_shards import collect_shards
from pipeline.pretrain.listing import (
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    Collection,
    GroupBy,
    Split,
    list_files,
)
from pipeline.pretrain.manifest import HELD_OUT, MANIFEST, RENDERED, Data, count_parts
from pipeline.pretrain.spans import FaceSearch

# Of refused files, those that are listed.
_LISTED = 1000


class RenderedSettings(Section):
    """Faces that are drawn, as those of the data set `sample`.

    Attributes:
        num_subjects: People, whose faces depend on the seed.
        clips_per_emotion: Of each of them.
        seed: Another one than `datasets.sample.seed`, whose people are tested.
        search: What of a video is taken.
    """

    num_subjects: Annotated[int, Field(ge=2, le=99)]
    clips_per_emotion: Annotated[int, Field(ge=1, le=4)]
    seed: NonNegativeInt
    search: FaceSearch


class VideoSettings(Section):
    """A folder of videos, or a table of them; see `list_files`."""

    group_by: GroupBy
    search: FaceSearch


class PictureSettings(Section):
    """A folder of pictures, or a table of them; see `list_files`."""

    group_by: GroupBy


class ShardSettings(Section):
    """Shards of this project."""


AnySettings = RenderedSettings | VideoSettings | PictureSettings | ShardSettings
_SETTINGS: dict[Data, type[AnySettings]] = {
    "rendered": RenderedSettings,
    "shards": ShardSettings,
    "videos": VideoSettings,
    "images": PictureSettings,
}


class ExcludedFolds(Section):
    """Whose test groups are left out, so that an encoder may be tested on them.

    Attributes:
        table: data/folds/NAME.csv for the shards data/shards/NAME.
        folds: Numbers; none: nobody is left out.
    """

    table: Path
    folds: list[int]


class Params(StageParams):
    """Exactly this stage's `params` in pretrain/dvc.yaml."""

    data: Data
    exclude_folds: ExcludedFolds
    held_out: Annotated[float, Field(gt=0, lt=1)]
    max_refused: Annotated[float, Field(ge=0, le=1)]
    sources: Annotated[AnySettings, Preset("sources", chosen_by="data")]
    seed: NonNegativeInt

    @field_validator("sources", mode="plain")
    @classmethod
    def _of_the_kind(cls, value: Any, info: ValidationInfo) -> AnySettings:
        return _SETTINGS[info.data["data"]].model_validate(value or {})


def main(params: Params, source: Path, out: Path, quality: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    try:
        found = collect(params, source, out)
        write_json(quality, describe(found))
        refuse_too_many(params, found, quality)
        counts = count_parts(out / MANIFEST)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"collect: {error}") from error
    print(
        f"collect: {found.num_samples} samples of {found.num_files} files or clips in {source}, "
        f"{counts[HELD_OUT]} of them held out; {len(found.refused)} refused"
    )
    for dataset, groups in found.excluded.items():
        print(f"  left out, because they are tested: {len(groups)} groups of {dataset}")


def collect(params: Params, source: Path, out: Path) -> Collection:
    """Look at everything, and write the manifest.

    Raises:
        FileNotFoundError: The source is not there.
        ValueError: Nothing in it can be used, or nothing can be held out.
    """
    split, settings = Split(params.held_out, params.seed), params.sources
    excluded, name = params.exclude_folds, name_of(params.data, source)
    if isinstance(settings, ShardSettings):
        return collect_shards(out, source, split, excluded.table, excluded.folds)
    if excluded.folds:
        raise ValueError(
            "exclude_folds goes with data: shards; whom other files show is not known, so that "
            "nobody can be left out"
        )
    if isinstance(settings, PictureSettings):
        listing = list_files(source, PICTURE_SUFFIXES, settings.group_by)
        return collect_pictures(out, listing, name, split)
    if isinstance(settings, RenderedSettings):
        render(settings, out / RENDERED)
        listing = list_files(out / RENDERED, VIDEO_SUFFIXES, "folder")
    else:
        listing = list_files(source, VIDEO_SUFFIXES, settings.group_by)
    return collect_videos(out, listing, name, split, settings.search)


def render(settings: RenderedSettings, folder: Path) -> None:
    """Draw the videos."""
    folder.mkdir(exist_ok=True)
    drawn = sample.Settings(
        classes=list(EXPRESSIONS),
        source=None,
        **settings.model_dump(exclude={"search"}),
    )
    sample.collect(drawn, folder, folder)


def name_of(data: Data, source: Path) -> str:
    """What tables call the data: the name of a folder or table."""
    return "rendered faces" if data == "rendered" else source.resolve().stem


def describe(found: Collection) -> dict[str, Any]:
    """The content of data_quality.json."""
    reasons = Counter(refused.refusal.reason for refused in found.refused)
    return {
        "files": found.num_files,
        "samples": found.num_samples,
        "refused": len(found.refused),
        "refused_by_reason": dict(sorted(reasons.items())),
        "excluded_groups": {name: len(groups) for name, groups in found.excluded.items()},
        "refused_files": [
            {"path": path, "reason": refusal.reason, "message": refusal.message}
            for path, refusal in found.refused[:_LISTED]
        ],
    }


def refuse_too_many(params: Params, found: Collection, quality: Path) -> None:
    """Say what was refused, and stop where it is too much.

    Raises:
        ValueError: More of the files than `max_refused` allows.
    """
    for line in described(
        (refusal.reason, f"{path}: {refusal.message}") for path, refusal in found.refused
    ):
        print(f"  {line}")
    check_share(
        len(found.refused),
        found.num_files,
        params.max_refused,
        things="files",
        name="max_refused",
        report=quality,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="where it comes from")
    parser.add_argument("out", type=Path, help="what is written")
    parser.add_argument("quality", type=Path, help="gets what was refused, and why")
    args = parser.parse_args()
    main(load_params(Params, Path("pretrain/params.yaml")), args.source, args.out, args.quality)
