from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from project import ROOT

from pipeline.common.imports import OBSERVERS, needed_files
from pipeline.training.identity import training_key

INPUTS = {"clips.parquet": "clips", "weights": "weights"}
SOURCES = {"stages/fit.py": "x = 1", "pipeline/losses.py": "y = 1"}
ALL: dict[str, Any] = {
    "params": {"rate": 1e-3, "classes": ["angry", "happy"]},
    "part": {"number": 1, "parts": {"clip0": "train", "clip1": "test"}},
    "inputs": INPUTS,
    "sources": SOURCES,
}


def key(
    folder: Path,
    params: Mapping[str, Any],
    part: Mapping[str, Any],
    inputs: Mapping[str, str],
    sources: Mapping[str, str],
) -> str:
    """The key of a training with sources, by name, of these words."""
    for name, words in sources.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(words, encoding="utf-8")
    return training_key(params, part, inputs, [Path(name) for name in sources], folder)


def test_the_same_training_has_the_same_key_wherever_its_files_lie(tmp_path: Path) -> None:
    first = key(tmp_path / "first", **ALL)
    assert key(tmp_path / "first", **ALL) == first
    assert key(tmp_path / "other", **ALL) == first
    # The files of a set come in any order.
    turned = dict(reversed(SOURCES.items()))
    assert key(tmp_path / "first", **ALL | {"sources": turned}) == first


@pytest.mark.parametrize(
    "change",
    [
        {"params": {"rate": 2e-3, "classes": ["angry", "happy"]}},
        {"params": {"rate": 1e-3, "classes": ["happy", "angry"]}},
        {"part": {"number": 2, "parts": {"clip0": "train", "clip1": "test"}}},
        {"part": {"number": 1, "parts": {"clip0": "train", "clip1": "validation"}}},
        {"inputs": INPUTS | {"weights": "other weights"}},
        {"inputs": {"clips.parquet": "weights", "weights": "clips"}},
        {"inputs": {"clips.parquet": "clips", "tokens": "weights"}},
        {"inputs": {"clips.parquet": "clips"}},
        {"sources": SOURCES | {"pipeline/losses.py": "y = 2"}},
        {"sources": {"stages/fit.py": "x = 1", "pipeline/error.py": "y = 1"}},
        {"sources": SOURCES | {"pipeline/more.py": ""}},
    ],
    ids=str,
)
def test_any_change_gives_a_training_another_key(change: dict[str, Any], tmp_path: Path) -> None:
    assert key(tmp_path, **ALL | change) != key(tmp_path, **ALL)


def test_the_code_that_counts_is_all_that_trains_and_nothing_that_only_watches() -> None:
    sources = needed_files(Path("stages/finetune.py"), ROOT, without=[OBSERVERS])
    trains = {"stages/finetune.py", "pipeline/training/step.py", "pipeline/mtcae/loss.py"}
    assert {Path(name) for name in trains} <= sources
    # A program loads the `__init__.py` of its own folder only with `python -m`.
    assert not [file for file in sources if file.name == "__init__.py" or OBSERVERS in file.parents]
