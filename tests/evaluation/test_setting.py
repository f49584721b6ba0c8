from dataclasses import replace

import pandas as pd
import pytest
from small import setting

from pipeline.common.clips import StoredClip
from pipeline.common.encoder_weights import History
from pipeline.evaluation.setting import Coverage, Setting, coverage

CLASSES = ["happy", "sad"]
PART = Coverage(clips=84, all_clips=210, subjects=6, all_subjects=15, folds=[1, 2], all_folds=5)
WHOLE = Coverage(
    clips=210, all_clips=210, subjects=15, all_subjects=15, folds=[1, 2, 3], all_folds=3
)


@pytest.fixture
def clips() -> list[StoredClip]:
    """A happy and a sad clip of each of three people."""
    return [
        StoredClip(f"{name}_{label}", f"{name}_{label}.mp4", group=name, label=label)
        for name in ("Ann", "Bob", "Zoë")
        for label in CLASSES
    ]


def folds_of(clips: list[StoredClip], *subjects: str) -> pd.DataFrame:
    """A fold per subject, by the number of its place."""
    rows = [
        (subjects.index(clip.group) + 1, clip.clip, clip.group, clip.label)
        for clip in clips
        if clip.group in subjects
    ]
    return pd.DataFrame(rows, columns=["fold", "clip", "subject", "actual"])


def sentences(clips: list[StoredClip], **changes: object) -> list[str]:
    return setting(folds_of(clips, "Ann", "Bob", "Zoë"), CLASSES, **changes).sentences()


def test_coverage_counts_what_was_tested_and_what_there_is(clips: list[StoredClip]) -> None:
    found = coverage(folds_of(clips, "Zoë", "Ann"), clips, all_folds=3)
    assert found == Coverage(
        clips=4, all_clips=6, subjects=2, all_subjects=3, folds=[1, 2], all_folds=3
    )
    assert not found.complete
    assert found.in_words() == "4 of 6 clips, 2 of 3 subjects"
    assert coverage(folds_of(clips, "Ann", "Bob", "Zoë"), clips, all_folds=3).complete


def test_where_nobody_is_named_the_page_says_over_what_its_intervals_are(
    clips: list[StoredClip],
) -> None:
    alone = [replace(clip, group=clip.clip, group_kind="clip") for clip in clips]
    table = folds_of(clips, "Ann", "Bob", "Zoë")
    table["subject"] = table["clip"]
    found = coverage(table, alone, all_folds=3)
    assert found.groups == "clips"
    said = setting(table, CLASSES).model_copy(update={"coverage": found}).sentences()[0]
    assert said.startswith("Tested: all 6 clips, each by a model that was trained without it.")
    assert said.endswith("intervals are over clips, not over people.")
    part = coverage(table[table["fold"] == 1], alone, all_folds=3)
    assert part.in_words() == "2 of 6 clips"
    films = [replace(clip, group_kind="film") for clip in clips]
    of_films = coverage(folds_of(clips, "Zoë", "Ann"), films, all_folds=3)
    assert of_films.in_words() == "4 of 6 clips, 2 of 3 films"
    # Where people are named nothing is written about it.
    named = coverage(folds_of(clips, "Ann"), clips, all_folds=3)
    assert "groups" not in named.model_dump(exclude_defaults=True)
    assert found.model_dump(exclude_defaults=True)["groups"] == "clips"


def test_a_clip_that_was_tested_twice_is_refused(clips: list[StoredClip]) -> None:
    table = folds_of(clips, "Ann", "Bob")
    again = table[table["subject"] == "Bob"].assign(fold=3)
    with pytest.raises(ValueError, match="2 clips were tested more than once, such as Bob_happy"):
        coverage(pd.concat([table, again]), clips, all_folds=3)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("clip", "Eve_sad", "Eve_sad was tested as Ann and sad, and the manifest has no such clip"),
        ("subject", "Eve", "Ann_sad was tested as Eve and sad, and the manifest has Ann and sad"),
        (
            "actual",
            "happy",
            "Ann_sad was tested as Ann and happy, and the manifest has Ann and sad: train",
        ),
    ],
)
def test_what_the_manifest_has_otherwise_is_refused(
    clips: list[StoredClip], column: str, value: str, message: str
) -> None:
    table = folds_of(clips, "Ann", "Bob")
    table.loc[table["clip"] == "Ann_sad", column] = value
    with pytest.raises(ValueError, match=message):
        coverage(table, clips, all_folds=3)


def test_a_part_of_the_folds_is_called_a_part(clips: list[StoredClip]) -> None:
    first, *others = sentences(clips, coverage=PART)
    assert first == (
        "**Tested: 84 of 210 clips, 6 of 15 subjects** (folds 1, 2 of 5), each subject by a model "
        "that never saw that person. How the others would come out is not known."
    )
    assert not [word for line in (first, *others) for word in line.split() if word == "all"]
    assert "exactly one fold" not in first


