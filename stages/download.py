"""Stage download: a data set's videos, and the manifest of its clips, subjects and labels."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import field_validator
from pydantic_core.core_schema import ValidationInfo

from pipeline.acquire.archive_members import UnusableArchive
from pipeline.acquire.http import DownloadFailed
from pipeline.common.clips import Clip, group_words, write_manifest
from pipeline.common.files import atomic_path
from pipeline.common.params import Preset, StageParams, load_params
from pipeline.common.refusals import described
from pipeline.common.sources import Videos, find_video, sha256_of_video
from pipeline.common.workers import map_in_threads
from pipeline.datasets import cremad, custom, dfew, ferv39k, mafw, mead, ravdess, sample

AnySettings = (
    sample.Settings
    | custom.Settings
    | ravdess.Settings
    | cremad.Settings
    | mead.Settings
    | dfew.Settings
    | mafw.Settings
    | ferv39k.Settings
)


class DataSet(NamedTuple):
    """Its settings, and how its videos are collected: settings, tables and folder in."""

    settings: type[AnySettings]
    collect: Callable[[Any, Path, Path], Videos]


DATASETS = {
    "sample": DataSet(sample.Settings, sample.collect),
    "custom": DataSet(custom.Settings, custom.collect),
    "ravdess": DataSet(ravdess.Settings, ravdess.collect),
    "cremad": DataSet(cremad.Settings, cremad.collect),
    "mead": DataSet(mead.Settings, mead.collect),
    "dfew": DataSet(dfew.Settings, dfew.collect),
    "mafw": DataSet(mafw.Settings, mafw.collect),
    "ferv39k": DataSet(ferv39k.Settings, ferv39k.collect),
}


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    dataset: str
    datasets: Annotated[AnySettings, Preset("datasets", chosen_by="dataset")]

    @field_validator("datasets", mode="plain")
    @classmethod
    def _of_the_dataset(cls, value: Any, info: ValidationInfo) -> AnySettings:
        name = info.data["dataset"]
        if name not in DATASETS:
            raise ValueError(f"dataset is {name!r}; known are {', '.join(DATASETS)}")
        return DATASETS[name].settings.model_validate(value)


def main(params: Params, tables: Path, folder: Path, manifest: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    settings = params.datasets
    if not getattr(settings, "accept_licence", True):
        raise SystemExit(
            f"{(tables / 'TERMS.md').read_text(encoding='utf-8')}\n"
            f"Nothing was fetched. If you accept these terms, set datasets.{params.dataset}."
            f"accept_licence to true in params.yaml, or add -S datasets.{params.dataset}."
            "accept_licence=true to `dvc exp run`."
        )
    try:
        videos = DATASETS[params.dataset].collect(settings, tables, folder)
    except (DownloadFailed, UnusableArchive, FileNotFoundError, ValueError) as error:
        raise SystemExit(f"download: {error}") from error
    usable = [clip for clip in videos.clips if not clip.reason]
    refused = described(
        (clip.reason, f"{f'row {clip.row}: ' if clip.row else ''}{clip.message}")
        for clip in videos.clips
        if clip.reason
    )
    if not usable:
        places = " or ".join(map(str, videos.folders))
        raise SystemExit(
            f"download: none of the {len(videos.clips)} clips of {params.dataset} can be used; "
            f"their videos are looked for in {places}\n  " + "\n  ".join(refused)
        )
    if videos.folders != [folder]:
        write_checksums(folder / "SHA256SUMS", usable, videos.folders)
    write_manifest(manifest, videos.clips)
    print(
        f"download: {len(usable)} of {len(videos.clips)} clips of "
        f"{len({clip.subject for clip in usable})} {group_words(usable)} in {params.dataset}"
    )
    for line in [*videos.remarks, *refused]:
        print(f"  {line}")


def write_checksums(path: Path, clips: list[Clip], folders: list[Path]) -> None:
    """SHA-256 of every video, for videos that stay in place; see pipeline/common/sources.py."""
    paths = sorted({clip.path for clip in clips})

    def sum_of(name: str) -> str:
        return sha256_of_video(find_video(name, folders))

    sums = map_in_threads(sum_of, paths, "checksums")
    lines = [f"{digest}  {name}\n" for digest, name in zip(sums, paths, strict=True)]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "tables", type=Path, help="folder of the data set's tables: datasets/<dataset>"
    )
    parser.add_argument("folder", type=Path, help="gets the videos")
    parser.add_argument("manifest", type=Path, help="the manifest of the clips")
    args = parser.parse_args()
    # In a process of its own: it knows all stages, and this one depends on none of them.
    if subprocess.call([sys.executable, "-m", "commands.check"]):
        raise SystemExit("download: nothing was fetched")
    main(load_params(Params), args.tables, args.folder, args.manifest)
