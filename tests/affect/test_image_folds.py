from collections import Counter
from pathlib import Path

import pytest

from pipeline.affect.image_folds import (
    ImageFold,
    SplitSettings,
    make_folds,
    read_fold,
    refuse_leaks,
    refuse_seen,
    write_folds,
)
from pipeline.affect.labels import LabelledImage, Labels
from pipeline.common.encoder_weights import History

FOLDS = SplitSettings(protocol="folds", num_folds=3, validation_fraction=0.25, seed=1)
OFFICIAL = FOLDS.model_copy(update={"protocol": "official"})


def images(num_groups: int = 12, parts: tuple[str, ...] = ("",)) -> list[LabelledImage]:
    """Four of each group, two of them happy."""
    return [
        LabelledImage(
            f"g{group}_{i}",
            f"g{group}/{i}.jpg",
            f"g{group}",
            parts[group % len(parts)],
            Labels(expression="happy" if i < 2 else "sad"),
        )
        for group in range(num_groups)
        for i in range(4)
    ]


def test_every_group_is_tested_once_and_is_in_one_part_of_a_fold() -> None:
    found = make_folds(images(), FOLDS)
    tested = Counter(group for fold in found for group in fold.groups(images(), "test"))
    assert tested == {f"g{group}": 1 for group in range(12)}
    for fold in found:
        parts = [set(fold.groups(images(), part)) for part in ("train", "validation", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 12
        # A quarter of the eight that are not tested.
        assert list(map(len, parts)) == [6, 2, 4]


def test_the_sets_own_part_is_tested_and_its_training_groups_choose_the_epoch() -> None:
    (fold,) = make_folds(images(parts=("train", "train", "validation")), OFFICIAL)
    assert fold.groups(images(), "test") == ["g11", "g2", "g5", "g8"]
    assert len(fold.groups(images(), "validation")) == 2
    # Where there is a test part, the validation part is for training and validation.
    (fold,) = make_folds(images(parts=("train", "validation", "test")), OFFICIAL)
    assert fold.groups(images(), "test") == ["g11", "g2", "g5", "g8"]


@pytest.mark.parametrize(
    ("found", "settings", "message"),
    [
        (images(3), FOLDS, "3 group.s. cannot make 3 folds"),
        (images(), OFFICIAL, "take protocol: folds"),
        (images(2, ("train", "test")), OFFICIAL, "has 1 group"),
    ],
)
def test_what_cannot_be_split_is_refused(
    found: list[LabelledImage], settings: SplitSettings, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_folds(found, settings)


def test_a_group_in_two_official_parts_is_refused() -> None:
    some = images(parts=("train", "validation"))
    moved = LabelledImage("other", "g1/9.jpg", "g1", "train", Labels(valence=0.5))
    with pytest.raises(ValueError, match=r"1 groups, such as g1, are in the validation part"):
        make_folds([*some, moved], OFFICIAL)


def test_folds_are_read_as_they_were_written(tmp_path: Path) -> None:
    folds = make_folds(images(), FOLDS)
    write_folds(tmp_path / "folds.csv", images(), folds)
    assert [read_fold(tmp_path / "folds.csv", number) for number in (1, 2, 3)] == folds
    with pytest.raises(ValueError, match="folds 1 to 3, not 4"):
        read_fold(tmp_path / "folds.csv", 4)


def test_a_tested_group_that_was_slipped_into_the_training_is_found() -> None:
    fold = make_folds(images(), FOLDS)[0]
    refuse_leaks(fold, images())
    slipped = next(image.id for image in images() if fold.parts[image.id] == "test")
    with pytest.raises(ValueError, match="1 of its 4 tested groups"):
        refuse_leaks(ImageFold(1, {**fold.parts, slipped: "train"}), images())


def test_weights_that_have_seen_who_is_tested_are_refused() -> None:
    fold = make_folds(images(), FOLDS)[0]
    tested, trained = (fold.groups(images(), part) for part in ("test", "train"))
    others = History.empty().with_groups("set", trained).with_groups("another set", tested)
    refuse_seen(others, "prior", "set", fold, images())
    with pytest.raises(ValueError, match=rf"its cnn has seen 1 of the 4 .* \({tested[0]}\)"):
        refuse_seen(others.with_groups("set", tested[:1]), "cnn", "set", fold, images())
