from typing import Any

import numpy as np
import pandas as pd
import pytest
from small import baselines

from pipeline.evaluation.baselines import LINEAR, MAJORITY, predictions_of
from pipeline.evaluation.comparison import (
    System,
    beside_linear,
    compare,
    compare_with_baselines,
)
from pipeline.evaluation.statistics import Counts, paired_difference, subject_confusions

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
        interocular_error=0.2,
        **{f"probability_{name}": 1 / 3 for name in CLASSES},
    )


def system(name: str, *trainings: pd.DataFrame, training_seconds: float = 90.0) -> System:
    seeds = range(1, len(trainings) + 1)
    return System(name, f"exp-{name}", trainings, seeds, 1000, training_seconds)


def counts(table: pd.DataFrame) -> Counts:
    """Of one training."""
    actual, predicted = (
        table[name].map(CLASSES.index).to_numpy() for name in ("actual", "predicted")
    )
    return subject_confusions(actual, predicted, table["subject"], len(CLASSES))[None]


@pytest.fixture
def table() -> dict[str, dict[Any, Any]]:
    """The comparison, by structure."""
    compared = compare(
        [
            system("stl", predictions(1, 0.3)),
            system("fully_shared vit", predictions(2, 0.75), training_seconds=float("nan")),
            system("cascaded vit", predictions(3, 0.8)),
        ],
        CLASSES,
        "ravdess",
        {1: baselines(predictions(1, 0.3), CLASSES)},
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
    assert table["stl"]["uar_pooled_low"] < right.mean() < table["stl"]["uar_pooled_high"]


def test_differences_are_to_the_reference_with_its_paired_interval(
    table: dict[str, dict[Any, Any]],
) -> None:
    found = paired_difference(
        counts(predictions(1, 0.3)), counts(predictions(3, 0.8)), num_resamples=10_000, seed=1
    )
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
    table = compare([system("stl", one)], CLASSES, "sample", {1: baselines(one, CLASSES)})
    assert "published_uar" not in table
    assert "uar_difference" not in table


def test_experiments_on_other_clips_or_folds_do_not_compare() -> None:
    one, other = predictions(1, 0.5), predictions(2, 0.5)
    moved = other.assign(fold=3 - other["fold"])
    for unlike in (other.iloc[1:], moved):
        with pytest.raises(ValueError, match="same clips in the same folds"):
            compare(
                [system("stl", one), system("cascaded vit", unlike)],
                CLASSES,
                "sample",
                {1: baselines(one, CLASSES)},
            )


def test_the_order_of_the_rows_does_not_matter() -> None:
    one = predictions(1, 0.5)
    pair = [
        system("stl", one),
        system("cascaded vit", predictions(2, 0.6).sample(frac=1, random_state=0)),
    ]
    turned = [pair[0], pair[1]._replace(trainings=[predictions(2, 0.6)])]
    others = {1: baselines(one, CLASSES)}
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
    table = compare([system("stl", one)], classes, "sample", {1: baselines(one, classes)})
    assert table["uar_pooled"].iloc[-1] == pytest.approx(1 / 3)


def test_a_structure_that_does_not_beat_the_linear_model_is_told_so() -> None:
    weak, strong = predictions(1, 0.3), predictions(2, 1.0)
    others = baselines(weak, CLASSES)
    linear = others["baseline"] == "linear model"
    others.loc[linear, "predicted"] = predictions(3, 0.6)["predicted"].to_numpy()
    table = compare(
        [system("stl", weak), system("cascaded vit", strong)],
        CLASSES,
        "sample",
        {1: others},
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
    table = compare([system("stl", one)], CLASSES, "sample", {1: others})
    assert beside_linear(table)[0].startswith(
        "**stl does not beat the linear model**: +0.0 points of UAR (no interval)."
    )


def other_seed(table: pd.DataFrame) -> pd.DataFrame:
    """The same subjects tested in the other of the two folds."""
    return table.assign(fold=3 - table["fold"])


def test_several_trainings_are_one_row_of_their_means() -> None:
    stl = predictions(1, 0.3), other_seed(predictions(2, 0.5))
    cascade = predictions(3, 0.8), other_seed(predictions(4, 0.7))
    others = [baselines(one, CLASSES) for one in stl]
    # The first linear model takes everything for angry.
    others[0]["predicted"] = "angry"
    compared = compare(
        [system("stl", *stl), system("cascaded vit", *cascade)],
        CLASSES,
        "sample",
        dict(enumerate(others, start=1)),
    )
    table = {row["structure"]: row for row in compared.to_dict("records")}
    shares = [(one["predicted"] == one["actual"]).mean() for one in stl]
    assert table["stl"]["uar_pooled"] == pytest.approx(np.mean(shares))
    assert table["stl"]["uar_seed_std"] == pytest.approx(np.std(shares, ddof=1))
    assert table["stl"]["seeds"] == 2
    both = [np.concatenate([*map(counts, trainings)]) for trainings in (stl, cascade)]
    found = paired_difference(both[0], both[1], num_resamples=10_000, seed=1)
    gap = np.mean(shares) - np.mean([(one["predicted"] == one["actual"]).mean() for one in cascade])
    assert table["stl"]["uar_difference"] == pytest.approx(gap)
    assert table["stl"]["uar_difference_low"] == pytest.approx(found.uar.low)
    assert table["stl"]["uar_p"] == pytest.approx(found.uar_p_value)
    # A third of one seed's linear model, and all of the other's.
    assert table["linear model"]["uar_pooled"] == pytest.approx(2 / 3)
    assert table["stl"]["linear_difference"] == pytest.approx(np.mean(shares) - 2 / 3)


def test_every_training_is_compared_with_that_of_the_same_seed() -> None:
    one, other = predictions(1, 0.5), other_seed(predictions(2, 0.5))
    others = [baselines(table, CLASSES) for table in (one, other)]
    with pytest.raises(ValueError, match="cascaded vit and stl were not tested on the same clips"):
        compare(
            [system("stl", one, other), system("cascaded vit", one, one)],
            CLASSES,
            "sample",
            dict(enumerate(others, start=1)),
        )


def test_a_system_without_a_time_or_parameters_has_no_number_there() -> None:
    one = predictions(1, 0.5)
    found = compare(
        [System("theirs", "a.csv", [one])], CLASSES, "sample", {1: baselines(one, CLASSES)}
    )
    row = found.iloc[0]
    assert row["experiment"] == "a.csv"
    assert np.isnan([row["num_parameters"], row["training_seconds"]]).all()


def test_one_experiment_stands_above_the_baselines() -> None:
    one = predictions(1, 0.5)
    table = compare_with_baselines("stl", one, baselines(one, CLASSES), CLASSES)
    assert table["structure"].tolist() == ["stl", "linear model", "majority class", "chance"]
    share = (one["predicted"] == one["actual"]).mean()
    assert table["uar_pooled"].tolist() == pytest.approx([share, 1, 1 / 3, 1 / 3])
    assert table["linear_difference"][0] == pytest.approx(share - 1)


def test_the_tables_of_stage_baseline_stand_beside_a_structure() -> None:
    one = predictions(1, 0.5)
    tested = one[["fold", "clip", "subject", "actual"]]
    probabilities = {
        LINEAR: np.eye(3)[[CLASSES.index(name) for name in one["actual"]]],
        MAJORITY: np.tile([0.2, 0.5, 0.3], (len(one), 1)),
    }
    folds = {fold: tested[tested["fold"] == fold] for fold in (1, 2)}
    tables = [
        predictions_of(name, fold, part.drop(columns="fold"), found[part.index], CLASSES)
        for name, found in probabilities.items()
        for fold, part in folds.items()
    ]
    table = compare_with_baselines("stl", one, pd.concat(tables), CLASSES)
    assert table["uar_pooled"][1:].tolist() == pytest.approx([1, 1 / 3, 1 / 3])
