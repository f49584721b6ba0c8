from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from small_in_the_wild import (
    CLIPS,
    PLAIN,
    WINDOWS,
    WORDS,
    list_path,
    rows_of,
    write_folds,
    write_list,
)

from pipeline.common.clips import Clip, StoredClip
from pipeline.common.sources import Videos
from pipeline.datasets import dfew, ferv39k, mafw
from pipeline.feed.order import epoch_order
from pipeline.folds.official import official_folds
from pipeline.scores.metrics import recalls

MODULES: dict[str, ModuleType] = {"dfew": dfew, "mafw": mafw, "ferv39k": ferv39k}
MORE = {"mafw": {"labels": "single"}}


def collect(dataset: str, root: Path, **changes: object) -> Videos:
    """What the download stage makes of a copy; clips are where a copy has them."""
    (root / CLIPS[dataset]).mkdir(parents=True, exist_ok=True)
    module = MODULES[dataset]
    settings = {
        "classes": list(module.LABELS),
        "source": root,
        "clips": CLIPS[dataset],
        "accept_licence": True,
    }
    settings |= MORE.get(dataset, {}) | changes
    videos: Videos = module.collect(module.Settings.model_validate(settings), root, root)
    return videos


def stored(clips: Sequence[Clip]) -> list[StoredClip]:
    """As if all of them were there."""
    return [
        StoredClip(c.clip, c.path, c.subject, c.label, split=c.split, group_kind=c.group_kind)
        for c in clips
    ]


def published_counts(dataset: str) -> dict[str, int]:
    """By the word of the lists; of FERV39k's training part, which has its own, nothing is known."""
    return dict(zip(WORDS[dataset], MODULES[dataset].LABELS.values(), strict=True))


def test_the_published_numbers() -> None:
    assert list(dfew.LABELS.items()) == [
        ("happy", 2445),
        ("sad", 1894),
        ("neutral", 2669),
        ("angry", 2173),
        ("surprised", 1469),
        ("disgust", 145),
        ("fear", 902),
    ]
    assert sum(dfew.LABELS.values()) == sum(dfew.TEST_SIZES) == 11697
    assert list(mafw.LABELS.items()) == [
        ("angry", 1390),
        ("disgust", 639),
        ("fear", 625),
        ("happy", 1242),
        ("neutral", 1138),
        ("sad", 1470),
        ("surprised", 1072),
        ("contempt", 236),
        ("anxiety", 916),
        ("helplessness", 262),
        ("disappointment", 182),
    ]
    assert sum(mafw.LABELS.values()) == sum(mafw.TEST_SIZES) == 9172
    assert list(ferv39k.LABELS) == list(dfew.LABELS)
    assert list(ferv39k.LABELS.values()) == [1473, 1393, 1958, 1487, 638, 467, 431]
    assert sum(ferv39k.LABELS.values()) == ferv39k.SIZES[1, "test"] == 7847


@pytest.mark.parametrize(
    ("dataset", "sizes"),
    [("dfew", [2341, 2341, 2340, 2339, 2336]), ("mafw", [1839, 1837, 1833, 1832, 1831])],
)
def test_lists_of_full_size_give_the_published_folds(
    dataset: str, sizes: list[int], tmp_path: Path
) -> None:
    write_folds(tmp_path, dataset, rows_of(dataset, published_counts(dataset)), sizes)
    videos = collect(dataset, tmp_path)
    assert videos.remarks == []
    assert {clip.group_kind for clip in videos.clips} == {"clip"}
    assert Counter(clip.label for clip in videos.clips) == MODULES[dataset].LABELS
    folds = official_folds(stored(videos.clips), validation_fraction=0.2, seed=1)
    assert [len(fold.test) for fold in folds] == sizes
    tested = [name for fold in folds for name in fold.test]
    assert sorted(tested) == [clip.clip for clip in videos.clips]
    for fold in folds:
        assert len(fold.validation) == round(0.2 * (sum(sizes) - len(fold.test)))


def test_lists_of_full_size_give_the_one_fold_of_ferv39k(tmp_path: Path) -> None:
    counts = published_counts("ferv39k")
    test = rows_of("ferv39k", counts)
    # Three times as many to train on, and the rest of the 31,088.
    more = {word: 3 * number for word, number in counts.items()} | {"Sad": 3 * 1393 + 7547}
    train = [(f"{name}t", word) for name, word in rows_of("ferv39k", more)]
    write_list(tmp_path, "ferv39k", 1, "train", train, WINDOWS)
    write_list(tmp_path, "ferv39k", 1, "test", test, WINDOWS)
    videos = collect("ferv39k", tmp_path)
    assert videos.remarks == []
    assert len(videos.clips) == 38935
    (fold,) = official_folds(stored(videos.clips), validation_fraction=0.2, seed=1)
    assert (len(fold.train) + len(fold.validation), len(fold.test)) == (31088, 7847)


