import numpy as np
import pandas as pd
from small import baselines, setting

from pipeline.common.encoder_weights import History
from pipeline.evaluation.comparison import compare_with_baselines
from pipeline.evaluation.page import markdown
from pipeline.evaluation.setting import Coverage, Setting
from pipeline.evaluation.summary import score_experiment

CLASSES = ["angry", "sad"]


def page(
    predictions: pd.DataFrame, classes: list[str] = CLASSES, found: Setting | None = None
) -> list[str]:
    text = markdown(
        "A title",
        found or setting(predictions, classes),
        predictions,
        score_experiment([predictions], classes),
        compare_with_baselines("stl", predictions, baselines(predictions, classes), classes),
    )
    return text.splitlines()


def cells(lines: list[str], first: str) -> list[str]:
    """The cells of the table row that begins with `first`."""
    (row,) = [line for line in lines if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_page_has_a_row_for_each_fold_and_percentages(predictions: pd.DataFrame) -> None:
    lines = page(predictions)
    assert lines[0] == "# A title"
    assert cells(lines, "1") == ["1", "4", "2", "83.33%", "75.00%", "0.600", "0.200"]
    assert cells(lines, "2") == ["2", "2", "1", "50.00%", "50.00%", "0.850", "0.200"]
    assert cells(lines, "mean")[3:5] == ["66.67%", "62.50%"]
    assert cells(lines, "std")[3:5] == ["23.57%", "17.68%"]
    assert cells(lines, "pooled")[3:5] == ["75.00%", "66.67%"]
    assert "| angry | 4 | 50.00% |" in lines
    assert "| angry | 2 (50%) | 2 (50%) |" in lines
    assert "Macro-F1 66.67%, expected calibration error 8.33%." in lines


def test_a_page_on_clips_without_people_speaks_of_clips(predictions: pd.DataFrame) -> None:
    alone = predictions.assign(subject=predictions["clip"])
    found = setting(alone, CLASSES)
    coverage = found.coverage.model_copy(update={"groups": "clips"})
    lines = page(alone, found=found.model_copy(update={"coverage": coverage}))
    assert cells(lines, "1") == ["1", "4", "83.33%", "75.00%", "0.600", "0.200"]
    assert any("bootstrap over clips" in line for line in lines)
    assert "No interval: it takes 10 clips, and here are 6." in lines
    assert not any("subject" in line for line in lines)


def test_boxes_and_landmarks_have_a_mean_over_the_clips_and_landmarks_a_median(
    predictions: pd.DataFrame,
) -> None:
    lines = page(predictions.assign(landmark_error=[0.1, 0.2, 0.9, np.nan, 0.1, 0.3]))
    assert cells(lines, "all clips, mean") == ["all clips, mean", *[""] * 4, "0.700", "0.320"]
    assert cells(lines, "all clips, median") == ["all clips, median", *[""] * 5, "0.200"]


def test_every_row_of_a_table_has_as_many_cells_as_its_head(
    predictions: pd.DataFrame, with_best_epochs: pd.DataFrame
) -> None:
    for table, columns in ((predictions, 7), (with_best_epochs, 8)):
        widths = [line.count("|") for line in page(table) if line.startswith("|")]
        assert widths == [columns + 1] * 11 + [4] * 6 + [4] * 4 + [4] * 4


def test_a_single_fold_has_no_standard_deviation(predictions: pd.DataFrame) -> None:
    first = predictions[predictions["fold"] == 1]
    assert cells(page(first), "std")[3:5] == ["-", "-"]


def test_few_subjects_have_no_interval_and_the_page_says_why(predictions: pd.DataFrame) -> None:
    ann = predictions[predictions["subject"] == "Ann"]
    assert cells(page(ann), "pooled, 95 % from")[3:5] == ["-", "-"]
    assert "No interval: it takes 10 subjects, and here are 1." in page(ann)


def test_enough_subjects_have_an_interval(predictions: pd.DataFrame) -> None:
    many = pd.concat(
        predictions.assign(**{name: predictions[name] + str(i) for name in ("subject", "clip")})
        for i in range(4)
    )
    lines = page(many)
    uar = score_experiment([many], CLASSES).uar
    assert cells(lines, "pooled, 95 % from")[3] == f"{uar.pooled_low:.2%}"
    assert cells(lines, "pooled, 95 % to")[3] == f"{uar.pooled_high:.2%}"
    assert not [line for line in lines if "No interval" in line]


def test_the_page_shows_what_needs_no_network(predictions: pd.DataFrame) -> None:
    lines = page(predictions)
    assert cells(lines, "linear model")[1:] == ["100.00%", "100.00%"]
    assert cells(lines, "majority class")[1:] == ["50.00%", "66.67%"]
    assert [line for line in lines if line.startswith("**stl does not beat the linear model**")]


def test_classes_without_a_clip_are_named_on_the_page(predictions: pd.DataFrame) -> None:
    more = predictions.assign(probability_fear=0.0, probability_happy=0.0)
    lines = page(more, [*CLASSES, "fear", "happy"])
    assert (
        "No clip of fear, happy was tested: UAR is over the 2 other classes, and chance is that of "
        "these." in lines
    )
    assert cells(lines, "chance")[1] == "50.00%"


def test_a_structure_without_boxes_has_no_scores_for_them(without_boxes: pd.DataFrame) -> None:
    lines = page(without_boxes)
    assert cells(lines, "1") == ["1", "4", "2", "83.33%", "75.00%", "-", "-"]
    assert cells(lines, "all clips, mean")[5:] == ["-", "-"]


def test_what_is_chosen_stands_under_the_title(predictions: pd.DataFrame) -> None:
    assert page(predictions)[2] == (
        "Model small, recipe quick, encoder from_scratch, protocol paper, seed 7."
    )


def test_names_keep_their_letters_under_the_title(predictions: pd.DataFrame) -> None:
    found = setting(predictions, CLASSES, encoder="ViT-L_K400.pth")
    assert "encoder ViT-L_K400.pth, protocol" in page(predictions, found=found)[2]


def test_what_the_numbers_rest_on_stands_above_them(predictions: pd.DataFrame) -> None:
    part = Coverage(clips=6, all_clips=9, subjects=3, all_subjects=4, folds=[1, 2], all_folds=3)
    found = setting(
        predictions,
        CLASSES,
        coverage=part,
        history=History(known=False, trained_on="", groups={}),
        lacking={2: {"validation": ["sad"]}},
    )
    lines = page(predictions, found=found)
    above = lines[: lines.index(next(line for line in lines if line.startswith("|")))]
    assert [line for line in above if "6 of 9 clips, 3 of 4 subjects" in line]
    assert [line for line in above if "nobody knows what they were trained on" in line]
    assert [line for line in above if "validation of fold 2 (sad)" in line]
    assert not [line for line in lines if "all 6 clips" in line or "exactly one fold" in line]


def test_the_page_ends_with_the_way_back_to_the_clips(predictions: pd.DataFrame) -> None:
    last = page(predictions)[-1]
    assert "`data/predictions/tiny.parquet`, a row per tested clip" in last
    assert "`data/shards/tiny/clips.parquet`, whose `path` is the video" in last


def test_the_number_of_the_best_epoch_on_test_is_told_with_its_gap(
    with_best_epochs: pd.DataFrame,
) -> None:
    lines = page(with_best_epochs)
    assert "uar, best epoch on test" in cells(lines, "fold")
    assert cells(lines, "1")[3:6] == ["83.33%", "75.00%", "100.00%"]
    assert cells(lines, "mean")[3:6] == ["66.67%", "62.50%", "75.00%"]
    assert cells(lines, "std")[5] == "35.36%"  # of 1 and 1/2
    assert cells(lines, "pooled")[3:6] == ["75.00%", "66.67%", "75.00%"]
    # Both are right of three quarters, by another way.
    (note,) = [line for line in lines if line.startswith("*Best epoch on test* is optimistic")]
    assert "Pooled it is 75.00%, +0.0 points beside the 75.00% of the epochs that" in note


def test_the_gap_is_that_of_the_pooled_values(predictions: pd.DataFrame) -> None:
    # Zoë's clips are all right: folds 5/6 and 1, pooled recalls 3/4 and 1.
    best = [*predictions["predicted"][:4], *predictions["actual"][4:]]
    lines = page(predictions.assign(predicted_optimistic=best))
    assert cells(lines, "mean")[5] == "91.67%"
    (note,) = [line for line in lines if line.startswith("*Best epoch on test*")]
    assert "Pooled it is 87.50%, +12.5 points beside the 75.00% of the epochs that" in note


def test_without_best_epochs_on_test_the_page_does_not_speak_of_them(
    predictions: pd.DataFrame,
) -> None:
    assert not [line for line in page(predictions) if "est epoch on test" in line]
