"""Stage report: the error analysis as a page for the browser; it may hold faces."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field, NonNegativeInt

from pipeline.common.files import atomic_path
from pipeline.common.params import Preset, Section, StageParams, load_params
from pipeline.evaluation.report import Experiment, WrongClip, confidently_wrong, render
from pipeline.evaluation.thumbnails import PICTURE_SIZE, Marks, clip_pictures, predicted_marks
from pipeline.mtcae.structures import structure_name
from pipeline.store.shards import read_shard, subject_shards
from pipeline.store.strips import decode_strip, strip_size


class ReportParams(Section):
    """Whether the page shows faces, and how many of the wrong predictions it lists."""

    frames: bool
    # About 50 kB each with frames.
    worst_clips: Annotated[int, Field(ge=0, le=200)]


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    dataset: str
    arch: str
    decoder: str
    model: str
    recipe: str
    seed: NonNegativeInt
    folds: Annotated[list[int], Field(min_length=1)]
    report: ReportParams
    classes: Annotated[list[str], Preset("datasets", chosen_by="dataset", key="classes")]


def main(params: Params, shards: Path, runs: Path, predictions: Path, out: Path) -> None:
    # The declared folds, never whatever lies in the folder: a removed fold leaves its files behind.
    histories = {fold: pd.read_csv(runs / f"fold{fold}" / "history.csv") for fold in params.folds}
    table = pd.read_parquet(predictions)
    wrong = confidently_wrong(table, params.classes, params.report.worst_clips)
    page = render(
        Experiment(
            params.dataset,
            structure_name(params.arch, params.decoder),
            params.model,
            params.recipe,
            params.seed,
        ),
        table,
        histories,
        params.classes,
        wrong,
        read_pictures(shards, wrong, table) if params.report.frames else None,
    )
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    faces = " (with faces: keep it to yourself)" if params.report.frames else ""
    print(f"report: {out}{faces}, {out.stat().st_size / 1000:.0f} kB")


def read_pictures(
    shards: Path, clips: Sequence[WrongClip], predictions: pd.DataFrame
) -> dict[str, list[bytes]]:
    """Small pictures of the clips by name, out of the shards of their subjects and no others."""
    names = {clip.clip for clip in clips}
    marks = {
        clip: predicted_marks(boxes, points)
        for clip, boxes, points in zip(
            predictions["clip"], predictions["boxes"], predictions["points"], strict=True
        )
        if clip in names
    }
    pictures = {}
    for shard in subject_shards(shards, sorted({clip.subject for clip in clips})):
        for stored in read_shard(shard):
            if stored.clip in names:
                side, track = strip_size(stored.strip), stored.track
                pictures[stored.clip] = clip_pictures(
                    decode_strip(stored.strip, PICTURE_SIZE),
                    Marks(track.boxes / side, track.points / side, track.mask),
                    marks[stored.clip],
                )
    return pictures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    main(load_params(Params), args.shards, args.runs, args.predictions, args.out)