@pytest.mark.parametrize("dataset", ["dfew", "mafw", "ferv39k"])
def test_windows_line_ends_and_a_byte_order_mark_are_no_content(
    dataset: str, tmp_path: Path
) -> None:
    rows = rows_of(dataset, dict.fromkeys(WORDS[dataset], 2))
    sizes = [len(rows) // 5] * 5 if dataset != "ferv39k" else [4]
    for name, text in (("unix", PLAIN), ("windows", WINDOWS)):
        write_folds(tmp_path / name, dataset, rows, sizes, text)
    unix, windows = (collect(dataset, tmp_path / name) for name in ("unix", "windows"))
    assert [(c.clip, c.label, c.split) for c in unix.clips] == [
        (c.clip, c.label, c.split) for c in windows.clips
    ]
    assert unix.remarks == windows.remarks != []


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A DFEW of ten clips, two in the test part of each fold; one of them is not there."""
    rows = [(f"{i:05}", "1267123411"[i - 1]) for i in range(1, 11)]
    write_folds(tmp_path, "dfew", rows, [2] * 5)
    for name, _ in rows[1:9]:
        (tmp_path / f"Clip/jpg_256/{name}").mkdir(parents=True)
    (tmp_path / "Clip/jpg_256/00010.mp4").touch()
    return tmp_path


def edit(root: Path, dataset: str, fold: int, part: str, old: str, new: str) -> None:
    path = root / list_path(dataset, fold, part)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_listed_clip_is_a_folder_or_a_video_or_is_refused_as_missing(small: Path) -> None:
    clips = {clip.clip: clip for clip in collect("dfew", small).clips}
    assert len(clips) == 10
    assert clips["00002"].path == "Clip/jpg_256/00002"
    assert clips["00010"].path == "Clip/jpg_256/00010.mp4"
    assert {name: clip.reason for name, clip in clips.items() if clip.reason} == {
        "00001": "missing"
    }
    assert "00001 (test(single-labeled)/set_1.csv, line 2)" in clips["00001"].message
    assert [clips[name].label for name in ("00001", "00003", "00004")] == [
        "happy",
        "disgust",
        "fear",
    ]
    assert clips["00003"].split == "train test train train train"


def test_other_numbers_than_the_published_ones_are_remarks(small: Path) -> None:
    remarks = collect("dfew", small).remarks
    assert "test of fold 1 lists 2 clips; 2341 are published" in remarks
    assert "train of fold 5 lists 8 clips; 9361 are published" in remarks
    assert "disgust: 1 clips are listed; 145 are published" in remarks
    edit(small, "dfew", 3, "train", "00001,1\n", "00001,1\n00001,1\n")
    place = "train(single-labeled)/set_3.csv"
    repeated = f"{place}, line 3 repeats {place}, line 2: 00001"
    assert repeated in collect("dfew", small).remarks


def test_contradictions_refuse_a_clip_and_name_the_lines(small: Path) -> None:
    edit(small, "dfew", 2, "train", "00010,1", "00010,5")
    edit(small, "dfew", 4, "train", "00002,2\n", "00002,2\n00007,3\n")
    edit(small, "dfew", 5, "test", "00009,1", "00009,1\n00004,7")
    edit(small, "dfew", 5, "train", "00004,7\n", "")
    clips = {clip.clip: clip for clip in collect("dfew", small).clips if clip.reason}
    test, train = (f"{part}(single-labeled)/set_" for part in ("test", "train"))
    assert {name: clip.reason for name, clip in clips.items()} == {
        "00001": "missing",
        "00004": "two_tests",
        "00007": "two_parts",
        "00010": "contradiction",
    }
    assert f"two parts of fold 4, by {train}4.csv, line 4 and {test}4.csv, line 2" in (
        clips["00007"].message
    )
    assert f"happy in {train}1.csv, line 9, and surprised in {train}2.csv, line 9" in (
        clips["00010"].message
    )
    assert f"by {test}2.csv, line 3 and {test}5.csv, line 3" in clips["00004"].message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("00001,1", "00001,0", r"set_2.csv, line 2: label 0 is none of 1 to 7"),
        ("00001,1", "00001;1", r"set_2.csv, line 2: '00001;1' is no row such as 00001,1"),
        ("video_name,label\n", "", r"set_2.csv, line 1: '00001,1' is not the header"),
    ],
)
def test_a_list_of_another_form_is_an_error_that_names_the_line(
    small: Path, old: str, new: str, message: str
) -> None:
    edit(small, "dfew", 2, "train", old, new)
    with pytest.raises(ValueError, match=message):
        collect("dfew", small)


def test_what_is_not_there_is_an_error_that_says_what_is(small: Path) -> None:
    with pytest.raises(ValueError, match=r"clips is Clip/jpg_224, .* Clip, Clip/jpg_256, Emo"):
        collect("dfew", small, clips="Clip/jpg_224")
    (small / list_path("dfew", 4, "test")).unlink()
    with pytest.raises(ValueError, match=r"no test\(single-labeled\)/set_4.csv in "):
        collect("dfew", small)
    with pytest.raises(ValueError, match=r"name the folder .* in datasets.dfew.source"):
        collect("dfew", small, source=None)


@pytest.mark.parametrize("dataset", ["mafw", "ferv39k"])
def test_numbers_as_labels_are_refused_because_every_code_has_another_order(
    dataset: str, tmp_path: Path
) -> None:
    rows = rows_of(dataset, dict.fromkeys(WORDS[dataset], 2))
    for name, order in (("one", WORDS[dataset]), ("two", sorted(WORDS[dataset]))):
        numbered = [(clip, str(order.index(word))) for clip, word in rows]
        write_folds(tmp_path / name, dataset, numbered, [2] * (1 if dataset == "ferv39k" else 5))
        with pytest.raises(ValueError, match=r"line 1: label \d+ is a number, and no order"):
            collect(dataset, tmp_path / name)


def test_compound_labels_are_sets_of_words_and_their_classes_are_named(tmp_path: Path) -> None:
    assert mafw.read_label("sadness, helplessness", "") == "sad_helplessness"
    assert mafw.read_label("Helplessness_Sadness", "") == "sad_helplessness"
    with pytest.raises(ValueError, match="line 3: boredom is none of angry"):
        mafw.read_label("boredom", "line 3")
    for fold in range(1, 6):
        for part, clip in (("train", 1), ("test", 10 * fold)):
            path = tmp_path / f"lists/compound/no_caption/set_{fold}/{part}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            label = "anger" if part == "train" else "anxiety_anger"
            path.write_text(f"{clip:05}.mp4 {label}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"'datasets.mafw.classes=\[angry,angry_anxiety\]'"):
        collect("mafw", tmp_path, labels="compound")
    classes = ["angry", "angry_anxiety"]
    videos = collect("mafw", tmp_path, labels="compound", classes=classes)
    assert Counter(clip.label for clip in videos.clips) == {"angry": 1, "angry_anxiety": 5}
    assert videos.remarks == [
        "6 clips are listed; 8996 are published",
        "2 classes are listed; 43 are published",
    ]


def test_a_label_that_is_not_the_word_of_the_folder_is_a_remark(tmp_path: Path) -> None:
    rows = [("Drama/Happy/0001", "Happy"), ("Drama/Sad/0001", "Happy"), ("Crime/Fear/0002", "Fear")]
    write_folds(tmp_path, "ferv39k", rows, [1])
    videos = collect("ferv39k", tmp_path)
    assert [clip.clip for clip in videos.clips] == [
        "Crime_Fear_0002",
        "Drama_Happy_0001",
        "Drama_Sad_0001",
    ]
    assert "train_All.csv, line 1: Drama/Sad/0001 is in folder Sad and happy" in videos.remarks
    assert "2 scenes are listed; 22 are published" in videos.remarks


def test_the_recall_of_145_clips_weighs_as_much_as_that_of_2669() -> None:
    truth = np.repeat(np.arange(7), list(dfew.LABELS.values()))
    random = np.random.default_rng(1)
    answers = np.where(random.random(len(truth)) < 0.7, truth, random.integers(0, 7, len(truth)))
    # As a model that never says disgust.
    silent = np.where(answers == 5, 2, answers)
    for predicted in (answers, silent):
        uar = recalls(truth, predicted, 7).uar
        assert uar == pytest.approx(balanced_accuracy_score(truth, predicted))
        # Written out: the mean over the classes of the share that is right.
        shares = [(predicted[truth == label] == label).mean() for label in range(7)]
        assert uar == pytest.approx(np.mean(shares))
    lost = recalls(truth, answers, 7).uar - recalls(truth, silent, 7).uar
    assert lost == pytest.approx((answers[truth == 5] == 5).mean() / 7, abs=0.01)


def test_class_balanced_sampling_draws_disgust_as_often_as_neutral() -> None:
    labels = np.repeat(np.arange(7), list(dfew.LABELS.values()))
    order = epoch_order(labels, seed=1, epoch=1, class_balanced=True)
    assert len(order) == 11697
    assert sorted(np.bincount(labels[order])) == [1671] * 7
    rare = np.bincount(order, minlength=len(labels))[labels == 5]
    # 1671 draws of 145 clips: each eleven times, and 76 of them once more.
    assert sorted(set(rare)) == [11, 12]
    assert (rare == 12).sum() == 1671 - 11 * 145
    plain = epoch_order(labels, seed=1, epoch=1, class_balanced=False)
    assert np.bincount(labels[plain])[5] == 145
