"""commands.predict on a long film: peak memory and time, beside a loop frame by frame.

    python -m benchmarks.film --model runs/fold1 [--minutes 2 6 30] [--film FILM] [--draw]
        [--length 1.6] [--sample-seconds 20]

A film of two rendered people, or the given one, is repeated for so many minutes. Every row is a
process of its own. "x real time" is seconds of work for a second of film; below 1 a camera could
be followed.

Where the time goes is measured on the first seconds of the film: decoding alone, with the face
detector, and with the model. The loop does what a model of single frames invites to: for every
frame of the film it looks for faces and asks the model about the window that ends there, once for
each face.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import ffmpeg
import imageio_ffmpeg
import numpy as np

from pipeline.common.workers import num_cores
from pipeline.datasets import sample_faces

WIDTH, HEIGHT, RATE = 1280, 720, 25
# Of the rendered film before it is repeated.
SECONDS = 24
_BINARY = imageio_ffmpeg.get_ffmpeg_exe()


class Cost(NamedTuple):
    """Of a process.

    Attributes:
        seconds: That it took.
        memory: The most that it held, in bytes.
    """

    seconds: float
    memory: int


def render(path: Path) -> Path:
    """Two people who speak side by side, one of whom is away for a third of the time."""
    clips = sample_faces.sample_clips(num_subjects=2, clips_per_emotion=1)
    films = [sample_faces.render_frames(clip, seed=1) for clip in (clips[0], clips[-1])]
    raw = bytearray()
    for number in range(SECONDS * RATE):
        canvas = np.full((HEIGHT // 2, WIDTH // 2, 3), 90, np.uint8)
        for i, frames in enumerate(films):
            if i and number > SECONDS * RATE * 2 // 3:
                break
            height, width = frames.shape[1:3]
            # To and fro, so that no frame is a cut.
            there = number % (2 * len(frames))
            canvas[50 : 50 + height, i * width : (i + 1) * width] = frames[
                min(there, 2 * len(frames) - 1 - there)
            ]
        raw += canvas.tobytes()
    source = ffmpeg.input(
        "pipe:",
        format="rawvideo",
        pix_fmt="rgb24",
        video_size=(WIDTH // 2, HEIGHT // 2),
        framerate=RATE,
    )
    video = source.filter("scale", WIDTH, HEIGHT).filter("noise", alls=4, allf="t")
    video = video.output(
        str(path), vcodec="libx264", preset="veryfast", pix_fmt="yuv420p", video_bitrate="4M"
    )
    video.run(_BINARY, input=bytes(raw), quiet=True)
    return path


def repeat(film: Path, minutes: float, path: Path) -> Path:
    """The same film over and over again, without encoding it anew."""
    source = ffmpeg.input(str(film), stream_loop=-1, t=60 * minutes)
    source.output(str(path), c="copy", an=None).run(_BINARY, quiet=True)
    return path


def cost_of(command: list[str]) -> Cost:
    """Run a program to its end.

    Raises:
        SystemExit: It failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return Cost(time.perf_counter() - start, usage.ru_maxrss * 1024)


def decoding(model: Path, path: Path) -> float:
    """Seconds that reading the points of a film takes."""
    from pipeline.serving.predictor import load_model
    from pipeline.serving.windows import place_windows
    from pipeline.video.film import Film

    predictor = load_model(model)
    start = time.perf_counter()
    film = Film(path, predictor.frames, num_threads=num_cores())
    places = place_windows(film.seconds, predictor.windows(), predictor.frames.num_stored)
    deque(film.pictures(places.num_points), maxlen=0)
    return time.perf_counter() - start


def looking(model: Path, path: Path) -> float:
    """Seconds with the face detector."""
    from pipeline.serving.predictor import load_model

    predictor = load_model(model)
    start = time.perf_counter()
    sight = predictor.eye.look(path, predictor.windows(), num_threads=num_cores(), progress=False)
    deque(sight.windows, maxlen=0)
    return time.perf_counter() - start


