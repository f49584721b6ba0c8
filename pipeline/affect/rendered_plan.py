"""Who shows what in the set `rendered`, frame by frame, and what is said of it.

One person per video shows two emotions, one after the other, and some action units of their own.
An action unit is active where its strength passes a threshold; valence and arousal are the strength
of the emotion times its place in a published table, with a little of what the units say and noise.

T frames of a video.
"""

from math import ceil
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, NonNegativeInt

from pipeline.affect.labels import AUS, Labels
from pipeline.common.params import Section
from pipeline.datasets.action_units import EXPRESSIONS as ACTED
from pipeline.datasets.action_units import Expression
from pipeline.datasets.sample_faces import smooth

# From which strength on a unit is active and an emotion is named; 1 is a marked movement.
THRESHOLD = 0.4
# Lips that are further apart, in face pixels, are parted (AU25).
PARTED = 7.0
# Pleasure and arousal. Source: Mehrabian and Russell, An Approach to Environmental Psychology,
# 1974.
ANCHORS = {
    "neutral": (0.0, 0.0),
    "angry": (-0.51, 0.59),
    "disgust": (-0.60, 0.35),
    "fear": (-0.64, 0.60),
    "happy": (0.81, 0.51),
    "sad": (-0.63, -0.27),
    "surprised": (0.40, 0.67),
    "other": (0.0, 0.0),
}
# What units add to valence and to arousal.
_TILTS = {4: (-0.08, 0.04), 12: (0.12, 0.04), 15: (-0.08, -0.04), 26: (0.0, 0.08)}
_NOISE = 0.04
# The data set `sample` has neither AU23 nor an emotion that is none of the six.
_LOOKS = {
    **{name: ACTED[name] for name in ("disgust", "happy", "sad", "surprised")},
    "fear": ACTED["fearful"],
    "angry": ACTED["angry"]._replace(units={**ACTED["angry"].units, 23: 0.8}),
    "other": Expression("", {2: 1.0, 10: 0.9, 23: 1.1}, 0, 4),
}
# Of a unit, to be shown in a video beside what the emotions need.
_OWN_CHANCE = 0.3
# Shares of the training lines of which this is not known, as in s-Aff-Wild2.
UNKNOWN = {"valence_arousal": 0.27, "expression": 0.36, "aus": 0.27}
_PARTS = ("train", "train", "train", "validation", "test")


class Settings(Section):
    """How much is rendered.

    Attributes:
        num_videos: Each with a person of its own: three fifths are for training, a fifth each for
            validation and for the test.
        num_frames: T, of each video.
        seed: Of people and of what they show.
    """

    num_videos: Annotated[int, Field(ge=5)]
    num_frames: Annotated[int, Field(ge=4)]
    seed: NonNegativeInt


class Frame(NamedTuple):
    """One frame.

    Attributes:
        units: Strengths by number; a negative one is the opposite movement.
        opening: Face pixels between the lips.
        labels: All that is true of it.
    """

    units: dict[int, float]
    opening: float
    labels: Labels


class Video(NamedTuple):
    """One video.

    Attributes:
        name: Of its folder.
        subject: Who is seen, from 1.
        part: `train`, `validation` or `test`.
        unknown: Which of valence_arousal, expression and aus its lines do not tell.
        frames: T of them.
    """

    name: str
    subject: int
    part: str
    unknown: frozenset[str]
    frames: list[Frame]


def plan_videos(settings: Settings) -> list[Video]:
    """All videos, in order; two of the first recording are of two people, left and right."""
    parts = [_PARTS[i % len(_PARTS)] for i in range(settings.num_videos)]
    unknown = _choose_unknown(parts, settings.seed)
    videos = []
    for i, part in enumerate(parts):
        name = f"{i + 1:03}"
        if i < 2:
            name = ("001_left", "001_right")[i]
        frames = _plan_frames(settings, subject=i + 1)
        videos.append(Video(name, i + 1, part, unknown[i], frames))
    return videos


def _choose_unknown(parts: list[str], seed: int) -> list[frozenset[str]]:
    """Whole videos of the training, of each of which something is known."""
    random = np.random.default_rng((seed, 0))
    training = [i for i, part in enumerate(parts) if part == "train"]
    unknown: dict[int, set[str]] = {i: set() for i in range(len(parts))}
    for name, share in UNKNOWN.items():
        number = round(share * len(training))
        # Those of which most is known come first; among them chance decides.
        order = sorted(random.permutation(training).tolist(), key=lambda i: len(unknown[i]))
        for i in order[:number]:
            unknown[i].add(name)
    return [frozenset(unknown[i]) for i in range(len(parts))]


def _plan_frames(settings: Settings, subject: int) -> list[Frame]:
    """Two emotions, each of which grows, stays and fades, and some units that come and go."""
    num_frames = settings.num_frames
    random = np.random.default_rng((settings.seed, subject))
    names = list(_LOOKS)
    # Over seven people, every emotion is shown twice.
    emotions = [names[(subject - 1) % len(names)], names[(3 * subject + 1) % len(names)]]
    gains = random.uniform(0.75, 1.2, size=2)
    own = {
        unit: (random.uniform(0, num_frames), random.uniform(0.1, 0.25) * num_frames)
        for unit in AUS
        if random.random() < _OWN_CHANCE
    }
    strengths = {unit: random.uniform(0.6, 1.2) for unit in own}
    length = ceil(num_frames / 2)
    frames = []
    for t in range(num_frames):
        emotion, gain = emotions[t // length], float(gains[t // length])
        level = gain * _rise_and_fall(t % length, length / 2, length / 2)
        units = {unit: weight * level for unit, weight in _LOOKS[emotion].units.items()}
        for unit, (centre, half_width) in own.items():
            shown = strengths[unit] * _rise_and_fall(t, centre, half_width)
            units[unit] = max(units.get(unit, 0.0), shown)
        parted = 14 * units.pop(25, 0.0)
        opening = max(_LOOKS[emotion].opening * level, parted, 12 * units.get(26, 0.0))
        noise = random.uniform(-_NOISE, _NOISE, size=2)
        labels = _labels(emotion, level, units, opening, noise.tolist())
        frames.append(Frame(units, opening, labels))
    return frames


def _rise_and_fall(t: float, centre: float, half_width: float) -> float:
    """0 beyond `half_width` from the centre, 1 within half of that."""
    return float(smooth(2 * (1 - abs(t + 0.5 - centre) / half_width)))


def _labels(
    emotion: str, level: float, units: dict[int, float], opening: float, noise: list[float]
) -> Labels:
    expression = emotion if level > THRESHOLD else "neutral"
    valence, arousal = (
        min(level, 1.0) * ANCHORS[emotion][i]
        + noise[i]
        + sum(tilt[i] * units.get(unit, 0.0) for unit, tilt in _TILTS.items())
        for i in range(2)
    )
    active = tuple(
        opening > PARTED if unit == 25 else units.get(unit, 0.0) > THRESHOLD for unit in AUS
    )
    return Labels(expression, _on_scale(valence), _on_scale(arousal), active)


def _on_scale(value: float) -> float:
    return round(min(max(value, -1.0), 1.0), 3)
