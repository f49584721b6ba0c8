from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from project import ROOT

from pipeline.common.clips import StoredClip
from pipeline.datasets.cremad import list_clips, read_objects, read_sexes
from pipeline.folds.folds import (
    PARTS,
    Fold,
    GroupFold,
    classes_lacking,
    read_fold,
    read_folds,
    refuse_leaks,
    write_folds,
)
from pipeline.folds.group_folds import balanced_tests, make_folds, published_folds
from pipeline.folds.protocols import PUBLISHED
from stages.split import Params, split_clips

LABELS = ["angry", "happy", "sad"]


def balanced_clips(num_subjects: int, clips_per_label: int = 4) -> list[StoredClip]:
    """Every subject shows every label equally often; subjects are female and male in turn."""
    return [
        StoredClip(f"s{s:02}_{label}_{i}", "", f"s{s:02}", label, sex=("female", "male")[s % 2])
        for s in range(num_subjects)
        for label in LABELS
        for i in range(clips_per_label)
    ]


def uneven_clips(seed: int) -> list[StoredClip]:
    """Twelve subjects with 10 to 30 clips of random labels."""
    random = np.random.default_rng(seed)
    return [
        StoredClip(
            f"s{s:02}_{i}",
            "",
            f"s{s:02}",
            str(random.choice(LABELS)),
            sex=("female", "male")[s % 2],
        )
        for s in range(12)
        for i in range(random.integers(10, 30))
    ]


