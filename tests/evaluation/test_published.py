from typing import get_args

import pytest

from pipeline.evaluation.ablation_page import published_results, published_table
from pipeline.evaluation.published import (
    MAE_DFER,
    NUM_CLASSES,
    PAPER,
    PROTOCOLS,
    PublishedResult,
    ablation_results,
    comparison_results,
    other_results,
)
from pipeline.folds.protocols import SplitSettings


def test_single_values_are_those_of_the_tables() -> None:
    assert ablation_results("cremad")[1] == PublishedResult(
        method="non_fully_shared mlp",
        arch="non_fully_shared",
        decoder="mlp",
        dataset="cremad",
        num_classes=6,
        protocol=PAPER,
        epoch_on_test=None,
        modality="video",
        uar=77.23,
        war=79.89,
        self_supervised=True,
        multi_task=True,
        source="MTCAE-DFER, Table I",
    )
    assert comparison_results("mead")[0] == PublishedResult(
        method="VO-LSTM",
        arch=None,
        decoder=None,
        dataset="mead",
        num_classes=8,
        protocol=PAPER,
        epoch_on_test=None,
        modality="video",
        uar=None,
        war=68.87,
        self_supervised=False,
        multi_task=False,
        source="MTCAE-DFER, Table IV",
    )


@pytest.mark.parametrize(
    ("dataset", "num_classes", "scores"),
    [
        ("dfew", 7, [(63.41, 74.43), (66.80, 76.68)]),
        ("mafw", 11, [(41.62, 54.31), (43.72, 58.44)]),
        ("ferv39k", 7, [(43.12, 52.07), (None, 53.65)]),
        ("custom", 0, []),
    ],
)
def test_rows_on_films_are_by_the_official_folds_and_choose_the_epoch_on_test(
    dataset: str, num_classes: int, scores: list[tuple[float | None, float]]
) -> None:
    rows = other_results(dataset)
    assert [(row.uar, row.war) for row in rows] == scores
    assert all(row.num_classes == num_classes and row.epoch_on_test for row in rows)
    assert published_results(dataset) == rows
    table = published_table(dataset, "official")
    assert len(table) == len(rows)
    if len(table):
        assert list(table["method"]) == ["MAE-DFER", "S4D"]
        assert set(table["epoch chosen on"]) == {"test clips \u2021"}
        assert list(published_table(dataset, "paper")["method"]) == [
            "MAE-DFER \u2020",
            "S4D \u2020",
        ]


@pytest.mark.parametrize("dataset", NUM_CLASSES)
def test_the_ablation_has_the_six_structures(dataset: str) -> None:
    assert [(row.arch, row.decoder) for row in ablation_results(dataset)] == [
        ("stl", None),
        ("non_fully_shared", "mlp"),
        ("non_fully_shared", "vit"),
        ("fully_shared", "mlp"),
        ("fully_shared", "vit"),
        ("cascaded", "vit"),
    ]
    assert [row.multi_task for row in ablation_results(dataset)] == [False] + [True] * 5


@pytest.mark.parametrize("dataset", NUM_CLASSES)
def test_the_proposed_model_ends_both_tables_and_leads_them(dataset: str) -> None:
    ablation, comparison = ablation_results(dataset), comparison_results(dataset)
    last, proposed = ablation[-1], comparison[-1]
    assert proposed.method == "MTCAE-DFER"
    assert proposed == last._replace(method=proposed.method, source=proposed.source)
    for row in ablation + comparison:
        assert row.war <= last.war
        assert row.uar is None or row.uar <= (last.uar or 0)


@pytest.mark.parametrize("dataset", NUM_CLASSES)
def test_only_two_methods_give_no_uar(dataset: str) -> None:
    without = [row.method for row in comparison_results(dataset) if row.uar is None]
    assert without == ["VO-LSTM", "3D ResNeXt-50"]
    assert all(row.uar for row in ablation_results(dataset))


def test_two_rows_of_ravdess_follow_another_protocol() -> None:
    rows = [row for dataset in NUM_CLASSES for row in comparison_results(dataset)]
    assert [
        (row.dataset, row.method, row.num_classes) for row in rows if row.protocol == MAE_DFER
    ] == [("ravdess", "SVFAP", 8), ("ravdess", "MAE-DFER", 8)]
    assert {(row.dataset, row.num_classes) for row in rows if row.protocol == PAPER} == {
        ("ravdess", 7),
        ("cremad", 6),
        ("mead", 8),
    }


@pytest.mark.parametrize(
    ("dataset", "table"), [("ravdess", "II"), ("cremad", "III"), ("mead", "IV")]
)
def test_every_row_names_its_table(dataset: str, table: str) -> None:
    assert {row.source for row in comparison_results(dataset)} == {f"MTCAE-DFER, Table {table}"}


def test_an_unknown_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="'dfew', only on ravdess, cremad, mead"):
        ablation_results("dfew")


def test_the_epochs_of_two_methods_are_known_to_be_chosen_on_the_test_clips() -> None:
    rows = [
        row
        for dataset in NUM_CLASSES
        for row in comparison_results(dataset) + ablation_results(dataset)
    ]
    assert [(row.dataset, row.method) for row in rows if row.epoch_on_test] == [
        ("ravdess", "SVFAP"),
        ("ravdess", "MAE-DFER"),
        ("cremad", "SVFAP"),
        ("cremad", "MAE-DFER"),
    ]
    assert {row.epoch_on_test for row in rows} == {True, None}
    assert {row.modality for row in rows} == {"video"}


def test_other_results_are_those_of_their_sources() -> None:
    found = {
        (row.dataset, row.method): (
            row.uar,
            row.war,
            row.num_classes,
            row.protocol,
            row.epoch_on_test,
            row.modality,
            row.source,
        )
        for dataset in ("ravdess", "cremad", "mead", "sample")
        for row in other_results(dataset)
    }
    hicmae, avf_mae = "HiCMAE, arXiv 2401.05698", "AVF-MAE++, CVPR 2025"
    assert found == {
        ("ravdess", "HiCMAE"): (87.96, 87.99, 8, "mae-dfer", True, "audio-visual", hicmae),
        ("ravdess", "AVF-MAE++"): (87.44, 87.57, 8, "mae-dfer", True, "audio-visual", avf_mae),
        ("ravdess", "MTCAE-DFER, the authors' notebook"): (
            *(55.95, 57.22, 7, "notebook", False, "video"),
            "the printed run in github.com/Peihao-Xiang/MTCAE-DFER",
        ),
        ("cremad", "HiCMAE"): (84.94, 84.91, 6, "mae-dfer", True, "audio-visual", hicmae),
        ("cremad", "AVF-MAE++"): (86.02, 85.95, 6, "mae-dfer", True, "audio-visual", avf_mae),
        ("cremad", "people"): (
            *(None, 58.2, 6, "raters", False, "people"),
            "Cao et al. 2014, IEEE Transactions on Affective Computing 5(4)",
        ),
    }


def test_every_protocol_of_a_row_or_of_an_experiment_is_described() -> None:
    rows = [
        row
        for dataset in NUM_CLASSES
        for row in ablation_results(dataset) + comparison_results(dataset) + other_results(dataset)
    ]
    own = set(get_args(SplitSettings.model_fields["protocol"].annotation))
    assert {row.protocol for row in rows} | own == set(PROTOCOLS)
