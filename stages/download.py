"""Stage download: a data set's videos, and the manifest of its clips, subjects and labels."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import imageio_ffmpeg
from pydantic import NonNegativeInt, PositiveInt, field_validator
from pydantic_core.core_schema import ValidationInfo

from pipeline.acquire.archives import UnusableArchive
from pipeline.acquire.http import DownloadFailed, Patience
from pipeline.acquire.lfs import BudgetSpent, LfsObject, fetch_objects
from pipeline.common.clips import Clip, write_manifest
from pipeline.common.files import atomic_path, sha256_of
from pipeline.common.params import Preset, Section, StageParams, load_params
from pipeline.common.sources import find_video, local_copy
from pipeline.common.workers import map_in_processes, map_in_threads
from pipeline.datasets import cremad, custom, mead, ravdess, sample_faces


class SamplePreset(Section):
    """The synthetic set: how many subjects, and clips of each subject and emotion."""

    classes: list[str]
    source: None
    num_subjects: PositiveInt
    clips_per_emotion: PositiveInt
    seed: NonNegativeInt


class CustomPreset(Section):
    """The user's own set: the folder of videos that the table's paths start from."""

    classes: list[str]
    source: Path


class RavdessPreset(Section):
    """RAVDESS: an existing copy, or the host to download from."""

    classes: list[str]
    source: Path | None
    address: str
    accept_licence: bool


class CremadPreset(Section):
    """CREMA-D: an existing clone, or the repository to download from."""

    classes: list[str]
    source: Path | None
    address: str
    keep_known_bad: bool
    accept_licence: bool


class MeadPreset(Section):
    """MEAD: the folder of the actors' archives or unpacked trees, and what is used of it."""

    classes: list[str]
    source: Path | None
    view: mead.View
    subset: mead.Subset
    accept_licence: bool


AnyPreset = SamplePreset | CustomPreset | RavdessPreset | CremadPreset | MeadPreset
PRESETS: dict[str, type[AnyPreset]] = {
    "sample": SamplePreset,
    "custom": CustomPreset,
    "ravdess": RavdessPreset,
    "cremad": CremadPreset,
    "mead": MeadPreset,
}


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    dataset: str
    datasets: Annotated[AnyPreset, Preset("datasets", chosen_by="dataset")]

    @field_validator("datasets", mode="plain")
    @classmethod
    def _of_the_dataset(cls, value: Any, info: ValidationInfo) -> AnyPreset:
        name = info.data["dataset"]
        if name not in PRESETS:
            raise ValueError(f"dataset is {name!r}; known are {', '.join(PRESETS)}")
        return PRESETS[name].model_validate(value)


class Videos(NamedTuple):
    """A data set's clips, the folders that their paths start from, and what is to be said."""

    clips: list[Clip]
    folders: list[Path]
    remarks: list[str]


