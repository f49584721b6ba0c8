"""The embedded synthetic data set: rendered, laid out and named like RAVDESS."""

from functools import partial
from pathlib import Path

import imageio_ffmpeg
from pydantic import NonNegativeInt, PositiveInt

from pipeline.common.params import Section
from pipeline.common.sources import Videos
from pipeline.common.workers import Folders, map_in_processes
from pipeline.datasets import ravdess
from pipeline.datasets.sample_faces import SampleClip, render_frames, sample_clips, write_video


class Settings(Section):
    """How many subjects, and clips of each subject and emotion."""

    classes: list[str]
    source: None
    num_subjects: PositiveInt
    clips_per_emotion: PositiveInt
    seed: NonNegativeInt


def collect(settings: Settings, tables: Path, folder: Path) -> Videos:
    """Render the videos into `folder`."""
    planned = sample_clips(settings.num_subjects, settings.clips_per_emotion)
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    render = partial(_render, folder=folder, seed=settings.seed, ffmpeg=ffmpeg)
    paths = list(map_in_processes(render, planned, "rendering", folders=Folders(written=[folder])))
    return Videos([ravdess.parse_name(path, settings.classes) for path in paths], [folder], [])


def _render(clip: SampleClip, folder: Path, seed: int, ffmpeg: str) -> str:
    path = Path(f"Actor_{clip.subject:02}") / clip.name
    (folder / path).parent.mkdir(exist_ok=True)
    write_video(render_frames(clip, seed), folder / path, ffmpeg)
    return path.as_posix()
