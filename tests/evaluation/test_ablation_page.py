from typing import Any

import pandas as pd
import pytest
from small import setting

from pipeline.evaluation.ablation_page import format_table, latex, page, published_table
from pipeline.evaluation.setting import Coverage, Setting

NAN = float("nan")


def setting_of(dataset: str, protocol: str, num_classes: int, **changes: Any) -> Setting:
    """Of a data set with a clip of every class."""
    classes = [f"class{i}" for i in range(num_classes)]
    tested = pd.DataFrame({"fold": 1, "clip": classes, "subject": classes, "actual": classes})
    return setting(tested, classes, dataset=dataset, protocol=protocol, **changes)


SAMPLE = setting_of("sample", "paper", 7)


@pytest.fixture
def table() -> pd.DataFrame:
    """Two structures, as `compare` gives them."""
    common = {"experiment": "e", "box_iou": 0.5, "landmark_error": NAN, "seeds": 1}
    scores = {
        f"{name}_{part}": value
        for name in ("uar", "war")
        for part, value in (
            ("mean", 0.5),
            ("std", 0.0123),
            ("pooled", 0.51),
            ("pooled_low", 0.4),
            ("seed_std", NAN),
        )
    } | {"uar_pooled_high": 0.6, "war_pooled_high": NAN, "uar_optimistic_pooled": NAN}
    difference = {
        f"{name}_{part}": value
        for name in ("uar", "war")
        for part, value in (
            ("difference", -0.1),
            ("difference_low", -0.2),
            ("difference_high", 0.05),
            ("p", 0.0402),
        )
    }
    rows = [
        {"structure": "stl", **common, **scores, **difference}
        | {"num_parameters": 1234567, "training_seconds": NAN},
        {"structure": "cascaded vit", **common, **scores}
        | {"num_parameters": 7, "training_seconds": 300.0},
    ]
    linear = {"linear_difference": 0.1, "linear_difference_low": -0.02}
    return pd.DataFrame(rows).assign(
        published_uar=[72.36, 82.73],
        published_war=[74.44, 83.69],
        **linear,
        linear_difference_high=0.2,
    )


def test_scores_are_shown_in_per_cent_with_their_intervals(table: pd.DataFrame) -> None:
    row = format_table(table).iloc[0]
    assert row["UAR folds"] == "50.00 ± 1.23"
    assert row["UAR pooled [95 %]"] == "51.00 [40.00, 60.00]"
    assert row["WAR pooled [95 %]"] == "51.00 [40.00, -]"
    assert row["Δ UAR [95 %]"] == "-10.00 [-20.00, +5.00]"
    assert row["p UAR"] == "0.040"
    assert row["landmark error"] == "-"
    assert row["parameters"] == "1,234,567"
    assert row["training"] == "-"
    assert row["paper UAR / WAR"] == "72.36 / 74.44"
    reference = format_table(table).iloc[1]
    assert (reference["Δ UAR [95 %]"], reference["p UAR"], reference["training"]) == (
        "-",
        "-",
        "5.0 min",
    )


def test_a_score_without_an_interval_stands_alone(table: pd.DataFrame) -> None:
    few = table.assign(uar_pooled_low=NAN, uar_pooled_high=NAN, linear_difference_low=NAN)
    row = format_table(few.assign(linear_difference_high=NAN)).iloc[0]
    assert row["UAR pooled [95 %]"] == "51.00"
    assert row["Δ UAR to linear [95 %]"] == "+10.00"


def test_one_seed_without_best_epochs_on_test_has_no_columns_for_more(
    table: pd.DataFrame,
) -> None:
    text = page(table, SAMPLE, remarks=[])
    assert not [name for name in format_table(table).columns if "seeds" in name or "test" in name]
    assert "± seeds" not in text
    assert "est epoch on test" not in text


def test_several_seeds_have_their_deviation_beside_the_pooled_value(table: pd.DataFrame) -> None:
    more = table.assign(seeds=[3, 1], uar_seed_std=[0.0145, NAN], war_seed_std=[0.02, NAN])
    rows = format_table(more)
    assert rows["± seeds, UAR"].tolist() == ["1.45", "-"]
    assert rows["± seeds, WAR"].tolist() == ["2.00", "-"]
    assert "*± seeds* is the standard deviation of the pooled value" in page(more, SAMPLE, [])


def test_the_best_epoch_on_test_stands_with_its_gap_where_there_is_one(
    table: pd.DataFrame,
) -> None:
    more = table.assign(uar_optimistic_pooled=[0.535, NAN])
    rows = format_table(more)
    assert rows["UAR best epoch on test (gap)"].tolist() == ["53.50 (+2.50)", "-"]
    assert "*Best epoch on test* is optimistic" in page(more, SAMPLE, [])


