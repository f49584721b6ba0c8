import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from project import ROOT
from small import baselines, setting

from commands import table_one
from commands.experiments import FinishedExperiment, Trial, read_params, shared_digest
from commands.table_one import collect, main
from pipeline.evaluation.record import Record
from pipeline.evaluation.setting import Setting
from pipeline.mtcae.structures import STRUCTURES, Structure
from pipeline.tracking.experiment import TrackedExperiment

CLASSES = ["happy", "sad"]
STL, CASCADE = STRUCTURES[0], STRUCTURES[-1]
PARAMS = read_params(ROOT / "params.yaml")
TABLES = ["ablation.csv", "ablation.md", "ablation.tex"]


def predictions(trial: Trial, num_subjects: int) -> pd.DataFrame:
    """Two clips of both classes of each subject, in two folds that the seed draws.

    A clip is right with a probability of 0.7.
    """
    random = np.random.default_rng([STRUCTURES.index(trial.structure), trial.seed])
    rows = [
        (1 + (i + trial.seed) % 2, f"s{i:02}_{name}{k}", f"s{i:02}", name)
        for i in range(num_subjects)
        for name in CLASSES
        for k in range(2)
    ]
    table = pd.DataFrame(rows, columns=["fold", "clip", "subject", "actual"])
    says_sad = (table["actual"] == "sad") == (random.random(len(table)) < 0.7)
    sad = (random.random(len(table), np.float32) + says_sad) / 2
    for name in ("box_iou", "landmark_error", "interocular_error"):
        table[name] = np.nan if trial.structure == STL else random.random(len(table))
    return table.assign(
        boxes=pd.Series([np.zeros(64, np.float32)] * len(table)),
        points=pd.Series([np.zeros(160, np.float32)] * len(table)),
        predicted=np.where(says_sad, "sad", "happy"),
        probability_happy=(1 - sad).astype(np.float32),
        probability_sad=sad.astype(np.float32),
    )


class Dvc:
    """What DVC and MLflow would say: finished experiments, and what of them is in the cache."""

    def __init__(self) -> None:
        self.finished: dict[Trial, FinishedExperiment] = {}
        self.cache: dict[tuple[str, str], pd.DataFrame] = {}

    def run(
        self, structure: Structure, seed: int, *, subjects: int = 12, **changes: Any
    ) -> pd.DataFrame:
        """Finish an experiment; its predictions."""
        trial = Trial(structure, seed)
        table = predictions(trial, subjects)
        arch, decoder = structure
        params = PARAMS | changes | {"arch": arch, "decoder": decoder, "seed": seed}
        name = f"{structure.name}-{seed}"
        self.cache[name, "predictions"] = table
        self.cache[name, "baselines"] = baselines(table.drop(columns=["boxes", "points"]), CLASSES)
        summary = {"num_parameters": 1000 + len(structure.name)}
        found = self.setting_of(table, params)
        self.finished[trial] = FinishedExperiment(name, "commit", params, summary, found)
        return table

    def setting_of(self, table: pd.DataFrame, params: dict[str, Any]) -> Setting:
        chosen = {name: params[name] for name in ("dataset", "model", "recipe")}
        return setting(table, CLASSES, seeds=[params["seed"]], **chosen)

    def read(self, finished: FinishedExperiment, kind: str) -> pd.DataFrame:
        if (finished.name, kind) not in self.cache:
            raise FileNotFoundError(f"the predictions of {finished.name} are not in DVC's cache")
        return self.cache[finished.name, kind]


@pytest.fixture
def dvc(monkeypatch: pytest.MonkeyPatch) -> Dvc:
    """Nothing was run yet, with the parameters of params.yaml."""
    fake = Dvc()

    def finished(params: dict[str, Any]) -> dict[Trial, FinishedExperiment]:
        digest = shared_digest(params)
        return {
            trial: one
            for trial, one in fake.finished.items()
            if shared_digest(one.params) == digest
        }

    monkeypatch.setattr(table_one, "read_params", lambda: PARAMS)
    monkeypatch.setattr(table_one, "finished_experiments", finished)
    monkeypatch.setattr(table_one, "read_predictions", fake.read)
    monkeypatch.setattr(table_one, "training_seconds", seconds_of)
    return fake


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows(out: Path) -> dict[str, dict[Any, Any]]:
    table = pd.read_csv(out / "ablation.csv")
    return {row["structure"]: row for row in table.to_dict("records")}


