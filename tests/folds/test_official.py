from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.common.clips import CLIP, FILM, StoredClip
from pipeline.folds.folds import (
    PARTS,
    Fold,
    classes_lacking,
    read_folds,
    refuse_leaks,
    write_folds,
)
from pipeline.folds.group_folds import holdout_fold
from pipeline.folds.official import official_folds


def clip(name: str, split: str, label: str = "sad", film: str = "") -> StoredClip:
    kind = FILM if film else CLIP
    return StoredClip(
        name, f"{name}.mp4", film or name, label, split=split, content=name, group_kind=kind
    )


def five_folds(num_clips: int, num_rare: int) -> list[StoredClip]:
    """Clips that are tested in turn in one of five folds; the first ones are of a rare class."""
    return [
        clip(
            f"c{i:03}",
            " ".join("test" if fold == i % 5 else "train" for fold in range(5)),
            "disgust" if i < num_rare else ("happy", "sad")[i % 2],
        )
        for i in range(num_clips)
    ]


def test_every_fold_tests_exactly_the_clips_that_its_list_tests() -> None:
    clips = five_folds(100, 10)
    folds = official_folds(clips, validation_fraction=0.2, seed=1)
    assert [fold.number for fold in folds] == [1, 2, 3, 4, 5]
    for i, fold in enumerate(folds):
        assert fold.test == [f"c{k:03}" for k in range(100) if k % 5 == i]
        assert len(fold.validation) == 16
        assert sorted([*fold.train, *fold.validation, *fold.test]) == [c.group for c in clips]


def test_validation_has_its_share_of_the_rare_class() -> None:
    clips = five_folds(100, 10)
    label = {one.group: one.label for one in clips}
    for fold in official_folds(clips, validation_fraction=0.25, seed=1):
        assert [label[group] for group in fold.validation].count("disgust") == 2


def test_a_list_that_names_validation_is_followed() -> None:
    clips = [clip("a", "train"), clip("b", "train"), clip("c", "validation"), clip("d", "test")]
    (fold,) = official_folds(clips, validation_fraction=0.5, seed=1)
    assert (fold.train, fold.validation, fold.test) == (["a", "b"], ["c"], ["d"])
    assert [fold] == holdout_fold(clips, test_fraction=0.5, validation_fraction=0.5, seed=1)


def test_a_clip_that_no_list_of_a_fold_has_is_in_no_part_of_it(tmp_path: Path) -> None:
    clips = [clip("a", "train test"), clip("b", "- train"), clip("c", "train train")]
    clips += [clip("d", "test train"), clip("e", "test -")]
    folds = official_folds(clips, validation_fraction=0.5, seed=1)
    write_folds(tmp_path / "folds.csv", clips, folds)
    first, second = read_folds(tmp_path / "folds.csv")
    assert set(first.parts) == {"a", "c", "d", "e"}
    assert set(second.parts) == {"a", "b", "c", "d"}
    for fold in (first, second):
        refuse_leaks(fold, clips)


def test_a_film_stays_in_one_part() -> None:
    clips = [clip(f"f{i}_{k}", "train", film=f"f{i}") for i in range(5) for k in range(3)]
    clips += [clip("t", "test", film="t")]
    (fold,) = official_folds(clips, validation_fraction=0.4, seed=1)
    assert sorted(map(len, (fold.train, fold.validation, fold.test))) == [1, 2, 3]
    clips[0] = clip("f0_0", "test", film="f0")
    with pytest.raises(ValueError, match="film f0 is in test and in train of fold 1"):
        official_folds(clips, validation_fraction=0.4, seed=1)


def test_a_class_that_a_part_lacks_is_said_and_stops_nothing() -> None:
    clips = [clip(f"c{i}", "train") for i in range(5)] + [clip("d", "test", "disgust")]
    (fold,) = official_folds(clips, validation_fraction=0.2, seed=1)
    part_of = {group: part for part in PARTS for group in getattr(fold, part)}
    assert len(part_of) == 6
    lacking = classes_lacking(Fold(1, part_of), clips)
    assert lacking == {"train": ["disgust"], "validation": ["disgust"], "test": ["sad"]}


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train", ""], "1 clips have no split"),
        (["train test", "train"], r"c1.mp4 has a part in 1 fold\(s\), and c0.mp4 in 2"),
        (["train", "dev", "test"], "c1.mp4 is in part 'dev'"),
        (["train", "train"], "no clip is in test of fold 1"),
        (["- test", "test train"], "no clip is in train of fold 1"),
        (["train", "test"], "cannot be divided"),
    ],
)
def test_parts_that_make_no_folds_are_an_error_that_says_why(
    splits: list[str], message: str
) -> None:
    clips = [clip(f"c{i}", split) for i, split in enumerate(splits)]
    with pytest.raises(ValueError, match=message):
        official_folds(clips, validation_fraction=0.2, seed=1)


def test_holdout_refuses_parts_in_several_folds() -> None:
    clips = [clip("a", "train test"), clip("b", "test train")]
    with pytest.raises(ValueError, match=r"choose split\.protocol official"):
        holdout_fold(clips, test_fraction=0.2, validation_fraction=0.2, seed=1)


def test_the_same_pictures_in_two_parts_are_refused_by_the_word_of_the_group() -> None:
    clips = [clip("a", "train"), clip("b", "train"), clip("c", "test")]
    (fold,) = official_folds(clips, validation_fraction=0.5, seed=1)
    part_of = {group: part for part in PARTS for group in getattr(fold, part)}
    clips[2] = replace(clips[2], content=clips[0].content)
    with pytest.raises(ValueError, match=r"of clip a .* of clip c .*same pictures; remove one$"):
        refuse_leaks(Fold(1, part_of), clips)