def test_rows_of_another_protocol_are_marked_and_explained(table: pd.DataFrame) -> None:
    methods = published_table("ravdess", "paper").set_index("method")
    assert methods.loc["MAE-DFER †", "UAR"] == "75.91"
    assert methods.loc["MAE-DFER †", "protocol"] == "mae-dfer, 8 classes"
    assert methods.loc["MTFormer", "WAR"] == "79.68"
    assert methods.loc["VO-LSTM", "UAR"] == "-"
    text = page(table, setting_of("ravdess", "paper", 7), remarks=[])
    assert "† another protocol than that of the experiments above" in text
    for protocol, says in (
        ("mae-dfer", "RAVDESS: six folds of four consecutive actors, all eight classes."),
        ("notebook", "RAVDESS: one split into 720 clips to train on"),
        ("paper", "Five subject-independent folds"),
    ):
        assert f"Protocol `{protocol}`: {says}" in text
    assert "do not compare.**" not in text
    crema = published_table("cremad", "paper").set_index("method")
    marked = [method for method in crema.index if method.endswith("†")]
    assert marked == ["HiCMAE †", "AVF-MAE++ †", "people †"]


def test_rows_of_our_own_protocol_are_not_marked() -> None:
    methods = published_table("ravdess", "mae-dfer")["method"].tolist()
    assert "MAE-DFER" in methods
    assert "MTFormer †" in methods


def test_published_rows_say_how_the_epoch_was_chosen_and_what_was_seen_and_heard(
    table: pd.DataFrame,
) -> None:
    rows = published_table("ravdess", "paper").set_index("method")
    chosen = rows["epoch chosen on"]
    assert chosen["SVFAP †"] == chosen["HiCMAE †"] == "test clips ‡"
    assert chosen["MTFormer"] == "not said"
    assert chosen["MTCAE-DFER, the authors' notebook †"] == "validation"
    assert rows.loc["HiCMAE †", "input"] == "audio-visual"
    *_, people = published_table("cremad", "paper").to_dict("records")
    assert people == {
        "method": "people †",
        "protocol": "raters, 6 classes",
        "epoch chosen on": "-",
        "input": "video",
        "self-supervised": "no",
        "multi-task": "no",
        "UAR": "-",
        "WAR": "58.20",
        "from": "Cao et al. 2014, IEEE Transactions on Affective Computing 5(4)",
    }
    assert "‡ the epoch was chosen by the score on the test clips" in page(
        table, setting_of("cremad", "paper", 6), remarks=[]
    )


@pytest.mark.parametrize(("protocol", "num_classes"), [("mae-dfer", 7), ("paper", 8)])
def test_our_own_other_protocol_is_said_to_be_one(
    protocol: str, num_classes: int, table: pd.DataFrame
) -> None:
    text = page(table, setting_of("ravdess", protocol, num_classes), remarks=[])
    assert f"follow protocol `{protocol}` with {num_classes} classes" in text


def test_remarks_stand_below_the_scores_and_nothing_is_published_on_other_data(
    table: pd.DataFrame,
) -> None:
    text = page(table, SAMPLE, remarks=["A remark.", "Another."])
    assert text.index("| cascaded vit |") < text.index("\n\nA remark.\n\nAnother.\n\n")
    assert "Published" not in text


def test_the_page_says_what_all_experiments_share_and_how_to_trace_a_number(
    table: pd.DataFrame,
) -> None:
    part = Coverage(clips=7, all_clips=21, subjects=7, all_subjects=9, folds=[1], all_folds=3)
    found = setting_of("sample", "loso", 7, seeds=[1, 2], coverage=part)
    lines = page(table, found, remarks=[]).splitlines()
    assert lines[0] == "# Table I on sample"
    assert lines[2] == (
        "Model small, recipe quick, encoder from_scratch, protocol loso, seeds 1, 2."
    )
    above = lines[: lines.index(next(line for line in lines if line.startswith("|")))]
    assert [line for line in above if "7 of 21 clips, 7 of 9 subjects" in line]
    assert "metrics/ablation/predictions.parquet" in lines[-1]
    assert "data/predictions/sample.parquet" in lines[-1]


def test_names_keep_their_letters_under_the_title(table: pd.DataFrame) -> None:
    found = setting_of("sample", "paper", 7, encoder="ViT-L_K400.pth")
    assert "encoder ViT-L_K400.pth, protocol" in page(table, found, remarks=[])


def test_a_row_that_is_in_no_paper_has_a_dash_for_its_numbers(table: pd.DataFrame) -> None:
    ours = table.assign(published_uar=[72.36, NAN], published_war=[74.44, NAN])
    assert format_table(ours)["paper UAR / WAR"].tolist() == ["72.36 / 74.44", "-"]


def test_latex_escapes_what_latex_would_read(table: pd.DataFrame) -> None:
    text = latex(table)
    assert r"50.00 $\pm$ 1.23" in text
    assert r"[95 \%]" in text
    assert r"cascaded vit" in text
    assert "±" not in text
    assert text.count(r"\\") == 3
