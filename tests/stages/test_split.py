from pathlib import Path

import pytest

from pipeline.common.clips import StoredClip, read_stored, write_stored
from pipeline.folds.folds import read_fold
from stages.split import Params, main

SUBJECTS = [f"s{s:02}" for s in range(10)]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Ten subjects, women and men in turn, with three clips of each of two labels."""
    path = tmp_path / "clips.parquet"
    clips = [
        StoredClip(f"{subject}_{label}_{i}", "", subject, label, sex=("female", "male")[s % 2])
        for s, subject in enumerate(SUBJECTS)
        for label in ("happy", "sad")
        for i in range(3)
    ]
    write_stored(path, clips)
    return path


def params(protocol: str, folds: list[int], dataset: str = "sample") -> Params:
    split = {
        "protocol": protocol,
        "num_folds": 5,
        "test_fraction": 0.2,
        "validation_fraction": 0.2,
    }
    return Params.model_validate({"dataset": dataset, "folds": folds, "split": split, "seed": 1})


def test_all_folds_are_written_also_those_that_are_not_trained(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(params("paper", [1, 3]), manifest, tmp_path / "folds.csv")
    folds = [read_fold(tmp_path / "folds.csv", number) for number in range(1, 6)]
    clips = read_stored(manifest)
    tested = [[clips[row] for row in fold.rows(clips, "test")] for fold in folds]
    names = [clip.clip for part in tested for clip in part]
    assert sorted(names) == [clip.clip for clip in clips]
    assert sorted(s for part in tested for s in {clip.group for clip in part}) == SUBJECTS
    assert "5 folds by protocol paper, 2 of them to be trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("protocol", "folds", "message"),
    [
        (
            "paper",
            [1, 2, 3, 4, 5, 6],
            r"makes 5 fold.* also lists \[6\].* 'folds=\[1, 2, 3, 4, 5\]",
        ),
        ("holdout", [1, 2], r"makes 1 fold.* also lists \[2\].* 'folds=\[1\]'"),
        ("loso", [0, 10], r"makes 10 fold.* also lists \[0\].* 'folds=\[1, 2, .* 9, 10\]'"),
    ],
)
def test_a_fold_that_the_protocol_does_not_make_stops_with_the_list_of_those_it_makes(
    protocol: str, folds: list[int], message: str, manifest: Path, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=message):
        main(params(protocol, folds), manifest, tmp_path / "folds.csv")
    assert not (tmp_path / "folds.csv").exists()


def test_a_published_protocol_is_not_guessed_for_other_data(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="defined for ravdess and cremad, not for sample"):
        main(params("mae-dfer", [1]), manifest, tmp_path / "folds.csv")
    assert not (tmp_path / "folds.csv").exists()
