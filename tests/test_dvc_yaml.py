import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from project import ROOT, paths_untold, source_files

from pipeline.common.imports import OBSERVERS, needed_files
from pipeline.common.params import StageParams

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))[
    "stages"
]
LOCK: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))[
    "stages"
]
LIBRARIES = ["requirements.txt", "constraints.txt"]
# Files of the folders that a stage depends on which it does not import: an edit there runs it
# again in vain. Split and the two last stages take seconds.
MAX_UNUSED = {
    "baseline": 9,
    "label": 10,
    "split": 10,
    "finetune": 10,
    "aggregate": 17,
    "report": 18,
}
MAX_UNUSED_ELSEWHERE = 8


def needed(stage: str) -> set[Path]:
    return needed_files(Path(f"stages/{stage}.py"), ROOT, without=[OBSERVERS])


def test_every_stage_has_a_script_of_its_name() -> None:
    scripts = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert set(STAGES) == scripts


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_that_it_imports_and_on_few_others(stage: str) -> None:
    deps = source_files(STAGES[stage])
    assert needed(stage) <= deps
    unused = deps - needed(stage)
    assert len(unused) <= MAX_UNUSED.get(stage, MAX_UNUSED_ELSEWHERE), sorted(map(str, unused))


@pytest.mark.parametrize("stage", STAGES)
def test_no_result_depends_on_how_mlflow_is_told_about_it(stage: str) -> None:
    assert not [path for path in source_files(STAGES[stage]) if OBSERVERS in path.parents]


@pytest.mark.parametrize("stage", STAGES)
def test_other_versions_of_the_libraries_make_a_stage_stale(stage: str) -> None:
    assert set(LIBRARIES) <= set(STAGES[stage]["deps"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_exactly_the_parameters_that_it_reads(stage: str) -> None:
    params: type[StageParams] = import_module(f"stages.{stage}").Params
    assert sorted(STAGES[stage]["params"]) == sorted(params.dvc_names())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_told_the_paths_that_it_depends_on_and_writes(stage: str) -> None:
    entry = STAGES[stage]
    outs = [out for key in ("outs", "metrics", "plots") for out in entry.get(key, [])]
    names = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    code = ("stages/", "pipeline/", *LIBRARIES)
    data = [dep for dep in entry["deps"] if not dep.startswith(code)]
    assert paths_untold(STAGES[stage], [*data, *names]) == []


def test_the_lock_file_holds_exactly_the_declared_stages() -> None:
    folds = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["folds"]
    expected = (set(STAGES) - {"finetune"}) | {f"finetune@{fold}" for fold in folds}
    assert set(LOCK) == expected


def test_the_model_of_every_fold_is_an_artifact() -> None:
    document = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    folds = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["folds"]
    paths = [artifact["path"] for artifact in document["artifacts"].values()]
    assert paths == [f"runs/fold{fold}" for fold in folds]


@pytest.mark.parametrize("folder", ["", "pretrain", "affect"])
def test_few_scores_are_compared_and_none_is_missing_from_the_committed_run(folder: str) -> None:
    stages = yaml.safe_load((ROOT / folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    files = [next(iter(file)) for one in stages.values() for file in one.get("metrics", [])]
    scores = {Path(file).name: json.loads((ROOT / file).read_text("utf-8")) for file in files}
    scores.pop("data_quality.json", None)
    assert 1 <= sum(len(one) for one in scores.values()) <= 10


@pytest.mark.parametrize(
    ("file", "setting"),
    [
        ("params.yaml", "seed=7"),
        ("affect/params.yaml", "system=cotex"),
        ("pretrain/params.yaml", "seed=7"),
    ],
)
def test_an_experiment_with_another_setting_changes_one_line_of_params_yaml(
    file: str, setting: str, tmp_path: Path
) -> None:
    before = (ROOT / file).read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(before, encoding="utf-8")
    apply_overrides(tmp_path / "params.yaml", [setting])
    after = (tmp_path / "params.yaml").read_text(encoding="utf-8")
    assert len(set(after.splitlines()) - set(before.splitlines())) == 1
    assert len(after.splitlines()) == len(before.splitlines())


def test_numbers_in_exponent_form_are_numbers() -> None:
    def leaves(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [leaf for part in value.values() for leaf in leaves(part)]
        return [value]

    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    words = [leaf for leaf in leaves(document) if isinstance(leaf, str)]
    assert not [word for word in words if word[0].isdigit() and "e-" in word]
