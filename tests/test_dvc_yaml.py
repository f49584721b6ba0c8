from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT, all_imports_of

from pipeline.common.params import StageParams

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))[
    "stages"
]
LOCK: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))[
    "stages"
]


def test_every_stage_has_a_script_of_its_name() -> None:
    scripts = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert set(STAGES) == scripts


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_that_it_imports_and_on_no_other(stage: str) -> None:
    deps = {Path(dep) for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert deps == all_imports_of(Path(f"stages/{stage}.py"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_exactly_the_parameters_that_it_reads(stage: str) -> None:
    params: type[StageParams] = import_module(f"stages.{stage}").Params
    assert STAGES[stage]["params"] == params.dvc_names()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_told_the_paths_that_it_depends_on_and_writes(stage: str) -> None:
    entry = STAGES[stage]
    outs = [out for key in ("outs", "metrics", "plots") for out in entry.get(key, [])]
    names = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    code = (".py", ".jinja")
    data = [dep for dep in entry["deps"] if not dep.endswith(code) and dep != "${encoder.weights}"]
    arguments = entry["cmd"].split()[3:]
    for path in [*data, *names]:
        assert any(
            path == argument or Path(argument) in Path(path).parents for argument in arguments
        ), path


def test_the_lock_file_holds_exactly_the_declared_stages() -> None:
    folds = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["folds"]
    expected = (set(STAGES) - {"finetune"}) | {f"finetune@{fold}" for fold in folds}
    assert set(LOCK) == expected


def test_numbers_in_exponent_form_are_numbers() -> None:
    def leaves(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [leaf for part in value.values() for leaf in leaves(part)]
        return [value]

    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    words = [leaf for leaf in leaves(document) if isinstance(leaf, str)]
    assert not [word for word in words if word[0].isdigit() and "e-" in word]
