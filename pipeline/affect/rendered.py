"""The embedded set `rendered`: faces and labels in the exact layout of s-Aff-Wild2, with its traps.

    cropped_aligned/<video>/00001.jpg   112 x 112, the face upright
    training_set_annotations.txt        with repeated and contradicting lines and missing images
    validation_set_annotations.txt      with Windows line ends, a byte order mark, trailing commas
    test_set_images.txt                 with repeated lines
    test_set_annotations.txt            what the challenge keeps to itself: all labels of the test

One reader serves both sets.
"""

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.affect.labels import AUS, EXPRESSIONS, Labels
from pipeline.affect.rendered_plan import Frame, Settings, Video, plan_videos
from pipeline.affect.s_aff_wild2 import HEADER
from pipeline.common.files import atomic_path
from pipeline.common.workers import Folders, map_in_processes
from pipeline.datasets.action_units import ACTION_UNITS, Bump
from pipeline.datasets.sample_faces import Field, at_rest, cast_person, draw_face, push

IMAGES = "cropped_aligned"
TRAINING, VALIDATION = "training_set_annotations.txt", "validation_set_annotations.txt"
TEST_LIST, TEST_TRUTH = "test_set_images.txt", "test_set_annotations.txt"

SIDE = 112
_QUALITY = 95
# Each pixel is a mean of so many by so many.
_SUPERSAMPLING = 2
# What is seen, in face pixels: its side, and its middle below the origin.
_VIEW, _VIEW_Y = 192, 12
# AU23, the lip tightener, is none of the sample's.
_BUMPS = ACTION_UNITS | {23: Bump(0, 37, 52, 24, gx=-0.25, gy=-0.35)}
# Lines that are added to those of the training.
NUM_REPEATS, NUM_MISSING = 3, 2


def write_set(settings: Settings, folder: Path) -> None:
    """Render the pictures and write the lists."""
    videos = plan_videos(settings)
    render = partial(_render_video, folder=folder / IMAGES, seed=settings.seed)
    list(map_in_processes(render, videos, "rendering", folders=Folders(written=[folder])))
    by_part = {
        part: [video for video in videos if video.part == part]
        for part in ("train", "validation", "test")
    }
    _write(folder / TRAINING, _training_lines(by_part["train"]))
    validation = _lines(by_part["validation"], unknown="-5.0")
    _write(folder / VALIDATION, validation, start="\ufeff", end=",\r\n")
    _write(folder / TEST_TRUTH, _lines(by_part["test"], unknown="-5"))
    listed = [_path(video, i) for video in by_part["test"] for i in range(len(video.frames))]
    repeated = [*listed, *listed[: len(listed) // 50 + 1]]
    _write(folder / TEST_LIST, repeated, header=HEADER[0])


def draw_frame(video: Video, number: int, seed: int, side: int = SIDE) -> npt.NDArray[np.uint8]:
    """Frame `number`, from 0, as RGB (side, side, 3)."""
    frame, person = video.frames[number], cast_person(seed, video.subject)
    random = np.random.default_rng((seed, video.subject, number))
    # What is left of the pose after the face was aligned.
    pose = 0.3 * person.pose + random.uniform(-1, 1, size=3) * (1.5, 1.5, 0.015)
    fine = side * _SUPERSAMPLING
    along = (np.arange(fine, dtype=np.float32) + np.float32(0.5)) * np.float32(_VIEW / fine)
    x, y = np.meshgrid(along - _VIEW // 2, along - (_VIEW // 2 - _VIEW_Y))
    drawn = draw_face(person, pose, _movement(frame), frame.opening, x, y).astype(np.uint16)
    blocks = drawn.reshape(side, _SUPERSAMPLING, side, _SUPERSAMPLING, 3)
    picture = (blocks.sum(axis=(1, 3)) // _SUPERSAMPLING**2).astype(np.uint8)
    return np.ascontiguousarray(picture[:, ::-1]) if person.mirrored else picture


def _movement(frame: Frame) -> Field:
    movement = at_rest()
    for unit, strength in frame.units.items():
        movement += push(_BUMPS[unit]) * np.float32(strength)
    return movement


def _render_video(video: Video, folder: Path, seed: int) -> None:
    for i in range(len(video.frames)):
        with atomic_path(folder / _path(video, i)) as temporary:
            picture = Image.fromarray(draw_frame(video, i, seed))
            picture.save(temporary, quality=_QUALITY, subsampling=0)


def _path(video: Video, number: int) -> str:
    return f"{video.name}/{number + 1:05}.jpg"


def _training_lines(videos: list[Video]) -> list[str]:
    """With what goes wrong in the real list."""
    lines = _lines(videos, unknown="-5")
    repeats = lines[1 :: len(lines) // NUM_REPEATS][:NUM_REPEATS]
    # One image with two valences.
    known = (line for line in lines if line not in repeats and ",-5," not in line)
    path, _, *others = next(known).split(",")
    contradiction = ",".join([path, "0.999", *others])
    first = videos[0]
    missing = [
        _line(_path(first, len(first.frames) + i), first.frames[-1].labels, first.unknown, "-5")
        for i in range(NUM_MISSING)
    ]
    return [*lines, *repeats, contradiction, *missing]


def _lines(videos: list[Video], unknown: str) -> list[str]:
    return [
        _line(_path(video, i), _partly(video, frame.labels, i), video.unknown, unknown)
        for video in videos
        for i, frame in enumerate(video.frames)
    ]


def _partly(video: Video, labels: Labels, number: int) -> Labels:
    """In every tenth frame of the training the last units are not known."""
    if video.part != "train" or number % 10:
        return labels
    return Labels(labels.expression, labels.valence, labels.arousal, (*labels.aus[:9], *[None] * 3))


def _line(path: str, labels: Labels, hidden: frozenset[str], unknown: str) -> str:
    """A line of a list.

    Args:
        path: Of the image.
        labels: What is true of it.
        hidden: Which of valence_arousal, expression and aus are not told.
        unknown: How a valence is written that is not told.
    """
    numbers = [unknown] * 2
    if "valence_arousal" not in hidden:
        numbers = [str(labels.valence), str(labels.arousal)]
    expression, aus = -1, [-1] * len(AUS)
    if "expression" not in hidden and labels.expression is not None:
        expression = EXPRESSIONS.index(labels.expression)
    if "aus" not in hidden:
        aus = [-1 if active is None else int(active) for active in labels.aus]
    return ",".join([path, *numbers, str(expression), *map(str, aus)])


def _write(
    file: Path,
    lines: list[str],
    *,
    header: str = ",".join(HEADER),
    start: str = "",
    end: str = "\n",
) -> None:
    """A list with its header; `end` comes after every line."""
    content = start + end.join([header, *lines]) + end
    with atomic_path(file) as temporary:
        temporary.write_bytes(content.encode())
