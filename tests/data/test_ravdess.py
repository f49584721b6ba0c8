from collections import Counter
from itertools import product

import pytest

from pipeline.data.clips import Clip
from pipeline.data.ravdess import parse_name


def speech_names() -> list[str]:
    """The 24 x 60 names of the speech videos; only neutral has no strong intensity."""
    fields = product(range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25))
    return [
        f"02-01-{emotion:02}-{intensity:02}-{statement:02}-{repetition:02}-{actor:02}.mp4"
        for emotion, intensity, statement, repetition, actor in fields
        if not (emotion == 1 and intensity == 2)
    ]


def test_a_name_says_who_shows_what() -> None:
    clip = parse_name("Actor_12/02-01-06-01-02-01-12.mp4")
    assert clip == Clip(
        "02-01-06-01-02-01-12",
        "Actor_12/02-01-06-01-02-01-12.mp4",
        "actor_12",
        "fear",
        sex="female",
    )


def test_calm_counts_as_neutral_and_the_published_counts_come_out() -> None:
    clips = [parse_name(name) for name in speech_names()]
    others = dict.fromkeys(["happy", "sad", "angry", "fear", "disgust", "surprised"], 192)
    assert Counter(clip.label for clip in clips) == {"neutral": 288, **others}
    assert Counter(Counter(clip.subject for clip in clips).values()) == {60: 24}


def test_odd_actors_are_male_and_even_ones_female() -> None:
    sexes = {clip.subject: clip.sex for clip in map(parse_name, speech_names())}
    assert sexes == {f"actor_{n:02}": "female" if n % 2 == 0 else "male" for n in range(1, 25)}


@pytest.mark.parametrize(
    "name",
    [
        "happy.mp4",
        "02-01-06-01-02-01.mp4",
        "02-01-06-01-02-01-12-01.mp4",
        "02-01-09-01-02-01-12.mp4",
        "04-01-06-01-02-01-12.mp4",
        "2-1-6-1-2-1-12.mp4",
        "02-01-06-01-02-01-12.copy.mp4",
    ],
)
def test_a_name_outside_the_scheme_is_an_error_that_quotes_it(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: not a RAVDESS name"):
        parse_name(name)
