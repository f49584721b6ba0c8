"""Whether params.yaml can be run, before anything is: every choice, weights, folds, disk.

    python -m commands.check

Names everything that is wrong at once, and what is near. Nothing is fetched or changed. `make
repro` and the stage download run it first; `dvc repro` itself looks presets up before any stage.
"""

import argparse
import difflib
import shutil
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import TypeAdapter, ValidationError

from pipeline.acquire.weights import FROM_SCRATCH, cards, read_card
from pipeline.common.params import StageParams
from pipeline.folds.protocols import PUBLISHED, SplitSettings
from pipeline.models.checkpoints import load_encoder
from pipeline.models.encoder import EncoderSize
from pipeline.models.jepa import JepaSize
from pipeline.models.video_encoders import ENCODER_KINDS, VideoEncoderSize, new_video_encoder
from pipeline.mtcae.structures import STRUCTURES, Choices

PARAMS, PIPELINE, WEIGHTS = Path("params.yaml"), Path("dvc.yaml"), Path("weights")
# Choices on top of params.yaml, and where their presets are.
_PRESETS = {"dataset": "datasets", "model": "models", "recipe": "recipes"}
# Bytes of a stored clip at 224 pixels (docs/performance.md), which three folders hold: frames,
# shards and DVC's cache; and how many clips the data sets have that are fetched.
_CLIP_BYTES, _COPIES = 300_000, 3
_NUM_CLIPS = {"ravdess": 1440, "cremad": 7442}


def near(name: object, known: Iterable[object]) -> str:
    """`; did you mean quick? Known are quick, paper`, for the end of a message."""
    names = [str(one) for one in known]
    found = difflib.get_close_matches(str(name).lower(), [one.lower() for one in names], n=1)
    meant = next((one for one in names if found and one.lower() == found[0]), None)
    return f"{f'; did you mean {meant}?' if meant else ';'} known are {', '.join(names)}"


def wrong_choices(document: dict[str, Any]) -> list[str]:
    """Choices that name no preset."""
    return [
        f"{choice} is {document.get(choice)!r}{near(document.get(choice), document[section])}"
        for choice, section in _PRESETS.items()
        if document.get(choice) not in document.get(section, {})
    ]


def wrong_parameters(document: dict[str, Any], stages: Iterable[str]) -> list[str]:
    """What the stages refuse of their parameters, and lines that no stage reads."""
    problems: dict[str, None] = {}
    read = {"folds", *_PRESETS, *_PRESETS.values()}
    for stage in stages:
        params: type[StageParams] = import_module(f"stages.{stage}").Params
        read |= {name.partition(".")[0] for name in params.dvc_names()}
        try:
            params.from_document(document)
        except ValidationError as error:
            problems |= {_words(params, issue, document): None for issue in error.errors()}
        except ValueError as error:
            problems[str(error)] = None
    for name in document:
        if name not in read:
            problems[f"{name} is a line that no stage reads{near(name, sorted(read))}"] = None
    return list(problems)


