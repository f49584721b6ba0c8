"""The rules of tests/test_dvc_yaml.py, for the second pipeline."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT, paths_untold, source_files

from pipeline.common.imports import OBSERVERS, needed_files
from pipeline.common.params import StageParams
from pipeline.pretrain.manifest import Data

PARAMS = "pretrain/params.yaml"
STAGES: dict[str, dict[str, Any]] = yaml.safe_load(
    (ROOT / "pretrain/dvc.yaml").read_text(encoding="utf-8")
)["stages"]
LIBRARIES = ["requirements.txt", "constraints.txt"]
MAX_UNUSED = {"weights": 3, "collect": 10, "train": 24, "look": 0}


def script(stage: str) -> Path:
    """Stage weights is the one of the other pipeline."""
    return Path("stages/weights.py" if stage == "weights" else f"stages/pretrain/{stage}.py")


def module(stage: str) -> Any:
    return import_module(".".join(script(stage).with_suffix("").parts))


def test_every_stage_has_a_script_of_its_name() -> None:
    scripts = {path.stem for path in (ROOT / "stages/pretrain").glob("*.py")} - {"__init__"}
    assert set(STAGES) == scripts | {"weights"}
    assert all(entry["wdir"] == ".." for entry in STAGES.values())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_that_it_imports_and_on_few_others(stage: str) -> None:
    needed = needed_files(script(stage), ROOT, without=[OBSERVERS])
    deps = source_files(STAGES[stage])
    assert needed <= deps, sorted(map(str, needed - deps))
    unused = deps - needed
    assert len(unused) <= MAX_UNUSED[stage], sorted(map(str, unused))
    assert not [path for path in deps if OBSERVERS in path.parents]
    assert set(LIBRARIES) <= set(STAGES[stage]["deps"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_exactly_the_parameters_that_it_reads(stage: str) -> None:
    params: type[StageParams] = module(stage).Params
    (declared,) = STAGES[stage]["params"]
    assert sorted(declared[PARAMS]) == sorted(params.dvc_names())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_told_the_paths_that_it_depends_on_and_writes(stage: str) -> None:
    entry = STAGES[stage]
    outs = [out for key in ("outs", "metrics") for out in entry.get(key, [])]
    names = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    data = [dep for dep in entry["deps"] if not dep.startswith(("stages/", "pipeline/"))]
    # The folds are named in the parameters, because most collections exclude nobody.
    data = [dep for dep in data if dep not in (*LIBRARIES, "${exclude_folds.table}")]
    assert paths_untold(STAGES[stage], [*data, *names]) == []


def test_every_kind_of_data_has_settings_that_are_valid() -> None:
    document = yaml.safe_load((ROOT / PARAMS).read_text(encoding="utf-8"))
    kinds = Data.__args__  # type: ignore[attr-defined]
    assert set(document["sources"]) == set(kinds)
    for kind in kinds:
        params = module("collect").Params.from_document(document | {"data": kind})
        assert params.data == kind
    assert (ROOT / document["exclude_folds"]["table"]).is_file()
    assert document["sources"]["rendered"]["seed"] != _sample_seed()


def _sample_seed() -> int:
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    seed: int = document["datasets"]["sample"]["seed"]
    return seed


def test_no_out_is_a_file_that_the_other_pipeline_starts_from() -> None:
    # DVC would pre-train again for every experiment that runs in a copy of the project.
    outs = [
        out if isinstance(out, str) else next(iter(out))
        for entry in STAGES.values()
        for out in entry["outs"]
    ]
    assert outs
    assert not [out for out in outs if Path(out).parts[0] == "weights"]
