from pathlib import Path

import pytest
from project import ROOT, all_imports_of, imports_of, modules


def area(module: Path) -> str:
    """`pipeline/store/x.py` -> `store`, `stages/x.py` -> `stages`."""
    return module.parts[1] if module.parts[0] == "pipeline" else module.parts[0]


# Which areas each area may import besides itself; `stages` may not import even one another.
ALLOWED = {
    "common": set(),
    "acquire": {"common"},
    "datasets": {"common", "acquire"},
    "video": {"common", "store"},
    "store": {"common", "video", "feed"},
    "folds": {"common"},
    "feed": {"store", "mtcae"},
    "models": {"mtcae"},
    "scores": set(),
    "training": {"common", "feed", "store", "mtcae", "scores"},
    "mtcae": {"common", "models", "training", "store", "scores"},
    "evaluation": {"common", "mtcae", "scores"},
    "tracking": {"common"},
    "serving": {"video", "store", "models"},
    "commands": {
        *("common", "store", "folds", "feed", "mtcae", "evaluation", "tracking", "models"),
    },
    "stages": {
        *("common", "acquire", "datasets", "video", "store", "folds", "feed", "models", "scores"),
        *("training", "mtcae", "evaluation", "tracking"),
    },
}


@pytest.mark.parametrize("module", modules(), ids=str)
def test_imports_go_one_way(module: Path) -> None:
    own = area(module)
    reached = {area(imported) for imported in imports_of(module)} - (
        {own} if own != "stages" else set()
    )
    assert reached <= ALLOWED[own]


def test_training_needs_neither_dvc_nor_mlflow_nor_the_face_detector() -> None:
    needed = all_imports_of(Path("pipeline/training/loop.py"))
    sources = "".join((ROOT / module).read_text(encoding="utf-8") for module in needed)
    assert not [
        name for name in ("dvc", "mlflow", "facenet_pytorch") if f"import {name}" in sources
    ]
    assert "from facenet_pytorch" not in sources


def test_packages_have_empty_init_files() -> None:
    for folder in ("pipeline", "stages", "commands"):
        for path in (ROOT / folder).rglob("__init__.py"):
            assert path.stat().st_size == 0, path
