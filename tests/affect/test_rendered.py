from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.affect import rendered
from pipeline.affect.labels import AUS, EXPRESSIONS, LabelledImage, Labels, truth_of
from pipeline.affect.listing import ImageFolder
from pipeline.affect.metrics import Answers, score
from pipeline.affect.pictures import read_picture
from pipeline.affect.rendered import (
    IMAGES,
    NUM_MISSING,
    NUM_REPEATS,
    TEST_LIST,
    TEST_TRUTH,
    TRAINING,
    VALIDATION,
    draw_frame,
    write_set,
)
from pipeline.affect.rendered_plan import (
    ANCHORS,
    THRESHOLD,
    UNKNOWN,
    Frame,
    Settings,
    Video,
    plan_videos,
)
from pipeline.affect.s_aff_wild2 import Annotations, read_annotations
from pipeline.affect.submission import Answer, read_test_list, write_submission
from pipeline.common.workers import Folders

LARGE = Settings(num_videos=30, num_frames=30, seed=2)
SMALL = Settings(num_videos=6, num_frames=4, seed=2)
# Rows of the picture.
BROWS, MOUTH = np.s_[15:50], np.s_[60:95]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small set; rendered in this process, which is quicker than to start others."""

    def in_order(
        function: Callable[[Any], Any], items: list[Any], description: str, folders: Folders
    ) -> list[Any]:
        return [function(item) for item in items]

    path = tmp_path_factory.mktemp("rendered")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendered, "map_in_processes", in_order)
        write_set(SMALL, path)
    return path


def read(folder: Path, file: str, part: str) -> Annotations:
    return read_annotations(folder / file, ImageFolder(folder / IMAGES), part)


def image_of(frame: Frame) -> LabelledImage:
    return LabelledImage("id", "path", "group", "part", frame.labels)


def hide(labels: Labels, unknown: frozenset[str]) -> Labels:
    no_numbers = "valence_arousal" in unknown
    return Labels(
        None if "expression" in unknown else labels.expression,
        None if no_numbers else labels.valence,
        None if no_numbers else labels.arousal,
        (None,) * len(AUS) if "aus" in unknown else labels.aus,
    )


def test_every_unit_is_active_in_5_to_60_percent_and_every_expression_occurs() -> None:
    frames = [frame for video in plan_videos(LARGE) for frame in video.frames]
    rates = truth_of([image_of(frame) for frame in frames], EXPRESSIONS).aus.mean(axis=0)
    assert rates.min() > 0.05
    assert rates.max() < 0.6
    counts = Counter(frame.labels.expression for frame in frames)
    assert set(counts) == set(EXPRESSIONS)
    assert min(counts.values()) > 0.05 * len(frames)


def test_labels_follow_from_what_is_shown() -> None:
    for video in plan_videos(LARGE):
        for frame in video.frames:
            for unit, active in zip(AUS, frame.labels.aus, strict=True):
                if unit == 25:
                    assert active == (frame.opening > 7)
                else:
                    assert active == (frame.units.get(unit, 0) > THRESHOLD)
            expression, valence = frame.labels.expression, frame.labels.valence
            assert expression is not None
            assert valence is not None
            pleasure = ANCHORS[expression][0]
            if abs(pleasure) > 0.5:
                assert np.sign(valence) == np.sign(pleasure)


def test_whole_videos_are_unlabelled_at_the_rates_of_the_real_set() -> None:
    training = [video for video in plan_videos(LARGE) if video.part == "train"]
    for name, share in UNKNOWN.items():
        without = sum(name in video.unknown for video in training)
        assert without / len(training) == pytest.approx(share, abs=0.5 / len(training))
    assert all(len(video.unknown) < 3 for video in training)


def test_the_lists_are_read_as_they_were_planned(folder: Path) -> None:
    videos = {video.name: video for video in plan_videos(SMALL)}
    listing, counts = read(folder, TRAINING, "train")
    (contradicted,) = {x.path for x in listing.refused if x.refusal.reason == "contradiction"}
    reasons = Counter(line.refusal.reason for line in listing.refused)
    assert reasons == {"missing": NUM_MISSING, "contradiction": 2}
    assert listing.repeats == NUM_REPEATS
    expected = {
        f"{video.name}/{i + 1:05}.jpg": hide(frame.labels, video.unknown)
        for video in videos.values()
        if video.part == "train"
        for i, frame in enumerate(video.frames)
    }
    assert counts.labelled == len(expected) + NUM_REPEATS + NUM_MISSING + 1
    del expected[contradicted]
    found = {image.path: image.labels for image in listing.images}
    assert found.keys() == expected.keys()
    partly = 0
    for path, labels in found.items():
        if labels != expected[path]:  # the last units of every tenth frame are not known
            partly += 1
            assert labels.aus == (*expected[path].aus[:9], None, None, None)
    assert partly
    assert {image.group for image in listing.images if "_" in image.path} == {"001"}


def test_the_validation_has_windows_lines_and_says_the_same(folder: Path) -> None:
    content = (folder / VALIDATION).read_bytes()
    assert content.startswith(b"\xef\xbb\xbfimage,valence,arousal,expression,aus,\r\n")
    assert content.endswith(b",\r\n")
    listing = read(folder, VALIDATION, "validation").listing
    assert not listing.refused
    (video,) = [video for video in plan_videos(SMALL) if video.part == "validation"]
    assert [image.labels for image in listing.images] == [frame.labels for frame in video.frames]


def test_a_submission_of_the_truth_is_perfect_in_every_line(folder: Path, tmp_path: Path) -> None:
    listed = read_test_list(folder / TEST_LIST)
    assert len(listed) > len(set(listed))
    images = read(folder, TEST_TRUTH, "test").listing.images
    truth = truth_of(images, EXPRESSIONS)
    answers = {}
    for image in images:
        labels = image.labels
        assert labels.valence is not None
        assert labels.arousal is not None
        assert labels.expression is not None
        aus = tuple(bool(active) for active in labels.aus)
        answers[image.path] = Answer(labels.valence, labels.arousal, labels.expression, aus)
    write_submission(tmp_path / "submission.txt", listed, answers)
    submitted = read_annotations(
        tmp_path / "submission.txt", ImageFolder(folder / IMAGES), "test"
    ).listing
    assert submitted.repeats == len(listed) - len(set(listed))
    said = truth_of(submitted.images, EXPRESSIONS)
    found = score(Answers(said.valence_arousal, said.expression, said.aus), truth, 8)
    assert found.valence_arousal == pytest.approx(1)
    present = len(set(truth.expression.tolist()))
    assert found.expression == pytest.approx(present / 8)


def test_pictures_are_112_pixels_wide_and_as_they_were_drawn(folder: Path) -> None:
    video = plan_videos(SMALL)[2]
    drawn = draw_frame(video, 1, SMALL.seed)
    stored = read_picture(folder / IMAGES / video.name / "00002.jpg", 112)
    assert drawn.shape == stored.shape == (112, 112, 3)
    assert np.abs(drawn.astype(int) - stored).mean() < 3
    assert (draw_frame(video, 1, SMALL.seed) == drawn).all()
    assert np.abs(draw_frame(video, 1, 3).astype(int) - drawn).mean() > 5


def drawn_with(units: dict[int, float], opening: float = 0) -> npt.NDArray[np.int64]:
    frame = Frame(units, opening, Labels())
    return draw_frame(Video("v", 3, "train", frozenset(), [frame]), 0, seed=2).astype(np.int64)


@pytest.mark.parametrize("unit", AUS)
def test_a_unit_is_seen_where_it_moves_the_face(unit: int) -> None:
    shown = drawn_with({}, opening=14) if unit == 25 else drawn_with({unit: 1.0})
    change = np.abs(shown - drawn_with({})).mean(axis=2)
    upper, lower = change[BROWS].mean(), change[MOUTH].mean()
    if unit in (1, 2, 4, 6, 7):
        assert upper > 5 * lower
    else:
        assert lower > 5 * upper
    assert change.max() > 20
