"""A RAVDESS of four actors with one short rendered clip of each emotion."""

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import imageio_ffmpeg

from pipeline.datasets.ravdess import EMOTIONS, parse_name
from pipeline.datasets.sample_faces import render_frames, sample_clips, write_video

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
SUBJECTS = (1, 2, 3, 4)


@cache
def rendered_videos() -> dict[tuple[int, str], bytes]:
    """An mp4 of every subject and emotion; calm is a neutral clip of its own."""
    videos = {}
    with TemporaryDirectory() as folder:
        for clip in sample_clips(len(SUBJECTS), 1):
            path = Path(folder) / clip.name
            label = parse_name(clip.name, sorted(EMOTIONS.values())).label
            write_video(render_frames(clip, seed=1), path, FFMPEG)
            videos[clip.subject, label] = path.read_bytes()
            if label == "neutral":
                again = clip._replace(statement=2, repetition=2)
                write_video(render_frames(again, seed=1), path, FFMPEG)
                videos[clip.subject, "calm"] = path.read_bytes()
    return videos


def ravdess_archives() -> dict[str, bytes]:
    """An archive per actor: each clip video-only and, with the same pictures, audio-visual."""
    archives = {}
    for subject in SUBJECTS:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for code, emotion in EMOTIONS.items():
                for modality in ("01", "02"):
                    name = f"{modality}-01-{code}-01-01-01-{subject:02}.mp4"
                    content = rendered_videos()[subject, emotion]
                    archive.writestr(f"Actor_{subject:02}/{name}", content)
        archives[f"Video_Speech_Actor_{subject:02}.zip"] = stream.getvalue()
    return archives


def archives_table(archives: dict[str, bytes]) -> str:
    """The content of datasets/ravdess/files.csv for these archives."""
    rows = [
        f"{name},{hashlib.md5(content).hexdigest()},{len(content)}"
        for name, content in archives.items()
    ]
    return "\n".join(["name,md5,size", *rows]) + "\n"
