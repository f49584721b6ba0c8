import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from project import ROOT

from commands.check import problems

DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def found(folder: Path = ROOT, **changes: Any) -> list[str]:
    """What is said of params.yaml with other lines; `__` is a dot."""
    document = copy.deepcopy(DOCUMENT)
    for name, value in changes.items():
        section = document
        *parents, last = name.split("__")
        for parent in parents:
            section = section[parent]
        section[last] = value
    return problems(document, STAGES, folder)


def test_the_parameters_of_the_project_can_be_run() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": "papr"}, "recipe is 'papr'; did you mean paper? known are quick, paper"),
        ({"dataset": "RAVDESS"}, "dataset is 'RAVDESS'; did you mean ravdess?"),
        ({"model": "huge"}, "model is 'huge'; known are tiny, small"),
        ({"arch": "cascade"}, "arch is 'cascade'; did you mean cascaded?"),
        ({"decoder": "mlp"}, "arch and decoder make cascaded mlp, which is no structure"),
        (
            {"frames__num_frames": 8},
            "models.tiny.encoder and frames.num_frames do not fit: 8 frames of 64 px do not divide",
        ),
        (
            {"models__tiny__encoder__num_heads": 3},
            "models.tiny.encoder: 3 heads do not divide a width of 128",
        ),
        ({"sed": 1}, "sed is a line that no stage reads; did you mean seed?"),
        ({"frames__size": -1}, "frames.size: Input should be a multiple of 8"),
        (
            {"recipes__quick__engine__epochs": 0},
            "recipes.quick.engine.epochs: Input should be greater than 0",
        ),
        (
            {"split__protocol": "holdout"},
            "split.protocol holdout makes 1 fold(s), and folds is [1, 2, 3, 4, 5]: write folds: ",
        ),
        (
            {"split__protocol": "emobox"},
            "split.protocol emobox is defined for ravdess, not for sample",
        ),
        (
            {"recipe": "paper"},
            "recipe paper keeps the encoder as it is, and encoder.weights is from_scratch",
        ),
        (
            {"encoder__weights": "marlin-larg"},
            "encoder.weights is 'marlin-larg', which is neither a name nor a file in weights/; did "
            "you mean marlin-large?",
        ),
        (
            {"encoder__weights": "marlin-large"},
            "marlin-large has the size of model large, not of tiny",
        ),
    ],
)
def test_a_mistake_is_named_with_what_is_near(changes: dict[str, Any], words: str) -> None:
    (line,) = found(**changes)
    assert line.startswith(words), line


def test_several_mistakes_are_named_at_once() -> None:
    lines = found(arch="cascade", frames__size=0, seed="one")
    assert len(lines) == 3


def test_weights_of_another_kind_are_named(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "weights/mine.pt")
    (line,) = found(tmp_path, encoder__weights="mine.pt")
    assert "no known encoder among its 1 tensors" in line


def test_a_disk_that_is_too_small_is_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = __import__("shutil").disk_usage("/")._replace(free=10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    (line,) = found(dataset="cremad")
    assert line.startswith("about 7 GB are needed for the frames and shards of cremad")
    assert found() == []