def _words(params: type[StageParams], issue: Any, document: dict[str, Any]) -> str:
    """A line about what pydantic refused, by the name that params.yaml has for it."""
    field, *rest = map(str, issue["loc"])
    if preset := params.presets().get(field):
        field = f"{preset.section}.{document[preset.chosen_by]}"
        rest = [*(preset.key.split(".") if preset.key else []), *rest]
    # pydantic names the kind of an encoder, which is no line of params.yaml.
    name = ".".join([field, *(part for part in rest if part not in ENCODER_KINDS)])
    if issue["type"] == "literal_error":
        known = issue["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return f"{name} is {issue['input']!r}{near(issue['input'], known)}"
    if issue["type"] == "extra_forbidden":
        return f"{name} is no parameter"
    return f"{name}: {issue['msg'].removeprefix('Value error, ')}"


def wrong_structure(document: dict[str, Any]) -> list[str]:
    """A decoder that the structure does not have."""
    structure = Choices.of(document).structure
    if structure in STRUCTURES:
        return []
    rows = ", ".join(one.name for one in STRUCTURES)
    return [f"arch and decoder make {structure.name}, which is no structure; there are {rows}"]


def encoder_size(document: dict[str, Any]) -> EncoderSize | JepaSize:
    """That of the chosen model."""
    kinds: TypeAdapter[EncoderSize | JepaSize] = TypeAdapter(VideoEncoderSize)
    return kinds.validate_python(document["models"][document["model"]]["encoder"])


def wrong_size(document: dict[str, Any]) -> list[str]:
    """A model that cannot be built, such as for another number of frames."""
    try:
        with torch.device("meta"):
            new_video_encoder(encoder_size(document), num_frames=document["frames"]["num_frames"])
    except ValueError as error:
        return [f"models.{document['model']}.encoder and frames.num_frames do not fit: {error}"]
    return []


def wrong_weights(document: dict[str, Any], folder: Path) -> list[str]:
    """Weights that are not there, of another size, or that a frozen encoder lacks."""
    name = document["encoder"]["weights"]
    model = document["model"]
    path = folder / name
    if not path.is_file():
        known = [FROM_SCRATCH, *cards(folder)]
        files = [one.name for one in folder.glob("*") if one.suffix]
        return [
            f"encoder.weights is {name!r}, which is neither a name nor a file in weights/"
            f"{near(name, [*known, *sorted(files)])}"
        ]
    if name == FROM_SCRATCH:
        frozen = document["recipes"][document["recipe"]]["encoder"]["mode"] == "frozen"
        return [
            f"recipe {document['recipe']} keeps the encoder as it is, and encoder.weights is "
            f"{FROM_SCRATCH}: it would stay random. Name weights (docs/checkpoints.md) or take a "
            "recipe that trains it, such as full"
        ] * frozen
    try:
        if card := read_card(path):
            fits = card.model == model
            return [] if fits else [f"{name} has the size of model {card.model}, not of {model}"]
        num_frames = document["frames"]["num_frames"]
        load_encoder(new_video_encoder(encoder_size(document), num_frames=num_frames), path)
    except ValueError as error:
        return [str(error)]
    return []


def wrong_folds(document: dict[str, Any]) -> list[str]:
    """Folds that the protocol does not make, where their number is known before the data is."""
    split = SplitSettings.model_validate(document["split"])
    protocol, dataset = split.protocol, document["dataset"]
    if protocol in PUBLISHED and dataset not in PUBLISHED[protocol]:
        sets = " and ".join(PUBLISHED[protocol])
        return [f"split.protocol {protocol} is defined for {sets}, not for {dataset}"]
    made = {"paper": split.num_folds, "holdout": 1}
    made |= {name: len(sets[dataset].tests) for name, sets in PUBLISHED.items() if dataset in sets}
    if protocol not in made or max(document["folds"], default=0) <= made[protocol]:
        return []
    folds = list(range(1, made[protocol] + 1))
    return [
        f"split.protocol {protocol} makes {made[protocol]} fold(s), and folds is "
        f"{document['folds']}: write folds: {folds}"
    ]


def too_little_room(document: dict[str, Any], folder: Path) -> list[str]:
    """A disk that cannot take the frames and shards of a data set whose size is known."""
    frames = document["frames"]
    clips = _NUM_CLIPS.get(document["dataset"], 0)
    needed = clips * _COPIES * _CLIP_BYTES * frames["segments"] * (frames["size"] / 224) ** 2
    free = shutil.disk_usage(folder).free
    if needed <= free:
        return []
    return [
        f"about {needed / 1e9:.0f} GB are needed for the frames and shards of "
        f"{document['dataset']} and DVC's copy of them, and {free / 1e9:.0f} GB are free"
    ]


def problems(document: dict[str, Any], stages: Iterable[str], folder: Path) -> list[str]:
    """All that is wrong with a whole params.yaml.

    Args:
        document: The parameters.
        stages: Names of the stages.
        folder: Of the project.
    """
    if found := wrong_choices(document):
        return found
    if found := wrong_parameters(document, stages):
        return found
    if found := wrong_size(document):
        return found
    return [
        *wrong_structure(document),
        *wrong_folds(document),
        *wrong_weights(document, folder / WEIGHTS),
        *too_little_room(document, folder),
    ]


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    try:
        document = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SystemExit(f"{PARAMS} is no YAML: {error}") from error
    stages = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))["stages"]
    if found := problems(document, stages, Path()):
        raise SystemExit("\n".join([f"{PARAMS} cannot be run:", *(f"  {line}" for line in found)]))
    print(f"{PARAMS} can be run: {Choices.of(document).structure.name}, {document['dataset']}")


if __name__ == "__main__":
    main()
