import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from project import ROOT
from small_predictor import CLASSES, save_small_model
from small_shards import write_small_shards

from commands.export import main
from pipeline.datasets.sample_faces import render_frames, sample_clips
from pipeline.serving.onnx_model import OnnxModel
from pipeline.serving.predictor import load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fold's model with its test predictions, and the shards of these clips and others."""
    folder: Path = tmp_path_factory.mktemp("export")
    save_small_model(folder / "fold1", dataset="tiny", fold=1)
    rng = np.random.default_rng(0)
    labels = [*CLASSES, *CLASSES]
    clips = [
        (f"Ann{i}", label, rng.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8))
        for i, label in enumerate(labels)
    ]
    stored = write_small_shards(folder / "shards", clips, {})
    tested = stored[:4]
    predictions = pd.DataFrame(
        {
            "fold": 1,
            "clip": [clip.clip for clip in tested],
            "subject": [clip.group for clip in tested],
            "actual": [clip.label for clip in tested],
            "predicted": CLASSES[0],
        }
        | {f"probability_{name}": 1 / 3 for name in CLASSES}
    )
    predictions.to_parquet(folder / "fold1/predictions.parquet")
    return folder


@pytest.fixture(scope="module")
def exported(folder: Path) -> Path:
    out = folder / "onnx"
    shards = ["--shards", str(folder / "shards")]
    main([str(folder / "fold1"), "--to", "onnx", "--int8", "--out", str(folder / "int8"), *shards])
    main([str(folder / "fold1"), "--to", "onnx", "--out", str(out)])
    return out


def test_an_int8_model_says_what_it_lost_on_the_test_clips(exported: Path) -> None:
    config = json.loads((exported.parent / "int8/config.json").read_text())
    checks = config["checks"]
    assert config["precision"] == "int8"
    for name in ("ONNX", "int8"):
        assert (checks[name]["clips"], checks[name]["of_test"]) == (4, True)
        assert set(checks[name]["uar"]) == {"saved", "exported"}
    assert checks["ONNX"]["difference"] < 1e-4 < checks["int8"]["difference"] < 0.1
    assert checks["ONNX"]["uar"]["saved"] == checks["ONNX"]["uar"]["exported"]
    card = (exported.parent / "int8/README.md").read_text()
    assert f"int8 and the saved model differ by up to {checks['int8']['difference']:.2g}" in card
    assert {path.name for path in (exported.parent / "int8").iterdir()} == {
        "README.md",
        "config.json",
        "example.py",
        "model.onnx",
        "onet.onnx",
        "pnet.onnx",
        "rnet.onnx",
        "requirements.txt",
    }


def test_without_the_test_clips_the_comparison_is_on_noise(exported: Path) -> None:
    check = json.loads((exported / "config.json").read_text())["checks"]["ONNX"]
    assert (check["clips"], check["of_test"], check["uar"]) == (5, False, None)
    assert "on 5 clips of noise" in (exported / "README.md").read_text()


def test_the_example_answers_without_torch_and_without_the_project(
    exported: Path, tmp_path: Path
) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    program = f"""
import runpy, sys
for name in ("torch", "pipeline", "timm", "pandas"):
    sys.modules[name] = None  # Whoever imports it gets an ImportError.
sys.argv = ["example.py", *(f"{{i}}.png" for i in range(4))]
runpy.run_path({str(exported / "example.py")!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    words = dict(line.split() for line in done.stdout.splitlines())
    expected = OnnxModel(exported).ask(pictures[None]).probabilities[0].tolist()
    assert {name: float(value) for name, value in words.items()} == pytest.approx(
        dict(zip(CLASSES, expected, strict=True)), abs=1e-4
    )


def test_predict_takes_the_folder_where_only_a_few_libraries_are(
    exported: Path, tmp_path: Path
) -> None:
    clip = sample_clips(num_subjects=1, clips_per_emotion=1)[0]
    picture = tmp_path / "face.png"
    Image.fromarray(render_frames(clip, seed=1)[20]).save(picture)
    program = f"""
import importlib.metadata as metadata, re, runpy, sys
# All that requirements-predict.txt does not bring along.
wanted, seen = [{", ".join(map(repr, names_in("requirements-predict.txt")))}], set()
while wanted:
    name = wanted.pop().lower().replace("_", "-")
    if name not in seen:
        seen.add(name)
        needs = metadata.requires(name) or []
        wanted += [re.match("[A-Za-z0-9._-]+", one)[0] for one in needs if ";" not in one]
for module, packages in metadata.packages_distributions().items():
    if not seen & {{one.lower().replace("_", "-") for one in packages}}:
        sys.modules[module] = None
sys.argv = ["predict", {str(picture)!r}, "--model", {str(exported)!r}, "--out", {str(tmp_path)!r}]
runpy.run_module("commands.predict", run_name="__main__")
assert sys.modules["torch"] is None
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    saved = load_model(exported.parent / "fold1").predict(picture).table
    assert len(saved) == 4
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "face.parquet"), saved, atol=1e-4, rtol=0
    )


def names_in(requirements: str) -> list[str]:
    lines = (ROOT / requirements).read_text(encoding="utf-8").splitlines()
    return [line.partition("==")[0] for line in lines if "==" in line]


def test_what_predict_takes_is_pinned_as_elsewhere() -> None:
    pins = set((ROOT / "constraints.txt").read_text(encoding="utf-8").lower().splitlines())
    lines = (ROOT / "requirements-predict.txt").read_text(encoding="utf-8").lower().splitlines()
    assert {line for line in lines if not line.startswith("#")} <= pins


def test_what_cannot_be_exported_is_told_in_a_sentence(exported: Path, tmp_path: Path) -> None:
    fold = str(exported.parent / "fold1")
    with pytest.raises(SystemExit, match=r"export: .*onnx is there already; name a new folder"):
        main([fold, "--to", "folder", "--out", str(exported)])
    with pytest.raises(SystemExit, match=r"export: .*there is no file .*absent"):
        main([str(tmp_path / "absent"), "--to", "folder", "--out", str(tmp_path / "x")])
    assert not list(tmp_path.iterdir())


def test_int8_is_a_kind_of_onnx(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(exported.parent / "fold1"), "--to", "folder", "--int8", "--out", "x"])
    assert "--int8 and --shards go with --to onnx" in capsys.readouterr().err
