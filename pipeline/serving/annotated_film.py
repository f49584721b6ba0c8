"""A copy of a video with everybody's box, landmarks and probabilities drawn into it."""

import contextlib
from fractions import Fraction
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np
from PIL import Image
from tqdm import tqdm

from pipeline.common.files import atomic_path
from pipeline.common.frames import FrameSettings
from pipeline.serving.drawing import Drawing
from pipeline.video.film import Film
from pipeline.video.pictures import Picture

# The longer side of the copy in pixels, and its most pictures per second.
_LONGER_SIDE, _MAX_RATE = 1280, 30


def write_annotated_film(
    path: Path,
    out: Path,
    drawing: Drawing,
    frames: FrameSettings,
    *,
    num_threads: int,
    progress: bool,
) -> None:
    """Draw into every picture of a video.

    The film has an even rate of at most 30 pictures a second, and no sound.

    Args:
        path: The video.
        out: An .mp4 file, which appears when it is whole.
        drawing: Of that video.
        frames: Of the model; the film shows whole pictures all the same.
        num_threads: That decode the video.
        progress: Whether to show a bar with the time that is left.

    Raises:
        UnusableVideo: The video cannot be used.
        RuntimeError: The film could not be written; the message holds ffmpeg's own.
    """
    film = Film(path, frames.model_copy(update={"crop": "face"}), num_threads=num_threads)
    rate = min(film.num_frames / film.seconds, _MAX_RATE)
    num_pictures = max(1, round(rate * film.seconds))
    scale = min(1.0, _LONGER_SIDE / max(film.width, film.height))
    # H.264 takes even sizes only.
    size = (max(2, round(film.width * scale) // 2 * 2), max(2, round(film.height * scale) // 2 * 2))
    pictures = tqdm(
        film.pictures(num_pictures),
        total=num_pictures,
        desc=f"drawing {path.name}",
        unit="picture",
        disable=None if progress else True,
        leave=False,
    )
    source = ffmpeg.input(
        "pipe:",
        format="rawvideo",
        pix_fmt="rgb24",
        video_size=size,
        framerate=str(Fraction(rate).limit_denominator(1001)),
    )
    with atomic_path(out) as temporary:
        encoder = source.output(
            f"file:{temporary}",
            format="mp4",
            vcodec="libx264",
            pix_fmt="yuv420p",
            crf=23,
            preset="veryfast",
            movflags="+faststart",
            map_metadata=-1,
        )
        # Few words: nobody reads them before the end, and a full pipe would stop the film.
        encoder = encoder.global_args("-v", "error").run_async(
            imageio_ffmpeg.get_ffmpeg_exe(),
            pipe_stdin=True,
            quiet=True,
            overwrite_output=True,
        )
        # Where ffmpeg has ended, its own words say why.
        with contextlib.suppress(BrokenPipeError):
            for shown in pictures:
                drawn = drawing.draw(_resized(shown.picture, size), shown.seconds)
                encoder.stdin.write(np.ascontiguousarray(drawn).tobytes())
        _, words = encoder.communicate()
        if encoder.returncode:
            raise RuntimeError(f"ffmpeg did not write {out.name}: {words.decode(errors='replace')}")


def _resized(picture: Picture, size: tuple[int, int]) -> Picture:
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
