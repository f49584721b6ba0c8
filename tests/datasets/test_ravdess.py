from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from pipeline.common.clips import Clip
from pipeline.datasets.ravdess import find_clips, is_wanted, parse_name, what_is_missing

SEVEN = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprised"]
EIGHT = [*SEVEN, "calm"]


def speech_names() -> list[str]:
    """The 24 x 60 names of the speech videos; only neutral has no strong intensity."""
    fields = product(range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25))
    return [
        f"02-01-{emotion:02}-{intensity:02}-{statement:02}-{repetition:02}-{actor:02}.mp4"
        for emotion, intensity, statement, repetition, actor in fields
        if not (emotion == 1 and intensity == 2)
    ]


def test_a_name_says_who_shows_what() -> None:
    clip = parse_name("Actor_12/02-01-06-01-02-01-12.mp4", SEVEN)
    assert clip == Clip(
        "02-01-06-01-02-01-12",
        "Actor_12/02-01-06-01-02-01-12.mp4",
        "actor_12",
        "fear",
        sex="female",
    )


OTHERS = dict.fromkeys(["angry", "disgust", "fear", "happy", "sad", "surprised"], 192)


@pytest.mark.parametrize(
    ("classes", "calm_and_neutral"),
    [(SEVEN, {"neutral": 288}), (EIGHT, {"neutral": 96, "calm": 192})],
)
def test_calm_is_neutral_unless_it_is_a_class_and_the_published_counts_come_out(
    classes: list[str], calm_and_neutral: dict[str, int]
) -> None:
    clips = [parse_name(name, classes) for name in speech_names()]
    assert len(clips) == 1440
    assert Counter(clip.label for clip in clips) == {**OTHERS, **calm_and_neutral}
    assert Counter(Counter(clip.subject for clip in clips).values()) == {60: 24}


def test_odd_actors_are_male_and_even_ones_female() -> None:
    sexes = {clip.subject: clip.sex for clip in (parse_name(n, SEVEN) for n in speech_names())}
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
        parse_name(name, SEVEN)


def test_only_video_only_speech_is_wanted() -> None:
    assert all(is_wanted(f"Actor_01/{name}") for name in speech_names())
    unwanted = [
        "01-01-06-01-02-01-12.mp4",  # the same pictures with sound
        "03-01-06-01-02-01-12.wav",
        "02-02-06-01-02-01-12.mp4",  # a song
        "02-01-06-01-02-01-12.avi",
        "02-01-06-01-02-01-12.mp4.part",
        "._02-01-06-01-02-01-12.mp4",
        "README.md",
    ]
    assert [name for name in unwanted if is_wanted(name)] == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Actors 1 and 2 as they are unpacked, empty: one folder more for actor 2, twins, a song."""
    for name in speech_names():
        for twin in (name, f"01{name[2:]}"):
            if name.endswith("-01.mp4"):
                touch(tmp_path / "Actor_01" / twin)
            if name.endswith("-02.mp4"):
                touch(tmp_path / "Video_Speech_Actor_02/Actor_02" / twin)
    touch(tmp_path / "Actor_01/02-02-03-01-01-01-01.mp4")
    touch(tmp_path / "Actor_01/readme.mp4")
    return tmp_path


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_clips_are_found_in_any_layout_and_in_the_order_of_their_names(copy: Path) -> None:
    clips = find_clips(copy, SEVEN)
    expected = sorted(name for name in speech_names() if name.endswith(("-01.mp4", "-02.mp4")))
    assert [f"{clip.clip}.mp4" for clip in clips] == expected
    assert {clip.path for clip in clips if clip.subject == "actor_02"} == {
        f"Video_Speech_Actor_02/Actor_02/{name}" for name in expected if name.endswith("-02.mp4")
    }
    assert Counter(clip.label for clip in clips) == {**dict.fromkeys(OTHERS, 16), "neutral": 24}
    assert Counter(clip.label for clip in find_clips(copy, EIGHT))["calm"] == 16


def test_a_clip_that_is_there_twice_is_an_error_that_names_it(copy: Path) -> None:
    touch(copy / "backup/02-01-06-01-02-01-01.mp4")
    with pytest.raises(ValueError, match=r"02-01-06-01-02-01-01\.mp4 is below .* twice"):
        find_clips(copy, SEVEN)


def test_a_folder_of_audio_visual_clips_alone_is_an_error_that_says_what_is_expected(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "Actor_01/01-01-06-01-02-01-01.mp4")
    with pytest.raises(ValueError, match=r"no video-only speech clip .* Actor_01 to Actor_24"):
        find_clips(tmp_path, SEVEN)


def test_what_is_missing_is_named_actor_by_actor() -> None:
    clips = [parse_name(name, SEVEN) for name in speech_names()]
    assert what_is_missing(clips) == []
    rest = [clip for clip in clips if clip.subject not in ("actor_05", "actor_24")]
    rest.remove(next(clip for clip in rest if clip.subject == "actor_07"))
    assert what_is_missing(rest) == [
        "no clips of actor_05, actor_24",
        "fewer than 60 clips of actor_07 (59)",
    ]
