"""Stage faces of the affect models: a set as a manifest with masks, and its pictures decoded."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt, field_validator
from pydantic_core.core_schema import ValidationInfo

from pipeline.affect.choices import SetName
from pipeline.affect.decoding import store_pictures
from pipeline.affect.labels import AUS, LabelledImage
from pipeline.affect.listing import Listing, refuse_images
from pipeline.affect.sets import (
    ImageSet,
    SetSettings,
    challenge_images,
    read_set,
    settings_of,
)
from pipeline.affect.stored import (
    CHALLENGE,
    SetCard,
    write_card,
    write_challenge_list,
)
from pipeline.common.files import write_json
from pipeline.common.params import Preset, StageParams, load_params
from pipeline.common.refusals import check_share, described

# Of refused lines, those that are listed.
_LISTED = 1000
# In the stage's folder, what is drawn of the set `rendered`.
_DRAWN = "drawn"


class Params(StageParams):
    """Exactly this stage's `params` in affect/dvc.yaml."""

    set: SetName
    sets: Annotated[SetSettings, Preset("sets", chosen_by="set")]
    stored_side: Annotated[PositiveInt, Preset("models", chosen_by="model", key="stored_side")]
    max_refused: Annotated[float, Field(ge=0, le=1)]

    @field_validator("sets", mode="plain")
    @classmethod
    def _of_the_set(cls, value: Any, info: ValidationInfo) -> SetSettings:
        return settings_of(info.data["set"], value)


def main(params: Params, source: Path, out: Path, quality: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    try:
        found = read_set(params.set, params.sets, source, out / _DRAWN)
        listed = [image for listing in found.listings.values() for image in listing.images]
        images, broken = store_pictures(out, found.root, listed, params.stored_side)
        why = [(one.image, one.refusal) for one in broken]
        listings = {name: refuse_images(one, why) for name, one in found.listings.items()}
        write_challenge(found, out, params.stored_side)
        write_card(
            out,
            SetCard(identity=found.identity, classes=found.classes, side=params.stored_side),
        )
        write_json(quality, describe(found, listings, images))
        for line in found.counts:
            print(f"faces: {line}")
        refuse_too_many(params, listings, quality)
    except ValueError as error:
        raise SystemExit(f"faces: {error}") from error
    groups = len({image.group for image in images})
    refused = sum(len(listing.refused) for listing in listings.values())
    print(f"faces: {len(images)} images of {groups} groups; {refused} lines refused")


def write_challenge(found: ImageSet, out: Path, side: int) -> None:
    """The pictures of a test list, and its lines; both may be empty."""
    store_pictures(out / CHALLENGE, found.root, challenge_images(found), side)
    write_challenge_list(out / CHALLENGE, found.challenge)


def describe(
    found: ImageSet, listings: dict[str, Listing], images: list[LabelledImage]
) -> dict[str, Any]:
    """The content of data_quality.json."""
    refused = [(file, line) for file, one in listings.items() for line in one.refused]
    reasons = Counter(line.refusal.reason for _, line in refused)
    labels = [image.labels for image in images]
    return {
        "images": len(images),
        "groups": len({image.group for image in images}),
        "known": {
            "valence_arousal": sum(one.valence is not None for one in labels),
            "expression": sum(one.expression is not None for one in labels),
            "aus": sum(any(unit is not None for unit in one.aus) for one in labels),
        },
        "expressions": {
            name: sum(one.expression == name for one in labels) for name in found.classes
        },
        "positives": {
            f"au{unit}": sum(bool(one.aus[i]) for one in labels) for i, unit in enumerate(AUS)
        },
        "repeated_lines": sum(one.repeats for one in listings.values()),
        "unlabelled": sum(one.unlabelled for one in listings.values()),
        "challenge_lines": len(found.challenge),
        "refused": len(refused),
        "refused_by_reason": dict(sorted(reasons.items())),
        "refused_lines": [
            {"list": file, "line": line.number, "path": line.path, "message": line.refusal.message}
            for file, line in refused[:_LISTED]
        ],
    }


def refuse_too_many(params: Params, listings: dict[str, Listing], quality: Path) -> None:
    """Say what was refused, and stop where it is too much.

    Raises:
        ValueError: More of the lines than `max_refused` allows, or nothing is left.
    """
    refused = [line for listing in listings.values() for line in listing.refused]
    used = sum(len(listing.images) for listing in listings.values())
    for file, listing in listings.items():
        for sentence in described(
            (line.refusal.reason, f"line {line.number}: {line.refusal.message}")
            for line in listing.refused
        ):
            print(f"  {file}: {sentence}")
    if not used:
        raise ValueError(
            f"{len(refused)} lines were refused and no image can be used; the reasons are above "
            f"and in {quality}"
        )
    check_share(
        len(refused),
        used + len(refused),
        params.max_refused,
        things="lines",
        name="max_refused",
        report=quality,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="where it comes from")
    parser.add_argument("out", type=Path, help="what is written")
    parser.add_argument("quality", type=Path, help="gets what was refused, and why")
    args = parser.parse_args()
    main(load_params(Params, Path("affect/params.yaml")), args.source, args.out, args.quality)
