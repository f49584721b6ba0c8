import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small import NEW, baselines

from pipeline.common.clips import StoredClip, write_stored
from pipeline.common.encoder_weights import History
from pipeline.common.files import write_json
from pipeline.evaluation.setting import Coverage, Setting
from pipeline.folds.folds import GroupFold, write_folds
from stages import aggregate
from stages.aggregate import Inputs, Params, main

CLASSES = ["happy", "sad"]
# Of the person of that number, there are a sad clip and, for the first three, a happy one.
SUBJECTS = ["subject1", "subject2", "subject3", "subject4"]
CLIPS = [
    *(StoredClip(f"clip{i}", f"{i}.mp4", f"subject{i}", "sad") for i in range(1, 5)),
    *(StoredClip(f"happy{i}", f"h{i}.mp4", f"subject{i}", "happy") for i in range(1, 4)),
]
SPLIT = {
    "protocol": "loso",
    "partial": True,
    "num_folds": 5,
    "test_fraction": 0.2,
    "validation_fraction": 0.2,
}


def parameters(folds: list[int]) -> Params:
    choices = {"dataset": "tiny", "arch": "stl", "decoder": "vit", "model": "small"}
    return Params.model_validate(
        choices
        | {"recipe": "quick", "seed": 1, "folds": folds, "classes": CLASSES, "split": SPLIT}
        | {"tracking": {"log_models": False}}
    )


def write_fold(
    folder: Path, fold: int, predicted: str, best: str | None = None, **changes: Any
) -> None:
    """A trained fold that tested one sad clip, and was trained for as many epochs as its number.

    Args:
        folder: Of the fold.
        fold: Its number, and that of the clip.
        predicted: What its chosen epoch took the clip for.
        best: What its best epoch on test took it for.
        changes: Of the parameters of its training.
    """
    folder.mkdir(parents=True)
    clip = CLIPS[fold - 1]
    table = pd.DataFrame(
        {
            "fold": [fold],
            "clip": clip.clip,
            "subject": clip.group,
            "actual": clip.label,
            "predicted": predicted,
            "box_iou": np.nan,
            "landmark_error": np.nan,
            "interocular_error": np.nan,
            "probability_happy": 0.5,
            "probability_sad": 0.5,
        }
    )
    if best:
        table["predicted_optimistic"] = best
    table.to_parquet(folder / "predictions.parquet", index=False)
    history = pd.DataFrame({"epoch": range(1, fold + 1), "train_loss": 0.5})
    history.to_csv(folder / "history.csv", index=False)
    metrics = {"num_parameters": 7, "uar": fold / 10}
    write_json(folder / "metrics.json", metrics)
    metadata = TRAINING | changes | {"fold": fold, "metrics": metrics}
    write_json(folder / "model.json", {"metadata": metadata})


def card(history: History) -> dict[str, Any]:
    return {"name": "from_scratch", "history": history.model_dump()}


