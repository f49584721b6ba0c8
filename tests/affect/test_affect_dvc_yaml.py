"""The rules of tests/test_dvc_yaml.py, for the pipeline of the affect models."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT, paths_untold, source_files

from pipeline.affect.choices import SetName
from pipeline.common.imports import OBSERVERS, needed_files
from pipeline.common.params import StageParams

PARAMS = "affect/params.yaml"
STAGES: dict[str, dict[str, Any]] = yaml.safe_load(
    (ROOT / "affect/dvc.yaml").read_text(encoding="utf-8")
)["stages"]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / PARAMS).read_text(encoding="utf-8"))
LIBRARIES = ["requirements.txt", "constraints.txt"]
MAX_UNUSED = {"faces": 6, "prior": 12, "cnn": 14, "train": 18, "report": 6}


def module(stage: str) -> Any:
    return import_module(f"stages.affect.{stage}")


def outs_of(stage: str) -> list[Any]:
    entry = STAGES[stage]
    return [out for key in ("outs", "metrics") for out in entry.get(key, [])]


def test_every_stage_has_a_script_of_its_name() -> None:
    scripts = {path.stem for path in (ROOT / "stages/affect").glob("*.py")} - {"__init__"}
    assert set(STAGES) == scripts
    assert all(entry["wdir"] == ".." for entry in STAGES.values())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_that_it_imports_and_on_few_others(stage: str) -> None:
    needed = needed_files(Path(f"stages/affect/{stage}.py"), ROOT, without=[OBSERVERS])
    deps = source_files(STAGES[stage])
    assert needed <= deps, sorted(map(str, needed - deps))
    unused = deps - needed
    assert len(unused) <= MAX_UNUSED.get(stage, 0), sorted(map(str, unused))
    assert not [path for path in deps if OBSERVERS in path.parents]
    assert set(LIBRARIES) <= set(STAGES[stage]["deps"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_exactly_the_parameters_that_it_reads(stage: str) -> None:
    params: type[StageParams] = module(stage).Params
    (declared,) = STAGES[stage]["params"]
    assert sorted(declared[PARAMS]) == sorted(params.dvc_names())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_told_the_paths_that_it_depends_on_and_writes(stage: str) -> None:
    names = [next(iter(out)) for out in outs_of(stage)]
    data = [d for d in STAGES[stage]["deps"] if not d.startswith(("stages/", "pipeline/"))]
    assert (
        paths_untold(STAGES[stage], [*(name for name in data if name not in LIBRARIES), *names])
        == []
    )


@pytest.mark.parametrize("stage", STAGES)
def test_no_out_is_cached_so_that_checkouts_of_other_pipelines_do_not_miss_it(stage: str) -> None:
    assert all(options == {"cache": False} for out in outs_of(stage) for options in out.values())


def test_every_set_has_settings_that_are_valid() -> None:
    names = SetName.__args__  # type: ignore[attr-defined]
    assert set(DOCUMENT["sets"]) == set(names)
    for name in names:
        assert module("faces").Params.from_document(DOCUMENT | {"set": name}).set == name


@pytest.mark.parametrize("model", DOCUMENT["models"])
@pytest.mark.parametrize("recipe", DOCUMENT["recipes"])
def test_every_preset_is_valid(model: str, recipe: str) -> None:
    params = module("train").Params.from_document(DOCUMENT | {"model": model, "recipe": recipe})
    assert params.recipes.engine.epochs
    assert params.models.stored_side <= params.models.encoder.image_size


def test_prior_and_cnn_see_other_people_than_the_set() -> None:
    assert DOCUMENT["people"]["seed"] != DOCUMENT["sets"]["rendered"]["seed"]


def test_the_lock_file_holds_exactly_the_declared_stages() -> None:
    lock = yaml.safe_load((ROOT / "affect/dvc.lock").read_text(encoding="utf-8"))["stages"]
    trained = {f"train@{fold}-{seed}" for fold in DOCUMENT["folds"] for seed in DOCUMENT["seeds"]}
    assert set(lock) == (set(STAGES) - {"train"}) | trained


def test_the_committed_scores_are_clearly_above_the_constant_predictors() -> None:
    summary = json.loads((ROOT / "affect/metrics/summary.json").read_text(encoding="utf-8"))
    for name in ("p_mtl", "va_ccc", "expression_f1", "au_f1"):
        assert summary["low"][name] > summary["constant"][name] + 0.05