def predicting(model: Path, path: Path) -> float:
    """Seconds with the model."""
    from pipeline.serving.predictor import load_model

    predictor = load_model(model)
    start = time.perf_counter()
    predictor.predict(path, num_threads=num_cores())
    return time.perf_counter() - start


def frame_by_frame(model: Path, path: Path) -> float:
    """Seconds that it takes to ask the model anew for every frame and face."""
    from pipeline.serving.answers import Answers
    from pipeline.serving.people import People
    from pipeline.serving.predictor import load_model
    from pipeline.serving.sight import Window
    from pipeline.video.crops import shrink
    from pipeline.video.film import Film, FilmPicture
    from pipeline.video.mtcnn import LONGER_SIDE
    from pipeline.video.tracks import Detections

    predictor = load_model(model)
    threads = ThreadPoolExecutor(num_cores())
    start = time.perf_counter()
    film = Film(path, predictor.frames, num_threads=num_cores())
    length = round(predictor.clip_seconds * film.num_frames / film.seconds)
    wanted = [round(i) for i in np.linspace(0, length - 1, predictor.frames.num_stored)]
    recent: deque[tuple[FilmPicture, Detections]] = deque(maxlen=length)
    for shown in film.pictures(film.num_frames):
        copies, scale = shrink(shown.picture[None], LONGER_SIDE)
        recent.append((shown, predictor.eye.detector.detect(copies)[0]))
        if len(recent) < length:
            continue
        pictures, found = zip(*(recent[i] for i in wanted), strict=True)
        window = Window(
            first=0,
            span=(0, 1),
            seconds=np.array([picture.seconds for picture in pictures]),
            shots=[picture.shot for picture in pictures],
            pictures=np.stack([picture.picture for picture in pictures]),
            found=list(found),
            scale=scale,
        )
        nobody = Answers(predictor.classes, 1)
        aspect = film.width / film.height
        predictor._answer(window, People(predictor.faces), aspect, nobody, threads)
    return time.perf_counter() - start


def seconds_of(work: Callable[[], float]) -> float:
    """What a function measures in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work).result()


def main(args: argparse.Namespace) -> None:
    print(f"{num_cores()} CPU cores; {args.model}; {args.film or 'a rendered film'}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film = args.film or render(folder / "film.mp4")
        print("| minutes of film | peak memory (MB) | x real time |\n|---:|---:|---:|")
        for minutes in args.minutes:
            long = repeat(film, minutes, folder / f"{minutes:g}.mp4")
            command = [sys.executable, "-m", "commands.predict", str(long), "--model"]
            command += [str(args.model), "--out", str(folder / "out")]
            command += ["--length", str(args.length)] if args.length else []
            cost = cost_of([*command, *(["--film"] if args.draw else [])])
            long.unlink()
            ratio = cost.seconds / (60 * minutes)
            print(f"| {minutes:g} | {cost.memory / 1e6:.0f} | {ratio:.2f} |", flush=True)
        seconds = args.sample_seconds
        part = repeat(film, seconds / 60, folder / "part.mp4")
        print(f"\n| of {seconds:g} s | x real time |\n|---|---:|")
        for words, work in (
            ("decoding", decoding),
            ("with the face detector", looking),
            ("with the model: all", predicting),
            ("the loop frame by frame", frame_by_frame),
        ):
            ratio = seconds_of(partial(work, args.model, part)) / seconds
            print(f"| {words} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="which")
    parser.add_argument(
        "--minutes",
        type=float,
        nargs="+",
        default=[2, 6, 30],
        help="lengths of the film (%(default)s)",
    )
    parser.add_argument("--film", type=Path, help="in place of the rendered one")
    parser.add_argument("--length", type=float, help="of a window, in seconds, in the first table")
    parser.add_argument("--draw", action="store_true", help="write the annotated film, too")
    parser.add_argument(
        "--sample-seconds",
        type=float,
        default=20,
        help="of the film for the slow loop (%(default)s)",
    )
    main(parser.parse_args())
