"""Every protocol from the split to the tables, with folds that nobody had to train."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small import baselines

from pipeline.common.clips import StoredClip, read_stored, write_stored
from pipeline.common.encoder_weights import History
from pipeline.folds.folds import read_fold
from stages import aggregate, split
from stages.aggregate import Inputs

CLASSES = ["angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprised"]
CHOICES: dict[str, Any] = {
    "dataset": "ravdess",
    "arch": "stl",
    "decoder": "vit",
    "model": "tiny",
    "recipe": "quick",
    "seed": 1,
}
SPLIT = {
    "partial": False,
    "num_folds": 5,
    "test_fraction": 0.2,
    "validation_fraction": 0.2,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The manifest of 24 actors with two clips of every class; actor_01 has none of sad."""
    clips = [
        StoredClip(
            f"{actor:02}_{label}_{i}", "", f"actor_{actor:02}", label, content=f"{actor}{label}{i}"
        )
        for actor in range(1, 25)
        for label in CLASSES
        for i in range(2)
        if not (actor == 1 and label == "sad")
    ]
    write_stored(tmp_path / "clips.parquet", clips)
    monkeypatch.setattr(aggregate, "log_experiment", lambda *_: None)
    return tmp_path


def make_folds(project: Path, protocol: str, folds: list[int], **changes: object) -> None:
    params = split.Params.model_validate(
        {
            "dataset": "ravdess",
            "folds": folds,
            "split": {"protocol": protocol, **SPLIT, **changes},
            "seed": 1,
        }
    )
    split.main(params, project / "clips.parquet", project / "folds.csv")


def write_fold(project: Path, number: int) -> pd.DataFrame:
    """What stage finetune leaves: every clip is right, in every epoch."""
    clips = read_stored(project / "clips.parquet")
    tested = [clips[i] for i in read_fold(project / "folds.csv", number).rows(clips, "test")]
    labels = [clip.label for clip in tested]
    table = pd.DataFrame(
        {
            "fold": number,
            "clip": [clip.clip for clip in tested],
            "subject": [clip.group for clip in tested],
            "actual": labels,
            "predicted": labels,
            "box_iou": np.nan,
            "landmark_error": np.nan,
            "interocular_error": np.nan,
            "predicted_optimistic": labels,
            **{f"probability_{name}": [float(name == x) for x in labels] for name in CLASSES},
        }
    )
    folder = project / f"runs/fold{number}"
    folder.mkdir(parents=True)
    table.to_parquet(folder / "predictions.parquet", index=False)
    pd.DataFrame({"epoch": [1], "validation_uar": [1.0]}).to_csv(
        folder / "history.csv", index=False
    )
    (folder / "metrics.json").write_text(json.dumps({"num_parameters": 7}), encoding="utf-8")
    metadata = {
        "fold": number,
        "metrics": {},
        "frames": {"segments": 1},
        "recipes": {"evaluation": {"crops": 1}},
        "encoder": {"name": "from_scratch", "history": History.empty().model_dump()},
        **CHOICES,
    }
    (folder / "model.json").write_text(json.dumps({"metadata": metadata}), encoding="utf-8")
    return table


def tables(project: Path, protocol: str, folds: list[int], **changes: object) -> dict[str, Any]:
    """The setting that the tables name, and the page as `page`."""
    make_folds(project, protocol, folds, **changes)
    tested = pd.concat([write_fold(project, number) for number in folds])
    baselines(tested, CLASSES).to_parquet(project / "baselines.parquet", index=False)
    params = aggregate.Params.model_validate(
        {
            **CHOICES,
            "folds": folds,
            "split": {"protocol": protocol, **SPLIT, **changes},
            "classes": CLASSES,
            "tracking": {"log_models": False},
        }
    )
    inputs = Inputs(
        *(project / name for name in ("runs", "clips.parquet", "folds.csv", "baselines.parquet"))
    )
    aggregate.main(params, inputs, project / "predictions.parquet", project / "metrics")
    setting: dict[str, Any] = json.loads((project / "metrics/setting.json").read_text())
    return setting | {"page": (project / "metrics/table.md").read_text(encoding="utf-8")}


ALL_CLIPS = 24 * 8 * 2 - 2


@pytest.mark.parametrize(
    ("protocol", "num_folds"), [("paper", 5), ("mae-dfer", 6), ("emobox", 6), ("loso", 24)]
)
def test_all_folds_of_a_protocol_test_every_clip_once(
    protocol: str, num_folds: int, project: Path
) -> None:
    found = tables(project, protocol, list(range(1, num_folds + 1)))
    assert found["coverage"] == {
        "clips": ALL_CLIPS,
        "all_clips": ALL_CLIPS,
        "subjects": 24,
        "all_subjects": 24,
        "folds": list(range(1, num_folds + 1)),
        "all_folds": num_folds,
    }
    assert f"Tested: all {ALL_CLIPS} clips of all 24 subjects" in found["page"]
    assert f"protocol {protocol}, seed 1" in found["page"]
    assert "8 classes occur" in found["page"]
    assert "chance is a UAR of 12.5%" in found["page"]


def test_a_fold_whose_test_lacks_a_class_is_named(project: Path) -> None:
    found = tables(project, "loso", list(range(1, 25)))
    # Nobody but actor_01 is tested in the first fold.
    assert found["lacking"]["1"]["test"] == ["sad"]
    assert "test of fold 1 (sad)" in found["page"]


@pytest.mark.parametrize("protocol", ["mae-dfer", "emobox", "loso"])
def test_a_part_of_a_published_protocol_has_to_be_meant(protocol: str, project: Path) -> None:
    with pytest.raises(SystemExit, match=r"split\.partial"):
        make_folds(project, protocol, [1, 2])


@pytest.mark.parametrize(
    ("protocol", "folds", "clips", "subjects", "num_folds"),
    [
        ("emobox", [1, 2], 8 * 16 - 2, 8, 6),
        ("loso", [2], 16, 1, 24),
        ("paper", [1], None, None, 5),
        ("holdout", [1], None, None, 1),
    ],
)
def test_a_part_of_the_subjects_is_said_to_be_one(
    protocol: str,
    folds: list[int],
    clips: int | None,
    subjects: int | None,
    num_folds: int,
    project: Path,
) -> None:
    found = tables(project, protocol, folds, partial=True)
    coverage = found["coverage"]
    assert coverage["clips"] < coverage["all_clips"] == ALL_CLIPS
    assert coverage["all_folds"] == num_folds
    if clips:
        assert (coverage["clips"], coverage["subjects"]) == (clips, subjects)
    said = f"{coverage['clips']} of {ALL_CLIPS} clips, {coverage['subjects']} of 24 subjects"
    assert f"**Tested: {said}**" in found["page"]
    assert "every subject in exactly one fold" not in found["page"]