def split(clips: list[StoredClip], num_folds: int = 5, seed: int = 1) -> list[GroupFold]:
    tests = balanced_tests(clips, num_folds, seed)
    return make_folds(clips, tests, validation_fraction=0.2, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_no_subject_appears_in_two_parts_of_a_fold_and_none_is_left_out(seed: int) -> None:
    clips = uneven_clips(seed)
    for fold in split(clips, seed=seed):
        assert all([fold.train, fold.validation, fold.test])
        together = [*fold.train, *fold.validation, *fold.test]
        assert sorted(together) == sorted({clip.group for clip in clips})


@pytest.mark.parametrize("seed", range(5))
def test_every_subject_is_tested_exactly_once(seed: int) -> None:
    clips = uneven_clips(seed)
    folds = split(clips, seed=seed)
    assert [fold.number for fold in folds] == [1, 2, 3, 4, 5]
    tested = [subject for fold in folds for subject in fold.test]
    assert sorted(tested) == sorted({clip.group for clip in clips})


@pytest.mark.parametrize("seed", range(5))
def test_balanced_subjects_give_folds_of_one_woman_and_one_man_each(seed: int) -> None:
    clips = balanced_clips(10)
    sex = {clip.group: clip.sex for clip in clips}
    for fold in split(clips, seed=seed):
        assert Counter(sex[subject] for subject in fold.test) == {"female": 1, "male": 1}
        # A fifth of the other eight is 1.6.
        assert Counter(sex[subject] for subject in fold.validation) == {"female": 1, "male": 1}


def test_24_actors_are_spread_as_evenly_as_whole_subjects_allow() -> None:
    clips = balanced_clips(24)
    sex = {clip.group: clip.sex for clip in clips}
    folds = split(clips)
    assert sorted(len(fold.test) for fold in folds) == [4, 5, 5, 5, 5]
    for fold in folds:
        women = sum(sex[subject] == "female" for subject in fold.test)
        assert women in (2, 3)


def test_classes_are_even_where_each_subject_shows_one() -> None:
    clips = [
        StoredClip(f"{s}_{i}", "", f"s{s:02}", LABELS[s % 3]) for s in range(15) for i in range(5)
    ]
    label = {clip.group: clip.label for clip in clips}
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
    clips = [
        *balanced_clips(10),
        *(StoredClip(f"rare{i}", "", "s00", "contempt") for i in range(5)),
    ]
    with pytest.raises(ValueError, match=r"fold \d would train without any clip of contempt"):
        split(clips)


def by_clip(fold: GroupFold, clips: list[StoredClip]) -> Fold:
    """The same fold as the part of every clip."""
    part_of = {subject: part for part in PARTS for subject in getattr(fold, part)}
    return Fold(fold.number, {clip.clip: part_of[clip.group] for clip in clips})


def test_folds_read_back_as_they_were_written(tmp_path: Path) -> None:
    clips = balanced_clips(10)
    folds = split(clips)
    write_folds(tmp_path / "folds.csv", clips, folds)
    expected = [by_clip(fold, clips) for fold in folds]
    assert [read_fold(tmp_path / "folds.csv", number) for number in (1, 2, 3, 4, 5)] == expected
    assert read_folds(tmp_path / "folds.csv") == expected


def test_folds_are_a_table_of_clips_and_folds(tmp_path: Path) -> None:
    clips = [StoredClip(f"{name}_1", "", name, "sad") for name in ("Ann", "Bob", "Cem", "Eve")]
    folds = [
        GroupFold(1, train=["Ann"], validation=["Bob"], test=["Cem"]),
        GroupFold(2, train=["Cem"], validation=["Ann"], test=["Bob"]),
    ]
    write_folds(tmp_path / "folds.csv", clips, folds)
    assert (tmp_path / "folds.csv").read_text().splitlines() == [
        "clip,fold1,fold2",
        "Ann_1,train,validation",
        "Bob_1,validation,test",
        "Cem_1,test,train",
        "Eve_1,,",
    ]
    # Who is in no part of a fold is not in it.
    assert read_fold(tmp_path / "folds.csv", 2) == Fold(
        2, {"Ann_1": "validation", "Bob_1": "test", "Cem_1": "train"}
    )


@pytest.mark.parametrize(
    "names", [["007", "02", "3"], ["NA", "nan", "null"], ["True", "1e5", "inf"]]
)
def test_names_that_look_like_numbers_or_like_nothing_stay_text(
    tmp_path: Path, names: list[str]
) -> None:
    clips = [StoredClip(name, "", name, "sad") for name in names]
    fold = GroupFold(1, train=names[:1], validation=names[1:2], test=names[2:])
    write_folds(tmp_path / "folds.csv", clips, [fold])
    expected = Fold(1, dict(zip(names, PARTS, strict=True)))
    assert read_folds(tmp_path / "folds.csv") == [expected]
    assert read_fold(tmp_path / "folds.csv", 1) == expected


def test_the_rows_of_a_part_are_places_in_any_manifest() -> None:
    fold = Fold(1, {"a": "train", "b": "test", "c": "train", "gone": "test"})
    clips = [StoredClip(name, "", "Ann", "sad") for name in ("c", "new", "b", "a")]
    assert fold.rows(clips, "train") == [0, 3]
    assert fold.rows(clips, "test") == [2]
    assert fold.rows(clips, "validation") == []


@pytest.mark.parametrize("number", [0, 6])
def test_a_fold_that_was_not_made_is_an_error(tmp_path: Path, number: int) -> None:
    clips = balanced_clips(10)
    write_folds(tmp_path / "folds.csv", clips, split(clips))
    with pytest.raises(ValueError, match=f"folds 1 to 5, not {number}"):
        read_fold(tmp_path / "folds.csv", number)


def test_two_folds_of_three_subjects_would_leave_nobody_to_validate() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        split(balanced_clips(3), num_folds=2)


def test_as_many_subjects_as_folds_are_a_fold_each_however_uneven_they_are() -> None:
    # Scikit-learn puts s0, who has one clip, into the fold of s4 and leaves a fold empty.
    counts = {"s0": (0, 1, 0), "s1": (1, 1, 5), "s2": (2, 3, 2), "s3": (2, 1, 2), "s4": (2, 6, 4)}
    clips = [
        StoredClip(f"{subject}{label}{i}", "", subject, label, sex="fm"[int(subject[1]) % 2])
        for subject, numbers in counts.items()
        for label, number in zip("abc", numbers, strict=True)
        for i in range(number)
    ]
    folds = split(clips, seed=0)
    assert sorted(fold.test for fold in folds) == [[subject] for subject in counts]


@pytest.mark.parametrize(("num_subjects", "num_folds"), [(3, 3), (5, 5), (4, 2), (5, 2), (6, 5)])
def test_few_uneven_subjects_always_make_folds_that_test_everybody_once(
    num_subjects: int, num_folds: int
) -> None:
    for seed in range(60):
        random = np.random.default_rng(seed)
        clips = [
            StoredClip(f"s{s}_{i}", "", f"s{s}", str(random.choice(LABELS, p=shares)))
            for s, shares in enumerate(random.dirichlet([0.3] * len(LABELS), size=num_subjects))
            for i in range(random.integers(1, 30))
        ]
        tests = balanced_tests(clips, num_folds, seed)
        assert sorted(s for test in tests for s in test) == [f"s{s}" for s in range(num_subjects)]
        for test in tests:
            # Somebody is tested, and one to train on and one to choose the epoch are left.
            assert 1 <= len(test) <= num_subjects - 2


def ravdess_clips() -> list[StoredClip]:
    """24 actors with four neutral clips and eight of each other emotion, calm being one of them."""
    return [
        StoredClip(
            f"{actor}_{label}_{i}",
            "",
            f"actor_{actor:02}",
            label,
            sex=("female", "male")[actor % 2],
        )
        for actor in range(1, 25)
        for label in sorted(PUBLISHED["mae-dfer"]["ravdess"].classes)
        for i in range(4 if label == "neutral" else 8)
    ]


def cremad_clips() -> list[StoredClip]:
    """All 7,442 of the published list, the known bad ones with them."""
    tables = ROOT / "datasets/cremad"
    published = list_clips(
        read_objects(tables / "files.csv"),
        read_sexes(tables / "actors.csv"),
        keep_known_bad=True,
    )
    return [
        StoredClip(clip.clip, clip.path, clip.subject, clip.label, sex=clip.sex)
        for clip in published
    ]


def published(protocol: str, dataset: str, clips: list[StoredClip]) -> list[GroupFold]:
    return published_folds(clips, PUBLISHED[protocol][dataset], validation_fraction=0.2, seed=1)


def sizes(clips: list[StoredClip], fold: GroupFold) -> tuple[int, int]:
    """Number of test clips, and of training and validation clips together."""
    count = Counter(clip.group for clip in clips)
    rest = [*fold.train, *fold.validation]
    return sum(count[subject] for subject in fold.test), sum(count[subject] for subject in rest)


def test_ravdess_has_six_published_folds_of_240_test_clips() -> None:
    clips = ravdess_clips()
    folds = published("mae-dfer", "ravdess", clips)
    assert [sizes(clips, fold) for fold in folds] == [(240, 1200)] * 6
    assert [(fold.test[0], fold.test[-1]) for fold in folds] == [
        ("actor_01", "actor_04"),
        ("actor_05", "actor_08"),
        ("actor_09", "actor_12"),
        ("actor_13", "actor_16"),
        ("actor_17", "actor_20"),
        ("actor_21", "actor_24"),
    ]
    for fold in folds:
        assert len(fold.validation) == 4
        assert len({*fold.train, *fold.validation, *fold.test}) == 24


def test_emobox_has_the_six_folds_of_its_repository() -> None:
    clips = ravdess_clips()
    folds = published("emobox", "ravdess", clips)
    assert [{int(actor.removeprefix("actor_")) for actor in fold.test} for fold in folds] == [
        {1, 11, 20, 21},
        {4, 10, 12, 14},
        {8, 9, 19, 23},
        {3, 5, 7, 24},
        {2, 15, 16, 18},
        {6, 13, 17, 22},
    ]
    assert sorted(actor for fold in folds for actor in fold.test) == [
        f"actor_{number:02}" for number in range(1, 25)
    ]
    assert [sizes(clips, fold) for fold in folds] == [(240, 1200)] * 6
    assert set(Counter(clip.group for clip in clips).values()) == {60}
    for fold in folds:
        assert {clip.label for clip in clips if clip.group in fold.test} == {
            *("angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprised")
        }


def test_cremad_has_five_published_folds_of_the_published_sizes() -> None:
    clips = cremad_clips()
    found = [sizes(clips, fold) for fold in published("mae-dfer", "cremad", clips)]
    assert [test for test, _ in found] == [1463, 1470, 1476, 1476, 1557]
    assert {test + rest for test, rest in found} == {7442}


def test_a_published_protocol_wants_every_subject_and_no_stranger() -> None:
    clips = [clip for clip in ravdess_clips() if clip.group != "actor_07"]
    clips.append(StoredClip("x", "", "actor_25", "calm"))
    with pytest.raises(
        ValueError, match=r"subjects .* missing are actor_07, too many are actor_25"
    ):
        published("mae-dfer", "ravdess", clips)


def test_a_published_protocol_wants_its_own_classes() -> None:
    clips = [replace(clip, label=clip.label.replace("calm", "neutral")) for clip in ravdess_clips()]
    with pytest.raises(ValueError, match=r"classes .* missing are calm, too many are none"):
        published("mae-dfer", "ravdess", clips)


def by_protocol(protocol: str, clips: list[StoredClip]) -> list[GroupFold]:
    """What the split stage makes of the clips."""
    split = {
        "protocol": protocol,
        "partial": False,
        "num_folds": 5,
        "test_fraction": 0.25,
        "validation_fraction": 0.2,
    }
    document = {"dataset": "custom", "folds": [1], "split": split, "seed": 1}
    return split_clips(Params.model_validate(document), clips)


def test_leaving_one_subject_out_tests_each_of_24_alone() -> None:
    clips = ravdess_clips()
    folds = by_protocol("loso", clips)
    assert [fold.number for fold in folds] == list(range(1, 25))
    assert [fold.test for fold in folds] == [[f"actor_{n:02}"] for n in range(1, 25)]
    for fold in folds:
        assert sorted([*fold.train, *fold.validation, *fold.test]) == [
            f"actor_{n:02}" for n in range(1, 25)
        ]
        # A fifth of 23 is 4.6.
        assert len(fold.validation) == 5


def test_a_holdout_without_a_split_column_draws_its_subjects() -> None:
    # A quarter of twelve is tested, and a fifth of the other nine, 1.8, chooses the epoch.
    clips = balanced_clips(12)
    (fold,) = by_protocol("holdout", clips)
    assert len(fold.test) == 3
    assert len(fold.validation) == 2
    together = [*fold.train, *fold.validation, *fold.test]
    assert sorted(together) == [f"s{s:02}" for s in range(12)]


def test_three_subjects_are_a_holdout_of_one_in_each_part() -> None:
    (fold,) = by_protocol("holdout", balanced_clips(3))
    assert [len(part) for part in fold[1:]] == [1, 1, 1]
    with pytest.raises(ValueError, match=r"2 subject\(s\) \(s00, s01\) cannot be divided into 3"):
        by_protocol("holdout", balanced_clips(2))


@pytest.mark.parametrize(("fraction", "expected"), [(0.4, 4), (0.2, 2), (0.5, 5), (0.01, 1)])
def test_validation_is_as_close_to_its_fraction_of_ten_subjects_as_can_be(
    fraction: float, expected: int
) -> None:
    clips = balanced_clips(11)
    (fold,) = make_folds(clips, [["s00"]], validation_fraction=fraction, seed=1)
    assert len(fold.validation) == expected
    assert len(fold.train) == 10 - expected


def with_splits(parts: dict[str, str], num_subjects: int = 6) -> list[StoredClip]:
    """Balanced clips whose table says which part each subject is in; empty where `parts` does."""
    clips = balanced_clips(num_subjects)
    return [replace(clip, path=f"{clip.clip}.mp4", split=parts[clip.group]) for clip in clips]


SPLITS = {
    "s00": "test",
    "s01": "train",
    "s02": "validation",
    "s03": "train",
    "s04": "test",
    "s05": "train",
}


def test_a_holdout_follows_the_split_column() -> None:
    assert by_protocol("holdout", with_splits(SPLITS)) == [
        GroupFold(1, train=["s01", "s03", "s05"], validation=["s02"], test=["s00", "s04"])
    ]


def test_a_split_column_without_validation_has_it_drawn_from_the_training_subjects() -> None:
    parts = {subject: "test" if part == "test" else "train" for subject, part in SPLITS.items()}
    (fold,) = by_protocol("holdout", with_splits(parts))
    assert fold.test == ["s00", "s04"]
    assert len(fold.validation) == 1
    assert sorted([*fold.train, *fold.validation]) == ["s01", "s02", "s03", "s05"]


def test_a_subject_in_two_parts_of_the_table_is_an_error_that_names_them() -> None:
    clips = with_splits(SPLITS)
    clips[-1] = replace(clips[-1], split="test")
    with pytest.raises(ValueError, match=r"s05 stand\(s\) in the table as train and as test"):
        by_protocol("holdout", clips)


def test_a_split_column_with_gaps_is_an_error_that_counts_them() -> None:
    with pytest.raises(ValueError, match=r"12 clips have no split \(s03_angry_0\.mp4, "):
        by_protocol("holdout", with_splits({**SPLITS, "s03": ""}))


def test_classes_that_a_part_lacks_are_named_and_full_parts_are_left_out() -> None:
    clips = [
        StoredClip(f"{group}_{label}", "", group, label)
        for group, labels in {"Ann": "abc", "Bob": "ac", "Cem": "c", "Eve": "d"}.items()
        for label in labels
    ]
    fold = GroupFold(1, train=["Ann", "Eve"], validation=["Bob"], test=["Cem"])
    assert classes_lacking(by_clip(fold, clips), clips) == {
        "validation": ["b", "d"],
        "test": ["a", "b", "d"],
    }
    everybody = balanced_clips(5)
    assert all(
        classes_lacking(by_clip(fold, everybody), everybody) == {} for fold in split(everybody)
    )


FOLD = GroupFold(2, train=["Ann", "Bob"], validation=["Cem"], test=["Dee"])


def clip_of(subject: str, content: str) -> StoredClip:
    return StoredClip(
        f"{subject}{content}", f"{subject}/{content}.mp4", subject, "sad", content=content
    )


def fold_of(clips: list[StoredClip]) -> Fold:
    """FOLD, of which Eve is no part."""
    return by_clip(FOLD, [clip for clip in clips if clip.group != "Eve"])


def test_a_fold_whose_parts_share_nothing_is_trained() -> None:
    clips = [clip_of(s, f"{s}{i}") for s in ("Ann", "Bob", "Cem", "Dee") for i in "12"]
    refuse_leaks(fold_of(clips), clips)


def test_a_subject_in_two_parts_is_a_leak() -> None:
    clips = [clip_of(s, f"{s}{i}") for s in ("Ann", "Bob", "Cem", "Dee") for i in "12"]
    fold = fold_of(clips)
    fold.parts["BobBob2"] = "validation"
    with pytest.raises(ValueError, match=r"fold 2 .* subject Bob is in train and in validation"):
        refuse_leaks(fold, clips)


@pytest.mark.parametrize(("seen", "part"), [("Bob", "train"), ("Cem", "validation")])
def test_the_same_pictures_in_two_parts_are_a_leak_that_names_both(seen: str, part: str) -> None:
    clips = [clip_of("Ann", "1"), clip_of(seen, "x"), clip_of("Dee", "2"), clip_of("Dee", "x")]
    with pytest.raises(
        ValueError,
        match=rf"{seen}/x\.mp4 of subject {seen} \({part}\) and Dee/x\.mp4 of subject Dee \(test\)",
    ):
        refuse_leaks(fold_of(clips), clips)


def test_the_same_pictures_inside_one_part_are_no_leak() -> None:
    clips = [clip_of("Ann", "x"), clip_of("Bob", "x"), clip_of("Dee", "y")]
    refuse_leaks(fold_of(clips), clips)


def test_pictures_of_people_outside_the_fold_are_no_leak() -> None:
    clips = [clip_of("Eve", "x"), clip_of("Dee", "x"), clip_of("Eve", "y")]
    refuse_leaks(fold_of(clips), clips)