def main(params: Params, tables: Path, folder: Path, manifest: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    preset = params.datasets
    if not getattr(preset, "accept_licence", True):
        raise SystemExit(
            f"{(tables / 'TERMS.md').read_text(encoding='utf-8')}\n"
            f"Nothing was fetched. If you accept these terms, set datasets.{params.dataset}."
            f"accept_licence to true in params.yaml, or add -S datasets.{params.dataset}."
            "accept_licence=true to `dvc exp run`."
        )
    collectors: dict[str, Callable[[Any, Path, Path], Videos]] = {
        "sample": render_sample,
        "custom": register_custom,
        "ravdess": collect_ravdess,
        "cremad": collect_cremad,
        "mead": collect_mead,
    }
    try:
        videos = collectors[params.dataset](preset, tables, folder)
    except (DownloadFailed, UnusableArchive, FileNotFoundError, ValueError) as error:
        raise SystemExit(f"download: {error}") from error
    usable = [clip for clip in videos.clips if not clip.reason]
    if videos.folders != [folder]:
        write_checksums(folder / "SHA256SUMS", usable, videos.folders)
    write_manifest(manifest, videos.clips)
    print(
        f"download: {len(usable)} of {len(videos.clips)} clips of "
        f"{len({clip.subject for clip in usable})} subjects in {params.dataset}"
    )
    for remark in videos.remarks:
        print(f"  {remark}")
    for clip in videos.clips:
        if clip.reason:
            print(f"  refused, {f'row {clip.row}: ' if clip.row else ''}{clip.message}")


def write_checksums(path: Path, clips: list[Clip], folders: list[Path]) -> None:
    """SHA-256 of every video, for videos that stay in place; see pipeline/common/sources.py."""
    paths = sorted({clip.path for clip in clips})
    sums = map_in_threads(lambda name: sha256_of(find_video(name, folders)), paths, "checksums")
    lines = [f"{digest}  {name}\n" for digest, name in zip(sums, paths, strict=True)]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def render_sample(preset: SamplePreset, tables: Path, folder: Path) -> Videos:
    """Render the synthetic set into `folder`, laid out and named like RAVDESS."""
    planned = sample_faces.sample_clips(preset.num_subjects, preset.clips_per_emotion)
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    render = partial(_render, folder=folder, seed=preset.seed, ffmpeg=ffmpeg)
    paths = list(map_in_processes(render, planned, "rendering"))
    return Videos([ravdess.parse_name(path, preset.classes) for path in paths], [folder], [])


def _render(clip: sample_faces.SampleClip, folder: Path, seed: int, ffmpeg: str) -> str:
    path = Path(f"Actor_{clip.subject:02}") / clip.name
    (folder / path).parent.mkdir(exist_ok=True)
    sample_faces.write_video(sample_faces.render_frames(clip, seed), folder / path, ffmpeg)
    return path.as_posix()


def register_custom(preset: CustomPreset, tables: Path, folder: Path) -> Videos:
    """Read the user's table; the videos stay where they are."""
    clips = custom.read_table(custom.find_table(tables), preset.source, preset.classes)
    return Videos(clips, [preset.source], [])


def collect_ravdess(preset: RavdessPreset, tables: Path, folder: Path) -> Videos:
    """The video-only speech clips of an existing copy or, where there is none, of a download."""
    videos = preset.source or local_copy("ravdess")
    if not preset.source:
        ravdess.fetch(preset.address, videos, Patience())
    clips = ravdess.find_clips(videos, preset.classes)
    return Videos(clips, [videos], ravdess.what_is_missing(clips))


def collect_cremad(preset: CremadPreset, tables: Path, folder: Path) -> Videos:
    """The published clips, out of an existing clone or a download."""
    videos = preset.source or local_copy("cremad")
    objects = cremad.read_objects(tables / "files.csv")
    sexes = cremad.read_sexes(tables / "actors.csv")
    clips = cremad.list_clips(objects, sexes, keep_known_bad=preset.keep_known_bad)
    if not preset.source:
        wanted = {clip.path for clip in clips if not clip.reason}
        chosen = [item for item in objects if item.path in wanted]
        try:
            fetch_objects(preset.address, chosen, videos, patience=Patience())
        except BudgetSpent as error:
            raise DownloadFailed(
                f"{error} The mirror has the same files: -S datasets.cremad.address={cremad.MIRROR}"
            ) from error
    published = {item.path: item for item in objects}
    check = partial(_checked, published=published, videos=videos)
    return Videos(list(map_in_threads(check, clips, "checking")), [videos], [])


def _checked(clip: Clip, published: dict[str, LfsObject], videos: Path) -> Clip:
    return cremad.check_file(clip, published[clip.path], videos)


def collect_mead(preset: MeadPreset, tables: Path, folder: Path) -> Videos:
    """The chosen sentences of one view, out of unpacked trees and archives."""
    if preset.source is None:
        raise SystemExit(
            "MEAD is given out on request (datasets/mead/README.md): name the folder of its "
            "archives or unpacked actors in datasets.mead.source"
        )
    unpacked = local_copy("mead")
    mead.unpack_archives(preset.source, unpacked, preset.view)
    tree = mead.find_clips([preset.source, unpacked], preset.view, preset.subset)
    return Videos(tree.clips, [preset.source, unpacked], mead.what_is_missing(tree, preset.view))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("manifest", type=Path)
    args = parser.parse_args()
    main(load_params(Params), args.tables, args.folder, args.manifest)
