"""The embedded data set: expressions acted out by a warped public-domain portrait.

One portrait, `skimage.data.astronaut()`, becomes many subjects (face shape, colours, light,
backdrop), and every subject acts every emotion. A pixel of a frame looks its colour up in
the portrait:

    frame -> head pose -> shape of the face -> action units -> opening of the mouth -> portrait

Coordinates are face pixels: x right, y down, the origin between eyes and mouth, one unit per pixel
of an unmoved frame. Each step leads from the later picture to the earlier one, so a feature that
moves by `v` is looked up at `-v`.

Arrays meet only +, -, *, / and roundings, alike on every x86 processor; sines, which are not, are
cut to six digits.

H, W: the surroundings of the face, 2 * REACH_Y by 2 * REACH_X face pixels; D = DETAIL.
"""

import math
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import ffmpeg as ffmpeg_python
import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates
from skimage.data import astronaut

from pipeline.common.files import atomic_path
from pipeline.datasets.action_units import ACTION_UNITS, EXPRESSIONS, REST, TRAITS, Bump

FRAME_HEIGHT, FRAME_WIDTH = 256, 320
NUM_FRAMES = 40
FRAME_RATE = 25

# What is drawn around the origin, more than a frame shows, because heads move.
REACH_X, REACH_Y = 192, 160
# Pixels of the portrait per face pixel: so fine that the nearest one will do.
DETAIL = 3
# The parted lips of the portrait: height of the corners, sag of the upper lip, bare teeth.
MOUTH_Y, MOUTH_HALF_WIDTH, LIP_SAG, TEETH = 31, 37, 6, 11
# Half the width of hair, ears, neck and collar, from top to bottom.
OUTLINE_Y = (-160, -128, -90, -60, -30, 0, 20, 40, 60, 95, 112, 160)
OUTLINE_X = (60, 102, 125, 126, 116, 93, 76, 67, 58, 55, 70, 140)

Field = npt.NDArray[np.float32]
Frames = npt.NDArray[np.uint8]


class SampleClip(NamedTuple):
    """One clip to render; subjects, statements and repetitions count from 1."""

    name: str
    subject: int
    emotion: str
    intensity: int
    statement: int
    repetition: int


class Person(NamedTuple):
    """A subject: portrait (H D, W D) of packed RGB0 bytes, offsets (2, H, W), x, y and radians."""

    texture: npt.NDArray[np.uint32]
    shape: Field
    pose: npt.NDArray[np.float64]
    size: float
    mirrored: bool


def sample_clips(num_subjects: int, clips_per_emotion: int) -> list[SampleClip]:
    """List the clips by subject, then by name.

    Names are those of RAVDESS: modality, channel, emotion, intensity, statement, repetition, actor.
    As there, nobody is strongly neutral.

    Raises:
        ValueError: Not 1 to 99 subjects, or not 1 to 4 clips (two statements, each said twice).
    """
    if not 1 <= num_subjects <= 99:
        raise ValueError(f"num_subjects is {num_subjects}; clip names have room for 1 to 99")
    if not 1 <= clips_per_emotion <= 4:
        raise ValueError(f"clips_per_emotion is {clips_per_emotion}; clip names differ for 1 to 4")
    clips = []
    for subject in range(1, num_subjects + 1):
        for emotion, expression in EXPRESSIONS.items():
            for take in range(clips_per_emotion):
                # Over two subjects, each statement is heard at both intensities.
                intensity = 1 if emotion == "neutral" else 1 + (take + subject) % 2
                repetition, statement = 1 + take // 2, 1 + take % 2
                numbers = f"{intensity:02}-{statement:02}-{repetition:02}-{subject:02}"
                name = f"02-01-{expression.code}-{numbers}.mp4"
                clips.append(SampleClip(name, subject, emotion, intensity, statement, repetition))
    return sorted(clips, key=lambda clip: (clip.subject, clip.name))