def test_a_fold_whose_clips_are_a_part_of_its_subjects_is_no_whole(
    clips: list[StoredClip],
) -> None:
    table = folds_of(clips, "Ann", "Bob", "Zoë").iloc[:-1]
    found = coverage(table, clips, all_folds=3)
    assert not found.complete
    assert found.in_words() == "5 of 6 clips, 3 of 3 subjects"


def test_all_of_a_data_set_is_called_all(clips: list[StoredClip]) -> None:
    assert sentences(clips, coverage=WHOLE) == [
        "Tested: all 210 clips of all 15 subjects, every subject in exactly one fold, by a model "
        "that never saw that person.",
        "2 classes occur (happy, sad): chance is a UAR of 50.0%.",
    ]


def test_weights_that_tell_nothing_are_said_to(clips: list[StoredClip]) -> None:
    unknown = History(known=False, trained_on="", groups={})
    assert sentences(clips, encoder="mine.pt", history=unknown)[1] == (
        "**Of the encoder's weights (mine.pt) nobody knows what they were trained on**: they may "
        "have seen those who are tested."
    )


def test_whom_an_encoder_has_seen_is_told(clips: list[StoredClip]) -> None:
    history = History(
        known=True, trained_on="Kinetics-400", groups={"ravdess": ["a", "b"], "tiny": ["Eve"]}
    )
    assert sentences(clips, encoder="mine.safetensors", history=history)[1] == (
        "The encoder (mine.safetensors) has seen Kinetics-400, 2 subjects of ravdess, 1 subject "
        "of tiny."
    )
    groups = History(known=True, trained_on="", groups={"ravdess": ["a", "b"]})
    assert sentences(clips, history=groups)[1] == (
        "The encoder (from_scratch) has seen 2 subjects of ravdess."
    )


def test_an_encoder_that_has_seen_who_is_tested_marks_every_page(clips: list[StoredClip]) -> None:
    history = History(known=True, trained_on="", groups={"tiny": ["Ann", "Bob", "Eve"]})
    tested, seen, *_ = sentences(clips, encoder="mine.safetensors", history=history, seen=2)
    assert tested.endswith("exactly one fold, by a model fine-tuned without that person.")
    assert seen == (
        "**The encoder (mine.safetensors) has seen 2 of the 3 subjects that are tested**: the "
        "numbers are too good for people whom it has not met. It has seen 3 subjects of tiny."
    )


def test_classes_that_do_not_occur_are_named_and_chance_is_that_of_the_others(
    clips: list[StoredClip],
) -> None:
    found = setting(folds_of(clips, "Ann"), ["fear", "happy", "angry", "sad"])
    assert found.occurring == CLASSES
    assert found.sentences()[1:] == [
        "2 classes occur (happy, sad): chance is a UAR of 50.0%.",
        "No clip of fear, angry was tested: UAR is over the 2 other classes, and chance is that "
        "of these.",
    ]


def test_classes_that_a_part_of_a_fold_lacks_are_named(clips: list[StoredClip]) -> None:
    lacking = {1: {"validation": ["happy"], "test": ["happy", "sad"]}, 3: {"validation": ["sad"]}}
    assert sentences(clips, lacking=lacking)[-1] == (
        "Without a clip of a class: validation of fold 1 (happy); test of fold 1 (happy, sad); "
        "validation of fold 3 (sad). A UAR there is over the others."
    )


def test_a_line_has_all_that_is_chosen(clips: list[StoredClip]) -> None:
    one = setting(folds_of(clips, "Ann"), CLASSES, encoder="mae-base", protocol="loso")
    assert one.in_a_line() == ("Model small, recipe quick, encoder mae-base, protocol loso, seed 7")
    assert one.with_seeds([7, 8]).in_a_line().endswith("protocol loso, seeds 7, 8")


def test_of_several_seeds_the_folds_are_not_those_of_one(clips: list[StoredClip]) -> None:
    one = setting(folds_of(clips, "Ann"), CLASSES, lacking={1: {"validation": ["sad"]}})
    more = one.with_seeds([1, 2])
    assert more.lacking == {}
    assert more.seeds == [1, 2]
    assert more.model_copy(update={"lacking": one.lacking, "seeds": [7]}) == one


def test_of_a_single_seed_the_classes_that_a_fold_lacks_stay_named(
    clips: list[StoredClip],
) -> None:
    one = setting(folds_of(clips, "Ann"), CLASSES, lacking={1: {"validation": ["sad"]}})
    assert one.with_seeds([7]).sentences() == one.sentences()


def test_a_number_is_traced_back_by_the_files_of_its_data_set(clips: list[StoredClip]) -> None:
    trace = setting(folds_of(clips, "Ann"), CLASSES, dataset="ravdess").trace()
    assert "`data/predictions/ravdess.parquet`" in trace
    assert "`data/shards/ravdess/clips.parquet`" in trace


def test_a_setting_is_the_same_after_json(clips: list[StoredClip]) -> None:
    history = History(known=True, trained_on="", groups={"tiny": ["Eve"]})
    lacking = {2: {"validation": ["sad"]}}
    one = setting(folds_of(clips, "Ann"), CLASSES, history=history, coverage=PART, lacking=lacking)
    assert Setting.model_validate_json(one.model_dump_json()) == one
