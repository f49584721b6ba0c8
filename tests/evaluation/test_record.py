from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small import baselines, setting

from pipeline.evaluation.record import EXPERIMENTS, PREDICTIONS, Record, Run

CLASSES = ["happy", "sad"]
STL, CASCADE = "stl", "cascaded vit"


def predictions(seed: int, *, boxes: bool = True, optimistic: bool = False) -> pd.DataFrame:
    """As stage finetune writes them: four clips, of which the seed says who is in which fold."""
    random = np.random.default_rng(seed)
    sure = random.random(4).astype(np.float32)
    columns: dict[str, object] = {
        "fold": [1 + seed % 2, 1 + seed % 2, 2 - seed % 2, 2 - seed % 2],
        "clip": ["a0", "a1", "b0", "b1"],
        "subject": ["Ann", "Ann", "Bob", "Bob"],
        "actual": ["happy", "sad", "happy", "sad"],
        "predicted": np.where(sure > 0.5, "happy", "sad"),
    }
    if optimistic:
        columns["predicted_optimistic"] = ["happy", "sad", "happy", "happy"]
    columns |= {
        "box_iou": random.random(4) if boxes else np.nan,
        "landmark_error": random.random(4) if boxes else np.nan,
        "interocular_error": [0.1, np.nan, 0.2, 0.3] if boxes else np.nan,
        "boxes": [np.full(64 if boxes else 0, 0.5, np.float32)] * 4,
        "points": [np.full(160 if boxes else 0, 0.5, np.float32)] * 4,
        "times": [np.arange(16) / 5] * 4,
        "probability_happy": sure,
        "probability_sad": 1 - sure,
    }
    return pd.DataFrame(columns)


def run(structure: str, seed: int, experiment: str = "exp", seconds: float | None = 1.5) -> Run:
    return Run(
        structure=structure,
        seed=seed,
        experiment=experiment,
        num_parameters=7,
        training_seconds=seconds,
    )


def empty_record() -> Record:
    one = setting(predictions(1), CLASSES, lacking={2: {"validation": ["sad"]}})
    return Record("digest", one, {}, {}, {})


def add(record: Record, of: Run, table: pd.DataFrame) -> None:
    record.add(of, table, baselines(without_frames(table), CLASSES))


@pytest.fixture
def record() -> Record:
    """A cascade with two seeds, of which one has the best epochs on test; stl without boxes."""
    record = empty_record()
    add(record, run(STL, 2, seconds=None), predictions(2, boxes=False))
    add(record, run(CASCADE, 10), predictions(10))
    add(record, run(CASCADE, 2), predictions(3, optimistic=True))
    return record


def without_frames(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=["boxes", "points", "times"])


def require_equal(one: Record, other: Record | None) -> None:
    assert other is not None
    assert (one.parameters, one.setting, one.runs) == (other.parameters, other.setting, other.runs)
    assert one.predictions.keys() == other.predictions.keys()
    assert one.baselines.keys() == other.baselines.keys()
    for key, table in one.predictions.items():
        # Whole numbers and names exactly, probabilities to the last digit of float32.
        pd.testing.assert_frame_equal(
            table, other.predictions[key], check_like=True, check_dtype=False, rtol=0, atol=0
        )
    for seed, table in one.baselines.items():
        order = ["baseline", "clip"]
        pd.testing.assert_frame_equal(
            table.sort_values(order, ignore_index=True),
            other.baselines[seed].sort_values(order, ignore_index=True),
            check_like=True,
            check_dtype=False,
            rtol=0,
            atol=0,
        )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_written_is_read_again(record: Record, tmp_path: Path) -> None:
    record.write(tmp_path / "ablation")
    require_equal(record, Record.read(tmp_path / "ablation"))
    assert sorted(contents(tmp_path / "ablation")) == [EXPERIMENTS, PREDICTIONS]


def test_where_nothing_was_written_nothing_is_read(tmp_path: Path) -> None:
    assert Record.read(tmp_path) is None


