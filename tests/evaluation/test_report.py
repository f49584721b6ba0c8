import re
from base64 import b64encode
from hashlib import sha256
from math import sqrt
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pandas as pd
import pytest
from small import baselines, setting

from pipeline.common.encoder_weights import History
from pipeline.evaluation.report import confidently_wrong, render
from pipeline.evaluation.setting import Coverage, Setting
from pipeline.evaluation.statistics import subject_confusions, subject_intervals

CLASSES = ["angry", "sad", "fear"]
# Fold, clip, subject, true class, predicted class, and the probabilities. Nobody shows fear.
ROWS = [
    (1, "a0", "Ann", "angry", "angry", 0.82, 0.1, 0.08),
    (1, "a1", "Ann", "angry", "sad", 0.3, 0.62, 0.08),
    (1, "a2", "Ann", "sad", "sad", 0.3, 0.7, 0),
    (1, "b0", "Bob", "angry", "angry", 0.9, 0.1, 0),
    (1, "b1", "Bob", "sad", "angry", 0.95, 0.05, 0),
    (2, "z0", "Zoë", "angry", "fear", 0.1, 0.14, 0.76),
    (2, "z1", "Zoë", "sad", "sad", 0.18, 0.82, 0),
    (2, "z2", "Zoë", "sad", "angry", 0.62, 0.38, 0),
    (2, "z3", "Zoë", "sad", "sad", 0.1, 0.9, 0),
]
ATTACK = "<script>alert(1)</script>"


def predictions_of(classes: list[str], rows: list[tuple[object, ...]]) -> pd.DataFrame:
    columns = ["fold", "clip", "subject", "actual", "predicted"]
    table = pd.DataFrame(rows, columns=[*columns, *(f"probability_{name}" for name in classes)])
    first = table["fold"] == 1
    return table.assign(
        box_iou=np.where(first, 0.5, 0.8),
        landmark_error=np.where(first, 0.1, 0.2),
        interocular_error=np.where(first, 0.2, 0.4),
    )


@pytest.fixture
def predictions() -> pd.DataFrame:
    return predictions_of(CLASSES, [*ROWS])


def histories() -> dict[int, pd.DataFrame]:
    line = {
        "epoch": [1, 2],
        "train_expression_loss": [1.1, 0.9],
        "validation_expression_loss": [1.1, 1.0],
        "validation_uar": [0.3, 0.4],
    }
    return {1: pd.DataFrame(line), 2: pd.DataFrame(line)}


def page(
    predictions: pd.DataFrame, classes: list[str] = CLASSES, found: Setting | None = None
) -> str:
    return render(
        "cascaded vit",
        found or setting(predictions, classes),
        predictions,
        baselines(predictions, classes),
        histories(),
        confidently_wrong(predictions, classes, num_clips=12),
        pictures=None,
    )


def parsed(html: str) -> Element:
    """The page is XML as well."""
    return ElementTree.fromstring(html)


