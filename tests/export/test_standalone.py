import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_predictor import CLASSES, save_small_model

from pipeline.export.standalone import write_standalone
from pipeline.mtcae.saved import load_model


@pytest.mark.slow
def test_a_folder_answers_with_nothing_of_the_project_on_the_path(tmp_path: Path) -> None:
    weights = save_small_model(tmp_path / "fold1", fold=1) / "model.safetensors"
    folder = tmp_path / "moved" / "exported"
    folder.mkdir(parents=True)
    write_standalone(folder, weights)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(folder / "example.py"), *(f"{i}.png" for i in range(4))]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    model, _ = load_model(weights)
    frames = torch.from_numpy(pictures).permute(0, 3, 1, 2)[None]
    with torch.no_grad():
        expected = model(frames).logits.softmax(dim=1)[0].tolist()
    words = dict(line.split() for line in done.stdout.splitlines())
    assert {name: float(value) for name, value in words.items()} == pytest.approx(
        dict(zip(CLASSES, expected, strict=True)), abs=1e-4
    )


def test_a_folder_names_no_module_that_it_lacks(tmp_path: Path) -> None:
    weights = save_small_model(tmp_path / "fold1", fold=1) / "model.safetensors"
    folder = tmp_path / "exported"
    folder.mkdir()
    write_standalone(folder, weights)
    text = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    assert "from mtcae_dfer.mtcae.model import" in text
    assert "from pipeline" not in text
    assert "import pipeline" not in text
    names = {line.partition("==")[0] for line in (folder / "requirements.txt").open()}
    assert {"torch", "timm", "safetensors", "pydantic"} <= names
    assert not names & {"mlflow", "dvc", "av", "webdataset"}