def test_equal_records_are_equal_files_whoever_wrote_them(record: Record, tmp_path: Path) -> None:
    record.write(tmp_path / "once")
    record.write(tmp_path / "twice")
    record.write(tmp_path / "twice")
    again = Record.read(tmp_path / "once")
    assert again
    again.write(tmp_path / "read")
    turned = empty_record()
    for of, table in (
        (run(CASCADE, 2), predictions(3, optimistic=True)),
        (run(CASCADE, 10), predictions(10)),
        (run(STL, 2, seconds=None), predictions(2, boxes=False)),
    ):
        add(turned, of, table)
    # Baselines of a seed are those of the last run that was added.
    turned.baselines[2] = record.baselines[2]
    turned.write(tmp_path / "turned")
    for other in ("twice", "read", "turned"):
        assert contents(tmp_path / other) == contents(tmp_path / "once")


def test_a_row_of_the_table_is_a_system_a_seed_and_a_clip(record: Record, tmp_path: Path) -> None:
    record.write(tmp_path)
    table = pd.read_parquet(tmp_path / PREDICTIONS)
    assert table.columns[:2].tolist() == ["system", "seed"]
    assert not {"boxes", "points", "times", "baseline"} & set(table)
    assert table.groupby(["system", "seed"], sort=False).size().to_dict() == {
        (CASCADE, 2): 4,
        (CASCADE, 10): 4,
        (STL, 2): 4,
        ("linear model", 2): 4,
        ("majority class", 2): 4,
        ("linear model", 10): 4,
        ("majority class", 10): 4,
    }
    assert not table.duplicated(["system", "seed", "clip"]).any()


def test_a_run_takes_the_place_of_one_of_the_same_structure_and_seed(
    record: Record, tmp_path: Path
) -> None:
    newer = predictions(5)
    add(record, run(CASCADE, 2, "newer"), newer)
    record.write(tmp_path)
    found = Record.read(tmp_path)
    require_equal(record, found)
    assert found
    assert [(one.structure, one.seed, one.experiment) for one in found.runs.values()] == [
        (CASCADE, 2, "newer"),
        (CASCADE, 10, "exp"),
        (STL, 2, "exp"),
    ]
    kept = found.predictions[CASCADE, 2]
    assert kept["predicted"].tolist() == newer["predicted"].tolist()
    assert "predicted_optimistic" not in kept
    # Those of the other seed are as they were.
    assert found.predictions[CASCADE, 10]["predicted"].tolist() == (
        predictions(10)["predicted"].tolist()
    )
    linear = found.baselines[2].query("baseline == 'linear model'")
    assert linear["fold"].tolist() == newer["fold"].tolist()


def test_the_best_epochs_on_test_are_those_of_the_runs_that_have_them(
    record: Record, tmp_path: Path
) -> None:
    record.write(tmp_path)
    found = Record.read(tmp_path)
    assert found
    with_them = [key for key, table in found.predictions.items() if "predicted_optimistic" in table]
    assert with_them == [(CASCADE, 2)]
    kept = found.predictions[CASCADE, 2]["predicted_optimistic"]
    assert kept.tolist() == ["happy", "sad", "happy", "happy"]
    assert not [table for table in found.baselines.values() if "predicted_optimistic" in table]


def test_without_best_epochs_on_test_there_is_no_column_for_them(tmp_path: Path) -> None:
    record = empty_record()
    add(record, run(STL, 1), predictions(1))
    record.write(tmp_path)
    assert "predicted_optimistic" not in pd.read_parquet(tmp_path / PREDICTIONS)


def test_a_structure_without_boxes_has_no_scores_of_them_after_reading(
    record: Record, tmp_path: Path
) -> None:
    record.write(tmp_path)
    found = Record.read(tmp_path)
    assert found
    scores = ["box_iou", "landmark_error", "interocular_error"]
    assert found.predictions[STL, 2][scores].isna().all(axis=None)
    assert found.predictions[CASCADE, 2]["box_iou"].notna().all()
    assert found.predictions[CASCADE, 2]["interocular_error"].isna().tolist() == [
        *(False, True, False, False)
    ]


def test_the_seeds_of_a_structure_are_sorted(record: Record) -> None:
    assert record.seeds(CASCADE) == [2, 10]
    assert record.seeds(STL) == [2]
    assert record.seeds("fully_shared mlp") == []