TRAINING: dict[str, Any] = {
    "dataset": "tiny",
    "arch": "stl",
    "decoder": "vit",
    "model": "small",
    "recipe": "quick",
    "seed": 1,
    "frames": {"segments": 2},
    "recipes": {"rate": 0.1, "evaluation": {"crops": 3}},
    "encoder": card(NEW),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three trained folds of four, of which the third errs, with a file beside them; no log."""
    for fold, predicted in ((1, "sad"), (2, "sad"), (3, "happy")):
        write_fold(tmp_path / f"runs/fold{fold}", fold, predicted)
    (tmp_path / "runs/fold3.txt").write_text("a note")
    write_stored(tmp_path / "clips.parquet", CLIPS)
    # Every person is a fold; the next one chooses the epoch.
    folds = [
        GroupFold(i + 1, sorted({*SUBJECTS} - {one, SUBJECTS[i - 3]}), [SUBJECTS[i - 3]], [one])
        for i, one in enumerate(SUBJECTS)
    ]
    write_folds(tmp_path / "folds.csv", CLIPS, folds)
    monkeypatch.setattr(aggregate, "log_experiment", lambda *_: None)
    return tmp_path


def run(project: Path, folds: list[int]) -> dict[str, Any]:
    """The summary of these folds."""
    tested = [pd.read_parquet(project / f"runs/fold{fold}/predictions.parquet") for fold in folds]
    baselines(pd.concat(tested), CLASSES).to_parquet(project / "baselines.parquet", index=False)
    inputs = Inputs(
        project / "runs",
        project / "clips.parquet",
        project / "folds.csv",
        project / "baselines.parquet",
    )
    main(parameters(folds), inputs, project / "predictions.parquet", project / "metrics")
    summary: dict[str, Any] = json.loads((project / "metrics/summary.json").read_text("utf-8"))
    return summary


def page(project: Path) -> str:
    return (project / "metrics/table.md").read_text(encoding="utf-8")


def setting(project: Path) -> Setting:
    return Setting.model_validate_json((project / "metrics/setting.json").read_text("utf-8"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_scores_that_experiments_are_compared_by_have_a_file_of_their_own(project: Path) -> None:
    summary = run(project, [1, 2, 3])
    scores = json.loads((project / "metrics/scores.json").read_text("utf-8"))
    assert scores["uar_pooled"] == summary["uar"]["pooled"]
    assert scores["war_pooled"] == summary["war"]["pooled"]
    assert scores["linear_uar"] == summary["baselines"]["linear_uar"]


def test_the_folder_of_a_fold_that_is_no_longer_declared_is_moved_and_not_counted(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project, [1, 2, 3])["war"]["pooled"] == pytest.approx(2 / 3, abs=1e-6)
    assert names(project / "runs") == ["fold1", "fold2", "fold3", "fold3.txt"]
    before = (project / "runs/fold3/history.csv").read_bytes()
    assert "moved" not in capsys.readouterr().out

    assert run(project, [1, 2])["war"]["pooled"] == 1
    assert names(project / "runs") == ["fold1", "fold2", "fold3.txt", "undeclared"]
    assert names(project / "runs/undeclared") == ["fold3"]
    assert (project / "runs/undeclared/fold3/history.csv").read_bytes() == before
    assert "fold3 is of no fold in params.yaml and was moved to" in capsys.readouterr().out


def test_a_fold_that_is_moved_again_takes_the_place_of_the_older_one(project: Path) -> None:
    run(project, [1, 2])
    (project / "runs/undeclared/fold3/old.txt").touch()
    write_fold(project / "runs/fold3", 3, "sad")
    run(project, [1, 2])
    assert not (project / "runs/fold3").exists()
    predictions = pd.read_parquet(project / "runs/undeclared/fold3/predictions.parquet")
    assert predictions["predicted"].tolist() == ["sad"]
    assert "old.txt" not in names(project / "runs/undeclared/fold3")


def test_only_declared_folds_are_in_the_tables(project: Path) -> None:
    run(project, [1, 3])
    history = pd.read_csv(project / "metrics/history.csv")
    assert history.columns.tolist() == ["fold", "epoch", "train_loss"]
    assert history["fold"].tolist() == [1, 3, 3, 3]
    assert history["epoch"].tolist() == [1, 1, 2, 3]
    predictions = pd.read_parquet(project / "predictions.parquet")
    assert predictions["clip"].tolist() == ["clip1", "clip3"]
    assert pd.read_csv(project / "metrics/folds.csv")["fold"].tolist() == [1, 3]
    assert names(project / "runs/undeclared") == ["fold2"]


def test_a_part_of_the_folds_is_said_to_be_one(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run(project, [1, 3])
    assert (summary["clips"], summary["subjects"], summary["folds"]) == (2, 2, 2)
    assert setting(project).coverage == Coverage(
        clips=2, all_clips=7, subjects=2, all_subjects=4, folds=[1, 3], all_folds=4
    )
    said = "**Tested: 2 of 7 clips, 2 of 4 subjects** (folds 1, 3 of 4)"
    printed = capsys.readouterr().out
    for text in (page(project), printed):
        assert said in text
        assert "exactly one fold" not in text
        assert "Tested: all" not in text
    assert "WAR 50.0% pooled over 2 of 7 clips, 2 of 4 subjects" in printed


def test_all_of_the_folds_are_called_all(project: Path) -> None:
    write_stored(project / "clips.parquet", CLIPS[:3])
    run(project, [1, 2, 3])
    assert setting(project).coverage.complete
    assert "Tested: all 3 clips of all 3 subjects, every subject in exactly one fold" in page(
        project
    )


def test_the_setting_says_what_was_chosen_and_what_lacks_a_class(project: Path) -> None:
    run(project, [1, 3])
    found = setting(project)
    assert found.in_a_line() == (
        "Model small, recipe quick, encoder from_scratch, protocol loso, seed 1, the mean over 6 "
        "views of every test clip"
    )
    assert (found.dataset, found.classes, found.occurring) == ("tiny", CLASSES, ["sad"])
    # The validation of fold 3 is the fourth subject's, who has no happy clip. Fold 4 is not tested.
    assert found.lacking == {3: {"validation": ["happy"]}}
    assert "Without a clip of a class: validation of fold 3 (happy)." in page(project)
    assert "No clip of happy was tested" in page(project)


def test_whom_the_encoder_has_seen_is_what_its_card_says(project: Path) -> None:
    history = History(known=False, trained_on="", groups={})
    for fold in (1, 2):
        folder = project / f"runs/fold{fold}"
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        write_fold(
            folder, fold, "sad", encoder={"name": "mine.pt", "history": history.model_dump()}
        )
    run(project, [1, 2])
    assert (setting(project).encoder, setting(project).history) == ("mine.pt", history)
    assert "Of the encoder's weights (mine.pt) nobody knows" in page(project)


def test_who_was_tested_and_seen_before_is_counted(project: Path) -> None:
    tested = sorted(pd.read_parquet(project / "runs/fold1/predictions.parquet")["subject"].unique())
    history = History(known=True, trained_on="", groups={"tiny": [*tested, "somebody else"]})
    for fold in (1, 2):
        shutil.rmtree(project / f"runs/fold{fold}")
        write_fold(project / f"runs/fold{fold}", fold, "sad", encoder=card(history))
    run(project, [1, 2])
    assert setting(project).seen == len(tested)
    assert f"has seen {len(tested)} of the" in page(project)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"recipes": {"rate": 0.2}}, "recipes"),
        ({"encoder": card(NEW.with_groups("tiny", ["subject1"])), "seed": 2}, "encoder, seed"),
        ({"new": 1}, "new"),
    ],
)
def test_folds_of_two_trainings_are_refused_with_what_they_differ_in(
    changes: dict[str, Any], names: str, project: Path
) -> None:
    write_fold(project / "runs/fold4", 4, "sad", **changes)
    with pytest.raises(SystemExit) as refusal:
        run(project, [1, 2, 4])
    assert str(refusal.value) == (
        f"aggregate: folds 1 and 4 were trained with other values of {names}; train one of them "
        "again (`dvc repro --single-item finetune@4`)"
    )
    assert not (project / "metrics").exists()


def test_predictions_that_are_not_of_the_manifest_are_refused(project: Path) -> None:
    write_stored(project / "clips.parquet", CLIPS[1:])
    with pytest.raises(SystemExit, match=r"aggregate: clip1 was tested .* no such clip"):
        run(project, [1, 2])
    assert not (project / "metrics").exists()


def test_the_best_epochs_on_test_and_their_gap_stand_in_the_page(project: Path) -> None:
    write_folds_with_best_epochs(project, ["sad", "sad"])
    summary = run(project, [1, 3])
    assert summary["uar"]["pooled"] == 0.5
    assert summary["uar_optimistic"] == {"mean": 1, "std": 0, "pooled": 1}
    assert "Pooled it is 100.00%, +50.0 points beside the 50.00% of the epochs that" in page(
        project
    )
    assert "| uar, best epoch on test |" in page(project)
    folds = pd.read_csv(project / "metrics/folds.csv")
    assert folds["uar"].tolist() == [1, 0]
    assert folds["uar_optimistic"].tolist() == [1, 1]
    assert pd.read_parquet(project / "predictions.parquet")["predicted_optimistic"].tolist() == [
        *("sad", "sad")
    ]


def write_folds_with_best_epochs(project: Path, best: Sequence[str]) -> None:
    """Folds 1 and 3 again, the second of which errs in its chosen epoch."""
    for fold, predicted, on_test in zip((1, 3), ("sad", "happy"), best, strict=True):
        (project / f"runs/fold{fold}").rename(project / f"old{fold}")
        write_fold(project / f"runs/fold{fold}", fold, predicted, on_test)


def test_without_best_epochs_on_test_nothing_speaks_of_them(project: Path) -> None:
    assert "uar_optimistic" not in run(project, [1, 3])
    assert "est epoch on test" not in page(project)
    assert "uar_optimistic" not in pd.read_csv(project / "metrics/folds.csv")


def test_mlflow_is_given_the_parameters_of_the_training_and_the_scores(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[Any] = []
    monkeypatch.setattr(aggregate, "log_experiment", lambda *values: logged.extend(values))
    run(project, [1, 2])
    experiment, folds, summary, _, _, more = logged
    assert experiment.choices["arch"] == "stl"
    assert experiment.params == TRAINING | {"encoder": {"name": "from_scratch"}}
    assert (more["folds"], more["protocol"]) == ([1, 2], "loso")
    assert {fold: files.metrics["uar"] for fold, files in folds.items()} == {1: 0.1, 2: 0.2}
    assert (summary["uar_pooled"], summary["linear_uar"], summary["chance_uar"]) == (1, 1, 1)


def test_two_runs_give_the_same_files(project: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (project / "metrics").iterdir()}

    run(project, [1, 2, 3])
    first = contents()
    run(project, [1, 2, 3])
    assert contents() == first