def page(out: Path) -> str:
    return (out / "ablation.md").read_text(encoding="utf-8")


def right(table: pd.DataFrame) -> float:
    return float((table["predicted"] == table["actual"]).mean())


def seconds_of(experiment: TrackedExperiment) -> float:
    return 10.0 * int(experiment.choices["seed"])


def recorded(params: dict[str, Any], folder: Path) -> Record:
    """What is collected, and written."""
    record = collect(params, folder)
    assert record
    record.write(folder)
    return record


def test_where_nothing_was_run_nothing_is_collected(dvc: Dvc, tmp_path: Path) -> None:
    assert collect(PARAMS, tmp_path) is None
    with pytest.raises(SystemExit, match="no finished experiment upon this commit"):
        main(tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_what_was_run_is_collected_with_all_that_the_table_says(dvc: Dvc, tmp_path: Path) -> None:
    tables = {(one.name, 2): dvc.run(one, 2) for one in (CASCADE, STL)}
    record = recorded(PARAMS, tmp_path)
    assert record.parameters == shared_digest(PARAMS)
    assert record.predictions.keys() == tables.keys()
    for key, table in tables.items():
        kept = record.predictions[key]
        pd.testing.assert_frame_equal(kept, table.drop(columns=["boxes", "points"]))
    run = record.runs["stl", 2]
    assert (run.experiment, run.num_parameters, run.training_seconds) == ("stl-2", 1003, 20)


def test_a_recorded_run_that_is_not_in_the_cache_is_taken_from_the_record(
    dvc: Dvc, tmp_path: Path
) -> None:
    table = dvc.run(CASCADE, 1)
    recorded(PARAMS, tmp_path)
    dvc.cache.clear()
    newer = dvc.run(STL, 1)
    record = collect(PARAMS, tmp_path)
    assert record
    assert record.runs.keys() == {("cascaded vit", 1), ("stl", 1)}
    for key, expected in ((("cascaded vit", 1), table), (("stl", 1), newer)):
        assert record.predictions[key]["predicted"].tolist() == expected["predicted"].tolist()
    # A run of which only a part is in the cache is one that is not.
    del dvc.cache["stl-1", "baselines"]
    with pytest.raises(FileNotFoundError, match="stl-1"):
        collect(PARAMS, tmp_path)


def test_a_run_that_is_neither_recorded_nor_in_the_cache_is_an_error(
    dvc: Dvc, tmp_path: Path
) -> None:
    dvc.run(CASCADE, 1)
    recorded(PARAMS, tmp_path)
    dvc.run(CASCADE, 2)
    dvc.cache.clear()
    with pytest.raises(FileNotFoundError, match="the predictions of cascaded vit-2 are not in DVC"):
        collect(PARAMS, tmp_path)
    with pytest.raises(FileNotFoundError, match="cascaded vit-"):
        collect(PARAMS, tmp_path / "nothing")


def test_a_run_in_the_cache_takes_the_place_of_the_recorded_one(dvc: Dvc, tmp_path: Path) -> None:
    dvc.run(CASCADE, 1)
    recorded(PARAMS, tmp_path)
    again = dvc.cache["cascaded vit-1", "predictions"].assign(predicted="sad")
    dvc.cache["cascaded vit-1", "predictions"] = again
    record = collect(PARAMS, tmp_path)
    assert record
    assert set(record.predictions["cascaded vit", 1]["predicted"]) == {"sad"}


def test_the_record_of_other_parameters_is_not_used(dvc: Dvc, tmp_path: Path) -> None:
    dvc.run(CASCADE, 1)
    recorded(PARAMS, tmp_path)
    others = PARAMS | {"folds": [1, 2]}
    assert collect(others, tmp_path) is None
    dvc.run(STL, 1, folds=[1, 2])
    record = collect(others, tmp_path)
    assert record
    assert record.runs.keys() == {("stl", 1)}
    assert record.parameters == shared_digest(others) != shared_digest(PARAMS)
    # Of the same ones it is used whatever structure and seed params.yaml has now.
    same = collect(PARAMS | {"arch": "stl", "seed": 9}, tmp_path)
    assert same
    assert same.runs.keys() == {("cascaded vit", 1)}


def test_the_table_has_the_scores_of_the_predictions(dvc: Dvc, tmp_path: Path) -> None:
    tables = {(one, seed): dvc.run(one, seed) for seed in (1, 2) for one in (STL, CASCADE)}
    main(tmp_path, [])
    found = rows(tmp_path)
    assert list(found) == ["stl", "cascaded vit", "linear model", "majority class", "chance"]
    for structure in (STL, CASCADE):
        shares = [right(tables[structure, seed]) for seed in (1, 2)]
        row = found[structure.name]
        # As many clips of both classes: UAR and WAR are the share of right clips.
        assert row["uar_pooled"] == pytest.approx(np.mean(shares), rel=1e-5)
        assert row["war_seed_std"] == pytest.approx(np.std(shares, ddof=1), rel=1e-5)
        assert row["experiment"] == f"{structure.name}-1 {structure.name}-2"
        assert (row["seeds"], row["training_seconds"]) == (2, 15)
    gap = found["stl"]["uar_pooled"] - found["cascaded vit"]["uar_pooled"]
    assert found["stl"]["uar_difference"] == pytest.approx(gap, abs=1e-5)
    assert found["linear model"]["uar_pooled"] == 1
    assert "seeds 1, 2." in page(tmp_path)
    assert "Tested: all 48 clips of all 12 subjects" in page(tmp_path)


def test_a_table_that_is_made_twice_is_the_same(dvc: Dvc, tmp_path: Path) -> None:
    # DVC tells of the newest experiment first.
    for seed in (2, 1):
        for structure in reversed(STRUCTURES):
            dvc.run(structure, seed)
    main(tmp_path, [])
    first = contents(tmp_path)
    assert sorted(first) == [
        *TABLES,
        "ablation/experiments.json",
        "ablation/predictions.parquet",
    ]
    main(tmp_path, [])
    assert contents(tmp_path) == first


def test_the_record_alone_makes_the_same_table(dvc: Dvc, tmp_path: Path) -> None:
    for seed in (2, 1):
        for structure in (CASCADE, STL):
            dvc.run(structure, seed)
    main(tmp_path, [])
    first = contents(tmp_path)
    committed = {Trial(CASCADE, 1): dvc.finished[Trial(CASCADE, 1)]}
    # A clone knows the committed run alone, whose predictions it has not, or not even that.
    for finished in (committed, {}):
        dvc.cache, dvc.finished = {}, finished
        for name in TABLES:
            (tmp_path / name).unlink()
        main(tmp_path, [])
        assert contents(tmp_path) == first


def test_structures_that_were_not_run_are_named(dvc: Dvc, tmp_path: Path) -> None:
    for structure in STRUCTURES:
        if structure != Structure("fully_shared", "mlp"):
            dvc.run(structure, 1)
    main(tmp_path, [])
    assert "Not run yet: fully_shared mlp." in page(tmp_path)
    dvc.run(Structure("fully_shared", "mlp"), 1)
    main(tmp_path, [])
    assert "Not run yet" not in page(tmp_path)
    assert list(rows(tmp_path))[:6] == [structure.name for structure in STRUCTURES]


def test_structures_with_other_seeds_are_named(dvc: Dvc, tmp_path: Path) -> None:
    for structure, seed in ((STL, 1), (CASCADE, 1), (CASCADE, 2)):
        dvc.run(structure, seed)
    main(tmp_path, [])
    assert "**The structures were not run with the same seeds**: stl 1; cascaded vit 1, 2." in page(
        tmp_path
    )
    dvc.run(STL, 2)
    main(tmp_path, [])
    assert "same seeds" not in page(tmp_path)


def test_structures_that_share_a_later_seed_are_compared(dvc: Dvc, tmp_path: Path) -> None:
    for structure, seed in ((STL, 2), (CASCADE, 1), (CASCADE, 2)):
        dvc.run(structure, seed)
    main(tmp_path, [])
    assert "stl 2; cascaded vit 1, 2." in page(tmp_path)


def test_few_subjects_have_no_interval_and_the_page_says_why(dvc: Dvc, tmp_path: Path) -> None:
    dvc.run(CASCADE, 1, subjects=9)
    main(tmp_path, [])
    assert "No interval: it takes 10 subjects, and here are 9." in page(tmp_path)
    other = tmp_path / "enough"
    dvc.run(CASCADE, 1, subjects=10)
    main(other, [])
    assert "No interval" not in page(other)


def test_runs_on_other_clips_are_refused_in_a_sentence(dvc: Dvc, tmp_path: Path) -> None:
    dvc.run(STL, 1)
    dvc.run(CASCADE, 1, subjects=11)
    with pytest.raises(SystemExit, match=r"table_one: .* were not tested on the same clips"):
        main(tmp_path, [])
    assert not list(tmp_path.glob("ablation.*"))


def test_another_system_stands_below_ours(dvc: Dvc, tmp_path: Path) -> None:
    ours = dvc.run(CASCADE, 1)
    path = tmp_path / "their predictions.csv"
    ours[["clip"]].assign(predicted="sad").to_csv(path, index=False)
    main(tmp_path / "out", [("theirs", path)])
    found = rows(tmp_path / "out")
    assert list(found)[:2] == ["cascaded vit", "theirs"]
    assert found["theirs"]["experiment"] == "their predictions.csv"
    assert found["theirs"]["uar_pooled"] == 0.5
    assert found["theirs"]["uar_difference"] == pytest.approx(0.5 - right(ours), abs=1e-5)
    # It is not ours to record.
    record = Record.read(tmp_path / "out/ablation")
    assert record
    assert record.runs.keys() == {("cascaded vit", 1)}


def test_another_system_is_named_before_its_file() -> None:
    assert table_one._other("my system=a=b.csv") == ("my system", Path("a=b.csv"))
    for text in ("a.csv", "=a.csv", "my system="):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not NAME=FILE"):
            table_one._other(text)


def test_another_system_that_lacks_clips_is_refused_in_a_sentence(dvc: Dvc, tmp_path: Path) -> None:
    ours = dvc.run(CASCADE, 1)
    path = tmp_path / "a.csv"
    ours[["clip"]].iloc[1:].assign(predicted="sad").to_csv(path, index=False)
    with pytest.raises(SystemExit, match=r"table_one: .*a\.csv lacks 1 of the 48 clips"):
        main(tmp_path, [("theirs", path)])


def test_another_system_stands_beside_several_seeds(dvc: Dvc, tmp_path: Path) -> None:
    # DVC tells of the newest experiment first.
    for seed in (2, 1):
        ours = dvc.run(CASCADE, seed)
    path = tmp_path / "a.csv"
    ours[["clip"]].assign(predicted="sad").to_csv(path, index=False)
    main(tmp_path, [("theirs", path)])
    assert rows(tmp_path)["theirs"]["uar_pooled"] == 0.5


def test_predictions_that_are_nowhere_end_the_command_in_a_sentence(
    dvc: Dvc, tmp_path: Path
) -> None:
    dvc.run(CASCADE, 1)
    dvc.cache.clear()
    with pytest.raises(SystemExit, match="not in DVC's cache"):
        main(tmp_path, [])


def test_runs_on_a_larger_data_set_bring_its_setting(dvc: Dvc, tmp_path: Path) -> None:
    dvc.run(CASCADE, 1, subjects=10)
    main(tmp_path, [])
    dvc.run(CASCADE, 1, subjects=12)
    main(tmp_path, [])
    assert rows(tmp_path)["cascaded vit"]["subjects"] == 12
    assert "Tested: all 48 clips of all 12 subjects" in page(tmp_path)
