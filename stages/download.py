"""Stage download: a data set's videos, and the manifest of its clips, subjects and labels."""

import argparse
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import imageio_ffmpeg
from pydantic import NonNegativeInt, PositiveInt
from tqdm import tqdm

from pipeline.data import custom, ravdess, sample_faces
from pipeline.data.clips import Clip, write_manifest
from pipeline.files import atomic_path, sha256_of
from pipeline.params import Preset, Section, StageParams, load_params
from pipeline.workers import map_in_processes


class SamplePreset(Section):
    """The synthetic set: how many subjects, and clips of each subject and emotion."""

    classes: list[str]
    videos: None
    num_subjects: PositiveInt
    clips_per_emotion: PositiveInt
    seed: NonNegativeInt


class CustomPreset(Section):
    """The user's own set: the folder of videos that the table's paths start from."""

    classes: list[str]
    videos: Path


class Params(StageParams):
    """Exactly this stage's `params` in dvc.yaml."""

    dataset: Literal["sample", "custom"]
    datasets: Annotated[SamplePreset | CustomPreset, Preset("datasets", chosen_by="dataset")]


def main(params: Params, source: Path, folder: Path, manifest: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(params.datasets, SamplePreset):
        clips = render_sample(params.datasets, folder)
    else:
        clips = register_custom(params.datasets, source, folder)
    write_manifest(manifest, clips)
    usable = [clip for clip in clips if not clip.reason]
    print(
        f"download: {len(usable)} of {len(clips)} clips of "
        f"{len({clip.subject for clip in usable})} subjects in {params.dataset}"
    )
    for clip in clips:
        if clip.reason:
            print(f"  refused, row {clip.row}: {clip.message}")


def render_sample(preset: SamplePreset, folder: Path) -> list[Clip]:
    """Render the synthetic set into `folder`, laid out and named like RAVDESS."""
    planned = sample_faces.sample_clips(preset.num_subjects, preset.clips_per_emotion)
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    render = partial(_render, folder=folder, seed=preset.seed, ffmpeg=ffmpeg)
    paths = list(map_in_processes(render, planned, "rendering"))
    return [ravdess.parse_name(path) for path in paths]


def _render(clip: sample_faces.SampleClip, folder: Path, seed: int, ffmpeg: str) -> str:
    path = Path(f"Actor_{clip.subject:02}") / clip.name
    (folder / path).parent.mkdir(exist_ok=True)
    sample_faces.write_video(sample_faces.render_frames(clip, seed), folder / path, ffmpeg)
    return path.as_posix()


def register_custom(preset: CustomPreset, source: Path, folder: Path) -> list[Clip]:
    """Read the user's table; videos stay where they are, their checksums go into `folder`."""
    clips = custom.read_table(custom.find_table(source), preset.videos, preset.classes)
    usable = sorted({clip.path for clip in clips if not clip.reason})
    with atomic_path(folder / "SHA256SUMS") as temporary:
        sums = [
            f"{sha256_of(preset.videos / path)}  {path}\n"
            for path in tqdm(usable, desc="checksums")
        ]
        temporary.write_text("".join(sums), encoding="utf-8")
    return clips


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("manifest", type=Path)
    args = parser.parse_args()
    main(load_params(Params), args.source, args.folder, args.manifest)
