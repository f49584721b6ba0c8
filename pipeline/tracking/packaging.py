"""A fold's model as a folder that MLflow can keep, register, load and serve."""

import json
import shutil
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow.pyfunc
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from pipeline.common.imports import needed_files
from pipeline.serving.answers import columns

_SERVING = Path("pipeline/serving/pyfunc.py")
# Copied with its weights, 2 MB: it demands an old torch, and so cannot stand among requirements.
_COPIED = "facenet_pytorch"
_TYPES = {
    "video": DataType.string,
    "label": DataType.string,
    "problem": DataType.string,
    "person": DataType.long,
    "num_windows": DataType.long,
}
# What all these files import, by requirements.txt, where the versions are.
PACKAGES = {
    "av",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "PyYAML",
    "requests",
    "safetensors",
    "scipy",
    "timm",
    "torch",
    "torchvision",
    "tqdm",
}


def package_model(weights: Path, folder: Path) -> None:
    """Write a model to the new folder `folder`, with its code, signature and requirements.

    It is loaded by `mlflow.pyfunc.load_model` and takes a table with the paths of videos in the
    column `video`; `VideoModel.predict` says what it gives.

    Args:
        weights: What `save_model` wrote, model.safetensors with model.json beside it.
        folder: Where to write.
    """
    root = Path(__file__).parents[2]
    description = weights.with_suffix(".json")
    classes = json.loads(description.read_text(encoding="utf-8"))["metadata"]["classes"]
    pins = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(_TYPES.get(name, DataType.double), name, required=False)
        for name in ("video", *columns(classes, num_models=1), "problem")
    ]
    with TemporaryDirectory() as code:
        for module in needed_files(_SERVING, root):
            copy = Path(code) / module
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / module, copy)
            for package in module.parents[:-1]:
                (Path(code) / package / "__init__.py").touch()
        _copy_distribution(Path(code))
        # By the name of the loader rather than as a pickle, which would run whatever it holds.
        mlflow.pyfunc.save_model(
            str(folder),
            loader_module=".".join(_SERVING.with_suffix("").parts),
            data_path=str(weights),
            code_paths=[f"{code}/pipeline", f"{code}/{_COPIED}"],
            signature=ModelSignature(
                inputs=Schema([ColSpec(DataType.string, "video")]), outputs=Schema(outputs)
            ),
            input_example=pd.DataFrame({"video": ["videos/clip.mp4"]}),
            pip_requirements=[pin for pin in pins if pin.partition("==")[0] in PACKAGES],
        )
    shutil.copy(description, folder / "data")


def _copy_distribution(folder: Path) -> None:
    """Copy facenet-pytorch, its licence included, as it is installed here."""
    for file in distribution("facenet-pytorch").files or []:
        if "__pycache__" in file.parts:
            continue
        if file.parts[0] == _COPIED or file.name.startswith("LICENSE"):
            copy = folder / _COPIED / file.relative_to(file.parts[0])
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), copy)
