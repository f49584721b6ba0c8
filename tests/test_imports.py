from pathlib import Path

import pytest
from project import ROOT, all_imports_of, imports_of, modules

DATA_FOR_TRAINING = {
    Path(f"pipeline/data/{name}.py") for name in ("augment", "loader", "shards", "transforms")
}


# Run by people and imported by nothing: like a stage, a command may bring all areas together.
COMMANDS = {Path("pipeline/evaluation/cross.py"), Path("pipeline/evaluation/tables.py")}


def area(module: Path) -> str:
    """`pipeline/data/x.py` -> `data`, `pipeline/files.py` -> `files`, `stages/x.py` -> `stages`."""
    if module in COMMANDS:
        return "commands"
    return module.parts[0] if module.parts[0] == "stages" else module.with_suffix("").parts[1]


# Which areas each area may import besides itself; `stages` may not import even one another.
ALLOWED = {
    "files": set(),
    "markdown": set(),
    "memory": set(),
    "structures": set(),
    "vocabulary": set(),
    "workers": set(),
    "params": set(),
    "data": {"files", "markdown", "vocabulary"},
    "models": {"structures"},
    "evaluation": {"files", "markdown", "structures", "vocabulary"},
    "training": {"models", "evaluation", "data", "files"},
    "packaging": set(),
    "serving": {"data", "models"},
    "run_store": {"files", "packaging"},
    "tracking": {"run_store"},
    "experiments": {"files", "structures"},
    "commands": {
        "data",
        "evaluation",
        "experiments",
        "files",
        "markdown",
        "models",
        "structures",
        "tracking",
        "training",
    },
    "stages": {
        "files",
        "markdown",
        "memory",
        "workers",
        "params",
        "data",
        "models",
        "evaluation",
        "structures",
        "training",
        "tracking",
    },
}


@pytest.mark.parametrize("module", modules(), ids=str)
def test_imports_go_one_way(module: Path) -> None:
    own = area(module)
    reached = {area(imported) for imported in imports_of(module)} - (
        {own} if own != "stages" else set()
    )
    assert reached <= ALLOWED[own]


def test_training_takes_only_batches_and_transforms_from_the_data_package() -> None:
    training = [module for module in modules() if area(module) == "training"]
    used = set().union(*(imports_of(module) for module in training))
    assert {module for module in used if area(module) == "data"} <= DATA_FOR_TRAINING


def test_training_needs_neither_dvc_nor_mlflow_nor_the_face_detector() -> None:
    needed = all_imports_of(Path("pipeline/training/loop.py"))
    sources = "".join((ROOT / module).read_text(encoding="utf-8") for module in needed)
    assert not [
        name for name in ("dvc", "mlflow", "facenet_pytorch") if f"import {name}" in sources
    ]
    assert "from facenet_pytorch" not in sources


def test_packages_have_empty_init_files() -> None:
    for folder in ("pipeline", "stages"):
        for path in (ROOT / folder).rglob("__init__.py"):
            assert path.stat().st_size == 0, path
