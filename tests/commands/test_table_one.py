import pandas as pd
import pytest

from commands.table_one import format_table, latex, page, published_table


@pytest.fixture
def table() -> pd.DataFrame:
    """Two structures, as `compare` gives them."""
    common = {"experiment": "e", "box_iou": 0.5, "landmark_error": float("nan")}
    scores = {
        f"{name}_{part}": value
        for name in ("uar", "war")
        for part, value in (("mean", 0.5), ("std", 0.0123), ("pooled", 0.51), ("low", 0.4))
    } | {"uar_high": 0.6, "war_high": float("nan")}
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
        | {"num_parameters": 1234567, "training_seconds": None},
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
    nothing = float("nan")
    few = table.assign(uar_low=nothing, uar_high=nothing, linear_difference_low=nothing)
    row = format_table(few.assign(linear_difference_high=nothing)).iloc[0]
    assert row["UAR pooled [95 %]"] == "51.00"
    assert row["Δ UAR to linear [95 %]"] == "+10.00"


def test_rows_of_another_protocol_are_marked_and_explained(table: pd.DataFrame) -> None:
    methods = published_table("ravdess").set_index("method")
    assert methods.loc["MAE-DFER †", "UAR"] == "75.91"
    assert methods.loc["MTFormer", "WAR"] == "79.68"
    assert methods.loc["VO-LSTM", "UAR"] == "-"
    text = page(table, "ravdess", "t", protocol="paper", num_classes=7, remarks=[], missing=[])
    assert "† SVFAP and MAE-DFER: protocol mae-dfer with 8 classes" in text
    assert "do not compare.**" not in text
    crema = page(table, "cremad", "t", protocol="paper", num_classes=6, remarks=[], missing=[])
    assert "†" not in crema


@pytest.mark.parametrize(("protocol", "num_classes"), [("mae-dfer", 7), ("paper", 8)])
def test_our_own_other_protocol_is_said_to_be_one(
    protocol: str, num_classes: int, table: pd.DataFrame
) -> None:
    text = page(
        table, "ravdess", "t", protocol=protocol, num_classes=num_classes, remarks=[], missing=[]
    )
    assert f"follow protocol `{protocol}` with {num_classes} classes" in text


def test_structures_that_were_not_run_are_named(table: pd.DataFrame) -> None:
    text = page(
        table,
        "sample",
        "t",
        protocol="paper",
        num_classes=7,
        remarks=["A remark."],
        missing=["fully_shared mlp"],
    )
    assert "Not run yet: fully_shared mlp." in text
    assert "A remark." in text
    assert "Published" not in text


def test_latex_escapes_what_latex_would_read(table: pd.DataFrame) -> None:
    text = latex(table)
    assert r"50.00 $\pm$ 1.23" in text
    assert r"[95 \%]" in text
    assert r"cascaded vit" in text
    assert "±" not in text
    assert text.count(r"\\") == 3