def text(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def by_id(html: str, name: str) -> Element:
    (found,) = (element for element in parsed(html).iter() if element.get("id") == name)
    return found


def table(html: str, section: str) -> list[list[str]]:
    rows = by_id(html, section).iterfind(".//tbody/tr")
    return [[text(cell) for cell in row] for row in rows]


def listed(html: str) -> list[str]:
    return [text(item) for item in by_id(html, "wrong").iterfind(".//li")]


def test_the_heading_says_what_was_trained_and_tested(predictions: pd.DataFrame) -> None:
    (header,) = parsed(page(predictions)).iterfind(".//header")
    assert text(header).startswith(
        "cascaded vit on tiny Model small, recipe quick, encoder from_scratch, protocol paper, "
        "seed 7: 9 clips of 3 subjects in 2 folds."
    )


def test_names_keep_their_letters_in_the_heading(predictions: pd.DataFrame) -> None:
    html = page(predictions, found=setting(predictions, CLASSES, encoder="ViT-L_K400.pth"))
    (header,) = parsed(html).iterfind(".//header")
    assert "Model small, recipe quick, encoder ViT-L_K400.pth, protocol" in text(header)


def test_what_the_numbers_rest_on_stands_beside_the_scores(predictions: pd.DataFrame) -> None:
    part = Coverage(clips=9, all_clips=30, subjects=3, all_subjects=10, folds=[1, 2], all_folds=7)
    found = setting(
        predictions,
        CLASSES,
        coverage=part,
        history=History(known=False, trained_on="", groups={}),
        lacking={1: {"test": ["fear"]}},
    )
    shown = text(by_id(page(predictions, found=found), "scores"))
    assert "Tested: 9 of 30 clips, 3 of 10 subjects (folds 1, 2 of 7)" in shown
    assert "nobody knows what they were trained on" in shown
    assert "2 classes occur (angry, sad): chance is a UAR of 50.0%." in shown
    assert "No clip of fear was tested: UAR is over the 2 other classes" in shown
    assert "Without a clip of a class: test of fold 1 (fear)." in shown
    assert "data/predictions/tiny.parquet" in shown
    # Marks of Markdown are not for a browser.
    assert "*" not in shown
    assert "`" not in shown
    assert "Tested: all 9 clips of all 3 subjects" in text(by_id(page(predictions), "scores"))


def test_the_best_epochs_on_test_are_shown_with_their_gap(predictions: pd.DataFrame) -> None:
    best = predictions.assign(predicted_optimistic=predictions["actual"])
    html = page(best)
    assert text(by_id(html, "uar-optimistic")) == "100.00% optimistic; see below"
    shown = text(by_id(html, "scores"))
    assert "Best epoch on test is optimistic" in shown
    assert "it is 100.00%, +45.0 points beside the 55.00% of the epochs that validation" in shown
    assert text(by_id(html, "uar")).startswith("55.00%")
    without = page(predictions)
    assert 'id="uar-optimistic"' not in without
    assert "est epoch on test" not in without


def test_the_scores_are_those_computed_by_hand(predictions: pd.DataFrame) -> None:
    html = page(predictions)
    # Recalls 2/4 and 3/5; precisions 2/4 and 3/4.
    assert text(by_id(html, "uar")).startswith("55.00%")
    assert text(by_id(html, "war")).startswith("55.56%")
    f1 = (1 / 2 + 2 * 3 / (5 + 4)) / 2
    assert text(by_id(html, "macro-f1")) == f"{f1:.2%}" == "58.33%"
    # UAR of the folds: (2/3 + 1/2) / 2 and (0 + 2/3) / 2; WAR: 3/5 and 2/4.
    spread = (7 / 12 - 1 / 3) / sqrt(2)
    assert text(by_id(html, "uar-over-folds")) == f"45.83% ± {spread:.2%}"
    assert text(by_id(html, "war-over-folds")) == f"55.00% ± {0.1 / sqrt(2):.2%}"
    # Two clips at 0.62 and one each at 0.76 and 0.95 are wrong; 0.7, 0.82 and 0.9 twice are right.
    gaps = 2 * 0.62 + (1 - 0.7) + 0.76 + (2 - 2 * 0.82) + (2 - 2 * 0.9) + 0.95
    assert text(by_id(html, "calibration-error")) == f"{gaps / 9:.2%} 15 bins"
    assert text(by_id(html, "box-iou")).startswith(f"{(5 * 0.5 + 4 * 0.8) / 9:.3f}")
    assert text(by_id(html, "landmark-error")) == (
        f"{(5 * 0.1 + 4 * 0.2) / 9:.3f} sizes of the face's box; median 0.100"
    )


def test_the_intervals_are_those_over_subjects() -> None:
    rows = [
        (1, f"{clip}{i}", f"{subject}{i}", actual, ("fear" if i == 3 else predicted), *p)
        for i in range(4)
        for _, clip, subject, actual, predicted, *p in ROWS
    ]
    predictions = predictions_of(CLASSES, rows)
    labels, predicted = (
        np.array([CLASSES.index(name) for name in predictions[column]])
        for column in ("actual", "predicted")
    )
    counts = subject_confusions(labels, predicted, predictions["subject"], 3)
    intervals = subject_intervals(counts[None], num_resamples=10_000, seed=1)
    for name, interval in zip(("uar", "war"), intervals, strict=True):
        shown = text(by_id(page(predictions), name))
        assert shown.endswith(f"95%: {interval.low:.2%} to {interval.high:.2%}")


def test_one_subject_in_one_fold_has_neither_an_interval_nor_a_deviation() -> None:
    html = page(predictions_of(CLASSES, [*ROWS[:3]]))
    assert text(by_id(html, "uar")) == "75.00% no interval: it takes 10 subjects, and here are 1"
    assert text(by_id(html, "uar-over-folds")) == "75.00% (one fold)"


def test_baselines_stand_beside_the_structure_with_a_sentence(predictions: pd.DataFrame) -> None:
    html = page(predictions)
    assert table(html, "baselines")[0][:2] == ["cascaded vit", "55.00%"]
    assert [row[0] for row in table(html, "baselines")[1:]] == [
        "linear model",
        "majority class",
        "chance",
    ]
    # The linear model of this test is always right.
    assert table(html, "baselines")[1][1] == "100.00%"
    assert table(html, "baselines")[3][1] == "50.00%"
    shown = text(by_id(html, "baselines"))
    assert "cascaded vit does not beat the linear model: -45.0 points of UAR" in shown


def test_a_fold_that_stayed_at_chance_gets_advice(predictions: pd.DataFrame) -> None:
    # Two classes occur, and a UAR of 0.3 and 0.4 is below their chance.
    shown = text(by_id(page(predictions), "baselines"))
    assert "Fold 1: in 2 of 2 epochs the validation was at chance (UAR 50%)." in shown


def test_every_fold_has_its_scores(predictions: pd.DataFrame) -> None:
    assert table(page(predictions), "folds") == [
        ["1", "5", "2", "58.33%", "60.00%", "0.500", "0.100"],
        ["2", "4", "1", "33.33%", "50.00%", "0.800", "0.200"],
    ]


def test_a_class_without_clips_has_no_recall(predictions: pd.DataFrame) -> None:
    assert table(page(predictions), "classes") == [
        ["angry", "4", "50.00%", "50.00%", "50.00%"],
        ["sad", "5", "60.00%", "75.00%", "66.67%"],
        ["fear", "0", "-", "0.00%", "-"],
    ]
    assert "no clips" in text(by_id(page(predictions), "classes"))


def test_a_class_that_is_never_predicted_has_no_precision(predictions: pd.DataFrame) -> None:
    never = predictions.assign(predicted="sad")
    assert table(page(never), "classes")[0] == ["angry", "4", "0.00%", "-", "0.00%"]


def test_subjects_are_listed_from_the_worst_to_the_best(predictions: pd.DataFrame) -> None:
    assert table(page(predictions), "subjects") == [
        ["Zoë", "2", "4", "33.33%", "50.00%"],
        ["Bob", "1", "2", "50.00%", "50.00%"],
        ["Ann", "1", "3", "75.00%", "66.67%"],
    ]


def test_the_most_confidently_wrong_come_first_and_equals_by_name(
    predictions: pd.DataFrame,
) -> None:
    assert listed(page(predictions)) == [
        "sad taken for angry at 95.0% Clip b1, subject Bob, fold 1; sad at 5.0%.",
        "angry taken for fear at 76.0% Clip z0, subject Zoë, fold 2; angry at 10.0%.",
        "angry taken for sad at 62.0% Clip a1, subject Ann, fold 1; angry at 30.0%.",
        "sad taken for angry at 62.0% Clip z2, subject Zoë, fold 2; sad at 38.0%.",
    ]
    assert [row.clip for row in confidently_wrong(predictions, CLASSES, 2)] == ["b1", "z0"]


def test_a_model_without_a_miss_has_an_empty_list(predictions: pd.DataFrame) -> None:
    right = predictions[predictions["actual"] == predictions["predicted"]]
    assert listed(page(right)) == ["None is listed."]


def test_the_confusion_shows_counts_and_shares(predictions: pd.DataFrame) -> None:
    (drawing,) = by_id(page(predictions), "confusion").iterfind(".//svg")
    words = [text(element) for element in drawing.iter("text")]
    cells = words[words.index("true") + 1 :]
    assert cells == ["2", "50%", "1", "25%", "1", "25%", "2", "40%", "3", "60%", *"0000"]


def test_a_structure_without_boxes_leaves_their_scores_out(predictions: pd.DataFrame) -> None:
    nothing = dict.fromkeys(("box_iou", "landmark_error", "interocular_error"), np.nan)
    html = page(predictions.assign(**nothing))
    assert 'id="box-iou"' not in html
    assert 'id="landmark-error"' not in html
    assert table(html, "folds")[0] == ["1", "5", "2", "58.33%", "60.00%", "-", "-"]


def test_names_out_of_strangers_tables_are_text_and_nothing_else() -> None:
    classes = ["angry", ATTACK]
    rows: list[tuple[object, ...]] = [
        (1, f"clip {ATTACK}", f"subject {ATTACK}", "angry", ATTACK, 0.1, 0.9),
        (2, "b", "Bob & Co. $x_1$", ATTACK, "angry", 0.8, 0.2),
    ]
    table_of_attacks = predictions_of(classes, rows)
    found = setting(
        table_of_attacks,
        classes,
        encoder=ATTACK,
        history=History(known=True, trained_on=ATTACK, groups={}),
        lacking={1: {"validation": [ATTACK]}},
    )
    html = page(table_of_attacks, classes, found)
    assert not list(parsed(html).iter("script"))
    assert "<script" not in html
    assert listed(html)[0] == (
        f"angry taken for {ATTACK} at 90.0% "
        f"Clip clip {ATTACK}, subject subject {ATTACK}, fold 1; angry at 10.0%."
    )
    assert [row[0] for row in table(html, "classes")] == classes
    assert [row[0] for row in table(html, "subjects")] == [
        "Bob & Co. $x_1$",
        f"subject {ATTACK}",
    ]
    words = [text(element) for element in by_id(html, "confusion").iter("text")]
    assert words.count(ATTACK) == 2
    shown = text(by_id(html, "scores"))
    assert f"The encoder ({ATTACK}) has seen {ATTACK}." in shown
    assert f"2 classes occur (angry, {ATTACK})" in shown
    assert f"validation of fold 1 ({ATTACK})" in shown


def test_a_page_without_frames_holds_no_pixel_and_says_how_to_get_them(
    predictions: pd.DataFrame,
) -> None:
    html = page(predictions)
    assert "data:image" not in html
    assert not list(parsed(html).iter("img"))
    assert "report.frames: true" in text(by_id(html, "wrong"))


def test_the_page_asks_for_nothing_and_its_policy_allows_its_own_style_only(
    predictions: pd.DataFrame,
) -> None:
    html = page(predictions)
    # Namespaces apart, which the page does not need, there is no address in it.
    assert "//" not in html
    assert not re.findall(r"url\((?!#)|@import|\sstyle=|\son\w+=|<link|<base|<iframe", html)
    (style,) = parsed(html).iter("style")
    digest = b64encode(sha256((style.text or "").encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_every_entry_of_the_contents_leads_to_a_section(predictions: pd.DataFrame) -> None:
    html = page(predictions)
    (contents,) = parsed(html).iter("nav")
    links = {link.get("href") for link in contents.iter("a")}
    assert links == {f"#{section.get('id')}" for section in parsed(html).iter("section")}


def test_no_two_elements_share_an_id(predictions: pd.DataFrame) -> None:
    names = [element.get("id") for element in parsed(page(predictions)).iter()]
    named = [name for name in names if name is not None]
    assert len(named) == len(set(named))


def test_equal_predictions_give_equal_pages(predictions: pd.DataFrame) -> None:
    assert page(predictions) == page(predictions)
