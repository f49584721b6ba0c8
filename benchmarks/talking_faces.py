"""Films of talking faces for `benchmarks.preprocess`: rendered, with noise as a camera has it."""

from pathlib import Path
from typing import NamedTuple

import ffmpeg
import imageio_ffmpeg

from pipeline.common.workers import map_in_threads
from pipeline.datasets import sample_faces

NUM_CLIPS = 24
SECONDS, FPS = 3.5, 30
_BINARY = imageio_ffmpeg.get_ffmpeg_exe()


class Kind(NamedTuple):
    """How the films are encoded, in H.264.

    Attributes:
        width: In pixels.
        height: In pixels.
        bits: Per second, in millions.
        hidden: Seconds that an edit list hides at the beginning, because the film was cut there
            without being encoded anew.
        options: More of the encoder's.
    """

    width: int
    height: int
    bits: int
    hidden: float
    options: dict[str, str]


KINDS = {
    "720p": Kind(1280, 720, 4, 0, {}),
    # As two of RAVDESS' original films have it.
    "720p, B frames that nothing refers to, edit list": Kind(
        1280, 720, 8, 0.3, {"x264-params": "bframes=2:b-adapt=0:b-pyramid=none"}
    ),
    "1080p": Kind(1920, 1080, 10, 0, {}),
}


def render(kind: Kind, folder: Path) -> list[Path]:
    """Film NUM_CLIPS different subjects, in a new folder."""
    folder.mkdir()

    def film(clip: sample_faces.SampleClip) -> Path:
        path, whole = folder / clip.name, folder / f"whole_{clip.name}"
        _encode(clip, kind, whole if kind.hidden else path)
        if kind.hidden:
            cut = ffmpeg.input(str(whole), ss=kind.hidden).output(str(path), c="copy")
            cut.run(_BINARY, quiet=True)
            whole.unlink()
        return path

    # A subject has seven clips; from one to the eighth after it, subject and emotion change.
    clips = sample_faces.sample_clips(2 * NUM_CLIPS, clips_per_emotion=1)[::8][:NUM_CLIPS]
    return list(map_in_threads(film, clips, "rendering"))


def _encode(clip: sample_faces.SampleClip, kind: Kind, path: Path) -> None:
    raw = ffmpeg.input(
        "pipe:",
        format="rawvideo",
        pix_fmt="rgb24",
        video_size=(sample_faces.FRAME_WIDTH, sample_faces.FRAME_HEIGHT),
        framerate=sample_faces.NUM_FRAMES / (SECONDS + kind.hidden),
    )
    video = raw.filter("framerate", fps=FPS).filter("scale", -2, kind.height)
    video = video.filter("pad", kind.width, kind.height, "(ow-iw)/2")
    video = video.filter("noise", alls=4, allf="t")
    video = video.output(
        str(path),
        vcodec="libx264",
        preset="veryfast",
        pix_fmt="yuv420p",
        video_bitrate=f"{kind.bits}M",
        threads=1,
        **kind.options,
    )
    video.run(_BINARY, input=sample_faces.render_frames(clip, seed=1).tobytes(), quiet=True)
