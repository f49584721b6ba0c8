from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.clips import Clip
from pipeline.data.folds import Fold, read_fold, subject_folds, write_folds

LABELS = ["angry", "happy", "sad"]


def balanced_clips(num_subjects: int, clips_per_label: int = 4) -> list[Clip]:
    """Every subject shows every label equally often; subjects are female and male in turn."""
    return [
        Clip(f"s{s:02}_{label}_{i}", "", f"s{s:02}", label, sex=("female", "male")[s % 2])
        for s in range(num_subjects)
        for label in LABELS
        for i in range(clips_per_label)
    ]


def uneven_clips(seed: int) -> list[Clip]:
    """Twelve subjects with 10 to 30 clips of random labels."""
    random = np.random.default_rng(seed)
    return [
        Clip(
            f"s{s:02}_{i}",
            "",
            f"s{s:02}",
            str(random.choice(LABELS)),
            sex=("female", "male")[s % 2],
        )
        for s in range(12)
        for i in range(random.integers(10, 30))
    ]


def split(clips: list[Clip], num_folds: int = 5, seed: int = 1) -> list[Fold]:
    return subject_folds(clips, num_folds=num_folds, validation_fraction=0.2, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_no_subject_appears_in_two_parts_of_a_fold_and_none_is_left_out(seed: int) -> None:
    clips = uneven_clips(seed)
    for fold in split(clips, seed=seed):
        assert all([fold.train, fold.validation, fold.test])
        together = [*fold.train, *fold.validation, *fold.test]
        assert sorted(together) == sorted({clip.subject for clip in clips})


@pytest.mark.parametrize("seed", range(5))
def test_every_subject_is_tested_exactly_once(seed: int) -> None:
    clips = uneven_clips(seed)
    folds = split(clips, seed=seed)
    assert [fold.fold for fold in folds] == [1, 2, 3, 4, 5]
    tested = [subject for fold in folds for subject in fold.test]
    assert sorted(tested) == sorted({clip.subject for clip in clips})


@pytest.mark.parametrize("seed", range(5))
def test_balanced_subjects_give_folds_of_one_woman_and_one_man_each(seed: int) -> None:
    clips = balanced_clips(10)
    sex = {clip.subject: clip.sex for clip in clips}
    for fold in split(clips, seed=seed):
        assert Counter(sex[subject] for subject in fold.test) == {"female": 1, "male": 1}
        assert len(fold.validation) in (1, 2)


def test_24_actors_are_spread_as_evenly_as_whole_subjects_allow() -> None:
    clips = balanced_clips(24)
    sex = {clip.subject: clip.sex for clip in clips}
    folds = split(clips)
    assert sorted(len(fold.test) for fold in folds) == [4, 5, 5, 5, 5]
    for fold in folds:
        women = sum(sex[subject] == "female" for subject in fold.test)
        assert women in (2, 3)


def test_classes_are_even_where_each_subject_shows_one() -> None:
    clips = [Clip(f"{s}_{i}", "", f"s{s:02}", LABELS[s % 3]) for s in range(15) for i in range(5)]
    label = {clip.subject: clip.label for clip in clips}
    for fold in split(clips):
        assert sorted(label[subject] for subject in fold.test) == LABELS


def test_one_clip_of_each_class_and_subject_is_enough() -> None:
    # Every class of every sex then has fewer clips than there are folds.
    folds = split(balanced_clips(8, clips_per_label=1))
    tested = [subject for fold in folds for subject in fold.test]
    assert sorted(tested) == [f"s{s:02}" for s in range(8)]
    assert all(fold.train and fold.validation and fold.test for fold in folds)


def test_folds_depend_on_the_seed_and_on_nothing_else() -> None:
    clips = balanced_clips(10)
    assert split(clips, seed=3) == split(clips, seed=3)
    assert split(clips, seed=3) != split(clips, seed=4)


def test_too_few_subjects_are_an_error_with_their_number_and_the_number_needed() -> None:
    with pytest.raises(ValueError, match=r"4 subject\(s\) \(s00, .*\) cannot make 5 .* at least 5"):
        split(balanced_clips(4))
    with pytest.raises(ValueError, match=r"2 subject\(s\) .* at least 4"):
        split(balanced_clips(2), num_folds=2)


def test_a_class_that_only_one_subject_shows_cannot_be_tested() -> None:
    clips = [*balanced_clips(10), *(Clip(f"rare{i}", "", "s00", "contempt") for i in range(5))]
    with pytest.raises(ValueError, match=r"fold \d would train without any clip of contempt"):
        split(clips)


def test_folds_read_back_as_they_were_written(tmp_path: Path) -> None:
    folds = split(balanced_clips(10))
    write_folds(tmp_path / "folds.json", folds)
    assert [read_fold(tmp_path / "folds.json", number) for number in (1, 2, 3, 4, 5)] == folds


@pytest.mark.parametrize("number", [0, 6])
def test_a_fold_that_was_not_made_is_an_error(tmp_path: Path, number: int) -> None:
    write_folds(tmp_path / "folds.json", split(balanced_clips(10)))
    with pytest.raises(ValueError, match=f"folds 1 to 5, not {number}"):
        read_fold(tmp_path / "folds.json", number)


def test_two_folds_of_three_subjects_would_leave_nobody_to_validate() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        split(balanced_clips(3), num_folds=2)


def test_subjects_too_uneven_for_the_folds_are_an_error_and_not_an_empty_fold() -> None:
    counts = {"s0": (0, 1, 0), "s1": (1, 1, 5), "s2": (2, 3, 2), "s3": (2, 1, 2), "s4": (2, 6, 4)}
    clips = [
        Clip(f"{subject}{label}{i}", "", subject, label, sex="fm"[int(subject[1]) % 2])
        for subject, numbers in counts.items()
        for label, number in zip("abc", numbers, strict=True)
        for i in range(number)
    ]
    with pytest.raises(ValueError, match="has no test subjects"):
        split(clips, seed=0)
