"""Stage report: the error analysis as a page for the browser; it may hold faces."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field

from pipeline.common.files import atomic_path
from pipeline.common.params import Section, StageParams, load_params
from pipeline.evaluation.report import WrongClip, confidently_wrong, render
from pipeline.evaluation.setting import SETTING, Setting
from pipeline.evaluation.thumbnails import PICTURE_SIZE, Marks, clip_pictures, predicted_marks
from pipeline.mtcae.structures import Arch, Decoder, structure_of
from pipeline.store.folders import Shards, open_shards, read_clips, read_contents
from pipeline.store.strips import decode_strip, strip_size


class ReportParams(Section):
    """Whether the page shows faces, and how many of the wrong predictions it lists."""

    frames: bool
    # About 50 kB each with frames.
    worst_clips: Annotated[int, Field(ge=0, le=200)]


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    arch: Arch
    decoder: Decoder
    report: ReportParams


def main(
    params: Params, shards: Shards, baselines: Path, predictions: Path, metrics: Path, out: Path
) -> None:
    setting = Setting.model_validate_json((metrics / SETTING).read_text(encoding="utf-8"))
    rows = pd.read_csv(metrics / "history.csv")
    histories = {fold: rows[rows["fold"] == fold] for fold in rows["fold"].unique()}
    table = pd.read_parquet(predictions)
    wrong = confidently_wrong(table, setting.classes, params.report.worst_clips)
    page = render(
        structure_of(params.arch, params.decoder).name,
        setting,
        table,
        pd.read_parquet(baselines),
        histories,
        wrong,
        read_pictures(shards, wrong, table) if params.report.frames else None,
    )
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    faces = " (with faces: keep it to yourself)" if params.report.frames else ""
    print(f"report: {out}{faces}, {out.stat().st_size / 1000:.0f} kB")


def read_pictures(
    shards: Shards, clips: Sequence[WrongClip], predictions: pd.DataFrame
) -> dict[str, list[bytes]]:
    """Small pictures of the clips by name."""
    names = {clip.clip for clip in clips}
    marks = {
        clip: predicted_marks(boxes, points)
        for clip, boxes, points in zip(
            predictions["clip"], predictions["boxes"], predictions["points"], strict=True
        )
        if clip in names
    }
    pictures = {}
    shown = [clip for clip in read_clips(shards) if clip.clip in names]
    for clip, (strip, track) in zip(shown, read_contents(shards, shown), strict=True):
        side = strip_size(strip)
        pictures[clip.clip] = clip_pictures(
            decode_strip(strip, PICTURE_SIZE),
            Marks(track.boxes / side, track.points / side, track.mask),
            marks[clip.clip],
        )
    return pictures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", help="a folder, or its address")
    parser.add_argument("baselines", type=Path, help="predictions of the baselines")
    parser.add_argument("predictions", type=Path, help="test predictions of all folds")
    parser.add_argument("metrics", type=Path, help="folder of the tables")
    parser.add_argument("out", type=Path, help="what is written")
    args = parser.parse_args()
    main(
        load_params(Params),
        open_shards(args.shards),
        args.baselines,
        args.predictions,
        args.metrics,
        args.out,
    )
