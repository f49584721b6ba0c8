from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.common.clips import Clip, read_stored, write_stored
from pipeline.common.frames import FaceTrack
from pipeline.folds.folds import GroupFold, write_folds
from pipeline.store.contents import CLIPS
from pipeline.store.folders import LocalShards
from pipeline.store.shards import write_shards
from pipeline.store.strips import encode_strip
from stages.baseline import Params, main

SUBJECTS = [f"s{i}" for i in range(8)]
CLASSES = ["angry", "happy", "sad"]
POINTS = np.array([[20, 24], [44, 24], [32, 34], [24, 46], [40, 46]], np.float32)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two clips of each subject: the sad one is dark where the mouth is. Nobody is angry."""
    random = np.random.default_rng(0)
    labelled = []
    for subject in SUBJECTS:
        for label in ("happy", "sad"):
            frame = np.full((64, 64, 3), random.integers(90, 150), np.uint8)
            frame[42:50, 22:42] = 20 if label == "sad" else 230
            frames = np.stack([frame] * 2)
            boxes = np.array([[8, 8, 56, 56]] * 2, np.float32)
            track = FaceTrack(boxes, np.stack([POINTS] * 2), np.ones(2, bool))
            clip = Clip(f"{subject}_{label}", "", subject, label, content=f"{subject}{label}")
            labelled.append((clip, encode_strip(frames, 95), track))
    folder = tmp_path / "shards"
    write_stored(folder / CLIPS, write_shards(folder, labelled))
    return folder


def test_both_baselines_are_tested_on_the_test_clips_of_every_fold(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folds = tmp_path / "folds.csv"
    first, last = SUBJECTS[:4], SUBJECTS[4:]
    write_folds(
        folds,
        read_stored(shards / CLIPS),
        [GroupFold(1, last[1:], last[:1], first), GroupFold(2, first[1:], first[:1], last)],
    )
    params = Params(dataset="mine", folds=[1, 2], classes=CLASSES)
    out = tmp_path / "baselines.parquet"
    main(params, LocalShards(shards), folds, out)
    table = pd.read_parquet(out)
    for name, part in table.groupby("baseline"):
        tested = sorted(zip(part["fold"], part["subject"], strict=True))
        assert tested == sorted(
            [(1, s) for s in SUBJECTS[:4]] * 2 + [(2, s) for s in SUBJECTS[4:]] * 2
        )
        right = (part["actual"] == part["predicted"]).mean()
        assert right == (1.0 if name == "linear model" else 0.5)
    assert "linear model, UAR 100.0%" in capsys.readouterr().out
    main(params, LocalShards(shards), folds, tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == out.read_bytes()
