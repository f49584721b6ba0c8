from typing import Any

import numpy as np
import pandas as pd
import pytest
from small import baselines

from pipeline.evaluation.comparison import Experiment, beside_linear, compare
from pipeline.evaluation.statistics import paired_difference, subject_confusions
from pipeline.mtcae.structures import Structure

CLASSES = ["angry", "happy", "sad"]


def predictions(seed: int, right: float) -> pd.DataFrame:
    """Ten subjects in two folds with six clips of each class; a clip is right with that chance."""
    random = np.random.default_rng(seed)
    rows = [
        (1 + s % 2, f"s{s}_{label}_{i}", f"s{s}", label)
        for s in range(10)
        for label in CLASSES
        for i in range(6)
    ]
    table = pd.DataFrame(rows, columns=["fold", "clip", "subject", "actual"])
    others = random.choice(CLASSES, len(table))
    hit = random.random(len(table)) < right
    return table.assign(
        predicted=np.where(hit, table["actual"], others),
        box_iou=0.75,
        landmark_error=0.1,
        **{f"probability_{name}": 1 / 3 for name in CLASSES},
    )


def experiment(arch: str, decoder: str, table: pd.DataFrame, **changes: object) -> Experiment:
    made = Experiment(Structure(arch, decoder), f"exp-{arch}", table, 1000, 90.0)
    return made._replace(**changes)  # type: ignore[arg-type]


@pytest.fixture
def table() -> dict[str, dict[Any, Any]]:
    """The comparison, by structure."""
    compared = compare(
        [
            experiment("stl", "vit", predictions(1, 0.3)),
            experiment("fully_shared", "vit", predictions(2, 0.75), training_seconds=None),
            experiment("cascaded", "vit", predictions(3, 0.8)),
        ],
        CLASSES,
        "ravdess",
        baselines(predictions(1, 0.3), CLASSES),
    )
    return {row["structure"]: row for row in compared.to_dict("records")}


def test_scores_are_the_share_of_clips_that_are_right(table: dict[str, dict[Any, Any]]) -> None:
    stl = predictions(1, 0.3)
    right = stl["predicted"] == stl["actual"]
    # Classes, subjects and folds are all of one size, so every mean is the share of right clips.
    assert table["stl"]["uar_pooled"] == pytest.approx(right.mean())
    assert table["stl"]["war_pooled"] == pytest.approx(right.mean())
    folds = right.groupby(stl["fold"]).mean()
    assert table["stl"]["uar_mean"] == pytest.approx(folds.mean())
    assert table["stl"]["uar_std"] == pytest.approx(folds.std())
    assert table["stl"]["uar_low"] < right.mean() < table["stl"]["uar_high"]


def test_differences_are_to_the_reference_with_its_paired_interval(
    table: dict[str, dict[Any, Any]],
) -> None:
    def counts(seed: int, right: float) -> np.ndarray:
        made = predictions(seed, right)
        codes = [made[column].map(CLASSES.index).to_numpy() for column in ("actual", "predicted")]
        return subject_confusions(codes[0], codes[1], made["subject"], len(CLASSES))

    found = paired_difference(counts(1, 0.3), counts(3, 0.8), num_resamples=10_000, seed=1)
    assert table["stl"]["uar_difference"] == pytest.approx(found.uar.value)
    assert table["stl"]["uar_difference_low"] == pytest.approx(found.uar.low)
    assert found.uar.high < 0
    # Holm doubles the smaller of two p-values.
    assert table["stl"]["uar_p"] == pytest.approx(2 * found.uar_p_value)
    assert table["stl"]["uar_p"] < 0.05 < table["fully_shared vit"]["uar_p"]
    assert all(
        np.isnan(value)
        for name, value in table["cascaded vit"].items()
        if name.startswith(("uar_difference", "war_difference"))
    )


