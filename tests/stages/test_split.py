from pathlib import Path

import pytest

from pipeline.common.clips import CLIP, StoredClip, read_stored, write_stored
from pipeline.folds.folds import read_fold, read_folds
from pipeline.folds.protocols import PUBLISHED
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


def params(
    protocol: str, folds: list[int], dataset: str = "sample", *, partial: bool = False
) -> Params:
    split = {
        "protocol": protocol,
        "partial": partial,
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
    printed = capsys.readouterr().out
    assert "5 folds by protocol paper, 2 of them to be trained" in printed
    assert "lacks" not in printed


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


@pytest.fixture
def ravdess(tmp_path: Path) -> Path:
    """A clip of each of the eight classes of each of the 24 actors."""
    path = tmp_path / "ravdess.parquet"
    classes = PUBLISHED["emobox"]["ravdess"].classes
    actors = [f"actor_{number:02}" for number in range(1, 25)]
    write_stored(
        path,
        [StoredClip(f"{a}_{label}", "", a, label) for a in actors for label in sorted(classes)],
    )
    return path


def test_official_folds_are_all_of_them_or_a_part_that_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [
        StoredClip(
            f"c{i}",
            f"c{i}.mp4",
            f"c{i}",
            ("happy", "sad")[i % 2],
            split=" ".join("test" if fold == i // 4 else "train" for fold in range(3)),
            group_kind=CLIP,
        )
        for i in range(12)
    ]
    write_stored(tmp_path / "clips.parquet", clips)
    out = tmp_path / "folds.csv"
    with pytest.raises(SystemExit, match=r"tests dfew in 3 folds; .* lists 1 .* 8 clips would not"):
        main(params("official", [1], "dfew"), tmp_path / "clips.parquet", out)
    main(params("official", [1], "dfew", partial=True), tmp_path / "clips.parquet", out)
    assert "clips for training/validation/test: 6/2/4; 6/2/4; 6/2/4" in capsys.readouterr().out
    fold = read_fold(out, 2)
    assert [clips[row].clip for row in fold.rows(clips, "test")] == ["c4", "c5", "c6", "c7"]


@pytest.mark.parametrize(
    ("protocol", "num_folds", "untested"), [("mae-dfer", 6, 4), ("emobox", 6, 4), ("loso", 24, 19)]
)
def test_a_part_of_a_protocol_is_trained_only_where_it_is_marked_as_wanted(
    protocol: str, num_folds: int, untested: int, ravdess: Path, tmp_path: Path
) -> None:
    every = list(range(1, num_folds + 1))
    out = tmp_path / "folds.csv"
    with pytest.raises(SystemExit) as raised:
        main(params(protocol, [1, 2, 3, 4, 5], "ravdess"), ravdess, out)
    message = str(raised.value)
    assert f"{num_folds} folds; `folds` in params.yaml lists 5 of them, and {untested}" in message
    assert f"-S 'folds={every}'" in message
    assert "-S split.partial=true" in message
    assert not out.exists()
    main(params(protocol, [1, 2, 3, 4, 5], "ravdess", partial=True), ravdess, out)
    assert len(read_folds(out)) == num_folds
    out.unlink()
    main(params(protocol, every, "ravdess"), ravdess, out)
    assert len(read_folds(out)) == num_folds


def test_classes_that_a_part_lacks_are_printed_for_the_folds_that_are_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two show surprise: one is tested where the other must be trained on, so validation lacks it.
    clips = [
        StoredClip(f"{subject}_{label}", "", subject, label)
        for s, subject in enumerate(SUBJECTS)
        for label in ("happy", "sad", *(["surprised"] if s in (0, 1) else []))
    ]
    write_stored(tmp_path / "clips.parquet", clips)
    main(params("loso", [1, 3], partial=True), tmp_path / "clips.parquet", tmp_path / "folds.csv")
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines == [
        "split: fold 1: validation lacks surprised; a UAR there is over the other classes",
        "split: fold 3: test lacks surprised; a UAR there is over the other classes",
    ]


def test_a_published_protocol_is_not_guessed_for_other_data(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="defined for ravdess and cremad, not for sample"):
        main(params("mae-dfer", [1]), manifest, tmp_path / "folds.csv")
    assert not (tmp_path / "folds.csv").exists()


def test_emobox_is_defined_for_ravdess_alone(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="emobox is defined for ravdess, not for cremad"):
        main(params("emobox", [1], "cremad"), manifest, tmp_path / "folds.csv")