def render_frames(clip: SampleClip, seed: int) -> Frames:
    """Draw a face at rest whose expression grows to its apex while it speaks.

    Who it is depends on the seed and the subject; how it moves, on the seed and the whole clip.

    Returns:
        RGB frames (NUM_FRAMES, FRAME_HEIGHT, FRAME_WIDTH, 3).
    """
    expression, person = EXPRESSIONS[clip.emotion], cast_person(seed, clip.subject)
    random = np.random.default_rng(
        (seed, clip.subject, int(expression.code), clip.intensity, clip.statement, clip.repetition)
    )
    gain = 0.95 if clip.intensity == 1 else 1.15
    rest, apex = at_rest(), no_movement()
    for unit, weight in expression.units.items():
        apex += push(ACTION_UNITS[unit]) * (gain * weight * random.uniform(0.8, 1.2))
    onset, rise = random.uniform(2, 7), random.uniform(10, 16)
    # The statement sets the pace of the syllables; when they begin differs from clip to clip.
    pace, first_syllable = (3.1, 4.3)[clip.statement - 1], random.uniform(0, 1)
    sway, sway_start = random.uniform(-1, 1, size=3) * (3, 2, 0.025), random.uniform(0, 1)
    x, y = _grid(FRAME_WIDTH, FRAME_HEIGHT, 1)
    frames = np.empty((NUM_FRAMES, FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
    for t in range(NUM_FRAMES):
        level = float(smooth((t - onset) / rise))
        voice = 0.5 + 0.5 * sine(pace * t / FRAME_RATE + first_syllable)
        pose = person.pose + sway * sine(0.6 * t / FRAME_RATE + sway_start)
        opening = gain * expression.opening * level + expression.speech * voice
        frames[t] = draw_face(person, pose, rest + level * apex, opening, x, y)
    return np.ascontiguousarray(frames[:, :, ::-1]) if person.mirrored else frames


def draw_face(
    person: Person,
    pose: npt.NDArray[np.float64],
    movement: Field,
    opening: float,
    x: Field,
    y: Field,
) -> Frames:
    """One picture (h, w, 3), RGB, not mirrored.

    Args:
        person: Who it is.
        pose: x, y in face pixels, and the turn in radians, a few hundredths at most.
        movement: (2, H, W) offsets of all that moves: at rest, and action units.
        opening: Face pixels between the lips.
        x: (h, w) where the pixels of the picture lie, in face pixels.
        y: (h, w) likewise.
    """
    dx, dy, roll = pose.tolist()
    # So little turned that sin(roll) = roll and cos(roll) = 1.
    u, v = (x - dx) / person.size, (y - dy) / person.size
    u, v = _displace(person.shape, u + roll * v, v - roll * u)
    u, v = _displace(movement, u, v)
    v, dark = _open_mouth(u, v, opening)
    pixels = person.texture.ravel()[_nearest(u, v, DETAIL)]
    colours = pixels.view(np.uint8).reshape(*x.shape, 4)[..., :3]
    picture: Frames = (colours * (1 - dark)[..., None] + np.float32(0.5)).astype(np.uint8)
    return picture


def at_rest() -> Field:
    """Offsets (2, H, W) that undo the smile of the portrait."""
    units = (push(ACTION_UNITS[unit]) * weight for unit, weight in REST.items())
    offsets: Field = sum(units, no_movement())
    return offsets


def write_video(frames: Frames, path: Path, ffmpeg: str) -> None:
    """Encode RGB frames (T, H, W, 3), H and W even, as H.264 in an mp4 file.

    Args:
        frames: Shown at FRAME_RATE.
        path: Appears when the file is whole.
        ffmpeg: The executable.

    Raises:
        RuntimeError: ffmpeg failed; the message holds its own.
    """
    size = frames.shape[2], frames.shape[1]
    raw = ffmpeg_python.input(
        "pipe:", format="rawvideo", pix_fmt="rgb24", video_size=size, framerate=FRAME_RATE
    )
    with atomic_path(path) as temporary:
        encoded = raw.output(
            f"file:{temporary}",
            format="mp4",
            vcodec="libx264",
            pix_fmt="yuv420p",
            sws_flags="bitexact+accurate_rnd+full_chroma_int",
            fflags="+bitexact",
            flags="+bitexact",
            map_metadata=-1,
            threads=1,
            # What remains after this computes in integers, the same with and without SIMD.
            **{"x264-params": "cpu-independent=1:threads=1:qp=19:aq-mode=0:mbtree=0"},
        )
        try:
            encoded.run(ffmpeg, input=frames.tobytes(), overwrite_output=True, quiet=True)
        except ffmpeg_python.Error as error:
            message = error.stderr.decode(errors="replace")
            raise RuntimeError(f"ffmpeg did not write {path.name}: {message}") from error


# Clips come subject by subject; a portrait in full detail takes megabytes.
@lru_cache(maxsize=2)
def cast_person(seed: int, subject: int) -> Person:
    """Who plays a subject."""
    random = np.random.default_rng((seed, subject))
    shape = no_movement()
    for trait in TRAITS:
        shape += push(trait) * random.uniform(-1, 1)
    skin = random.uniform(0.55, 1.05) * random.uniform((0.96, 0.88, 0.78), (1.04, 1, 1))
    hair = skin * random.uniform(0.35, 1) * random.uniform((0.9, 0.8, 0.65), (1.1, 1, 1))
    ceiling, floor = random.uniform(40, 200) + random.uniform(-35, 35, size=(2, 3))
    light, strength = random.uniform(0, 1), random.uniform(0.1, 0.45)
    portrait, hairiness, outside = _portrait()
    x, y = _grid(2 * REACH_X, 2 * REACH_Y, DETAIL)
    shade = 1 + strength * (sine(light) * x + sine(light + 0.25) * y) / REACH_Y
    image = portrait * (skin + hairiness * (hair - skin)) * shade[..., None]
    backdrop = ceiling + (floor - ceiling) * (0.5 + y / (2 * REACH_Y))[..., None]
    image += outside * (backdrop - image)
    texture = np.zeros((*x.shape, 4), np.uint8)
    texture[..., :3] = np.clip(image + 0.5, 0, 255)
    pose = random.uniform(-1, 1, size=3) * (5, 5, 0.04)
    size, mirrored = random.uniform(0.96, 1.06), bool(random.integers(2))
    return Person(texture.view(np.uint32)[..., 0], shape, pose, size, mirrored)


@cache
def _portrait() -> tuple[Field, Field, Field]:
    """The upright portrait (H D, W D, 3), and where hair and backdrop are, 0 to 1 (H D, W D, 1)."""
    x, y = _grid(2 * REACH_X, 2 * REACH_Y, DETAIL)
    # The eyes made level; 44 source pixels between them become 77.
    zoom, cosine, sine = 1.75, 0.99926, 0.03839
    row = 122 + (sine * x + cosine * y) / zoom
    column = 223.6 + (cosine * x - sine * y) / zoom
    source = np.moveaxis(astronaut().astype(np.float64), -1, 0)  # type: ignore[no-untyped-call]
    channels = [map_coordinates(channel, (row, column), mode="nearest") for channel in source]
    portrait = np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.float32)
    # Fuller brows: those of the portrait are too thin to tell a frown from surprise.
    along = np.abs(x) - 42
    across = np.abs(y + 57.5 - 0.01 * along * along)
    brow = smooth((24 - np.abs(along)) / 10) * smooth(1.6 - across / 2.6)
    portrait *= (1 - 0.65 * brow)[..., None]
    half_width = np.interp(y[:, :1], OUTLINE_Y, OUTLINE_X).astype(np.float32)
    outside = smooth((np.abs(x) - half_width + 4) / 8)
    from_face = (x / 80) ** 2 + ((y - 5) / 94) ** 2
    hairiness = smooth((from_face - 0.85) / 0.3) * smooth((20 - y) / 20)
    return portrait, hairiness[..., None], outside[..., None]


def _open_mouth(x: Field, y: Field, opening: float) -> tuple[Field, Field]:
    """Bring the parted lips of the portrait to a distance of `opening` face pixels.

    Returns:
        The y to look up, and how dark the mouth is there, 0 to 1.
    """
    arch = np.maximum(1 - (x / MOUTH_HALF_WIDTH) ** 2, 0)
    depth = y - (MOUTH_Y + LIP_SAG * arch)
    gap, teeth = opening * arch, TEETH * arch
    # The lower lip moves, and less and less of what is beneath, down to the neck.
    lower = y + (teeth - gap) * (1 - smooth((depth - gap) / 80))
    inside = y - np.maximum(depth - teeth, 0)
    looked_up = np.where(depth < 0, y, np.where(depth < gap, inside, lower))
    beyond_lips = np.abs(depth - gap / 2) - gap / 2
    edge = np.where(beyond_lips > -1.2, np.float32(0.45), np.float32(0))
    throat = np.where(depth < gap + 1, 0.85 * smooth((depth - 0.8 * teeth) / 4), 0)
    dark = np.clip(1.2 - beyond_lips, 0, 1) * np.minimum(4 * arch, 1) * np.maximum(edge, throat)
    return looked_up, dark


@cache
def push(bump: Bump) -> Field:
    """Offsets (2, H, W) to where that which the bump moves to a point comes from."""
    x, y = _grid(2 * REACH_X, 2 * REACH_Y, 1)
    offsets = no_movement()
    for side in (1, -1) if bump.x else (1,):
        u, v = x - side * bump.x, y - bump.y
        weight = np.maximum(1 - (u / bump.rx) ** 2 - (v / bump.ry) ** 2, 0) ** 2
        offsets[0] -= weight * (side * bump.dx + bump.gx * u)
        offsets[1] -= weight * (bump.dy + bump.gy * v)
    return offsets


def no_movement() -> Field:
    """Offsets (2, H, W) of a face at rest, apart from the portrait's smile."""
    return np.zeros((2, 2 * REACH_Y, 2 * REACH_X), np.float32)


def _grid(width: int, height: int, detail: int) -> tuple[Field, Field]:
    """x and y of each pixel of a picture around the origin, (height * detail, width * detail)."""
    columns = (np.arange(width * detail) + 0.5) / detail - width / 2
    rows = (np.arange(height * detail) + 0.5) / detail - height / 2
    x, y = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
    return x, y


def _nearest(x: Field, y: Field, detail: int) -> npt.NDArray[np.intp]:
    """Flat indices into (H * detail, W * detail) of the pixels at (x, y), or else on the margin."""
    column = np.clip((x + REACH_X) * detail, 0, 2 * REACH_X * detail - 1).astype(np.intp)
    row = np.clip((y + REACH_Y) * detail, 0, 2 * REACH_Y * detail - 1).astype(np.intp)
    return row * (2 * REACH_X * detail) + column


def _displace(offsets: Field, x: Field, y: Field) -> tuple[Field, Field]:
    index = _nearest(x, y, 1)
    return x + offsets[0].ravel()[index], y + offsets[1].ravel()[index]


def sine(turns: float) -> float:
    """Of so many full turns, alike on every processor."""
    return round(math.sin(2 * math.pi * turns), 6)


def smooth(x: npt.ArrayLike) -> Field:
    """0 below 0, 1 above 1, and 3 x^2 - 2 x^3 between them."""
    clipped: Field = np.clip(np.asarray(x, np.float32), 0, 1)
    return clipped * clipped * (3 - 2 * clipped)