def test_published_numbers_stand_beside_their_structure(table: dict[str, dict[Any, Any]]) -> None:
    published = {structure: row["published_uar"] for structure, row in table.items()}
    assert {structure: uar for structure, uar in published.items() if uar == uar} == {
        "stl": 72.36,
        "fully_shared vit": 80.02,
        "cascaded vit": 82.73,
    }


def test_a_data_set_that_the_paper_does_not_have_has_no_published_columns() -> None:
    one = predictions(1, 0.5)
    table = compare([experiment("stl", "vit", one)], CLASSES, "sample", baselines(one, CLASSES))
    assert "published_uar" not in table
    assert "uar_difference" not in table


def test_experiments_on_other_clips_or_folds_do_not_compare() -> None:
    one, other = predictions(1, 0.5), predictions(2, 0.5)
    moved = other.assign(fold=3 - other["fold"])
    for unlike in (other.iloc[1:], moved):
        with pytest.raises(ValueError, match="same clips in the same folds"):
            compare(
                [experiment("stl", "vit", one), experiment("cascaded", "vit", unlike)],
                CLASSES,
                "sample",
                baselines(one, CLASSES),
            )


def test_the_order_of_the_rows_does_not_matter() -> None:
    one = predictions(1, 0.5)
    pair = [
        experiment("stl", "vit", one),
        experiment("cascaded", "vit", predictions(2, 0.6).sample(frac=1, random_state=0)),
    ]
    turned = [pair[0], pair[1]._replace(predictions=predictions(2, 0.6))]
    others = baselines(one, CLASSES)
    pd.testing.assert_frame_equal(
        compare(pair, CLASSES, "sample", others), compare(turned, CLASSES, "sample", others)
    )


def test_baselines_stand_below_with_scores_of_their_own(table: dict[str, dict[Any, Any]]) -> None:
    assert list(table)[-3:] == ["linear model", "majority class", "chance"]
    # The linear model of these tests is always right, the other says "angry" to all.
    assert table["linear model"]["uar_pooled"] == 1
    assert table["majority class"]["uar_pooled"] == pytest.approx(1 / 3)
    assert table["chance"]["uar_pooled"] == pytest.approx(1 / 3)


def test_chance_is_that_of_the_classes_that_occur() -> None:
    one = predictions(1, 0.5)
    classes = [*CLASSES, "fear", "disgust"]
    one = one.assign(probability_fear=0, probability_disgust=0)
    table = compare([experiment("stl", "vit", one)], classes, "sample", baselines(one, classes))
    assert table["uar_pooled"].iloc[-1] == pytest.approx(1 / 3)


def test_a_structure_that_does_not_beat_the_linear_model_is_told_so() -> None:
    weak, strong = predictions(1, 0.3), predictions(2, 1.0)
    others = baselines(weak, CLASSES)
    linear = others["baseline"] == "linear model"
    others.loc[linear, "predicted"] = predictions(3, 0.6)["predicted"].to_numpy()
    table = compare(
        [experiment("stl", "vit", weak), experiment("cascaded", "vit", strong)],
        CLASSES,
        "sample",
        others,
    )
    below, above = beside_linear(table)
    assert below.startswith("**stl does not beat the linear model**: -")
    assert above.startswith("cascaded vit beats the linear model: +")
    row = table.iloc[1]
    right = (others.loc[linear, "predicted"] == others.loc[linear, "actual"]).mean()
    assert row["linear_difference"] == pytest.approx(1 - right)
    assert f"{100 * (1 - right):+.1f} points of UAR" in above


def test_a_structure_that_is_as_good_as_the_linear_model_does_not_beat_it() -> None:
    one = predictions(1, 0.5)
    others = baselines(one, CLASSES)
    linear = others["baseline"] == "linear model"
    others.loc[linear, "predicted"] = one["predicted"].to_numpy()
    table = compare([experiment("stl", "vit", one)], CLASSES, "sample", others)
    assert beside_linear(table)[0].startswith(
        "**stl does not beat the linear model**: +0.0 points of UAR (no interval)."
    )
