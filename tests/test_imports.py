"""The house: which part of the project may import which, and how large its functions may be."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT, modules

from pipeline.common.imports import OBSERVERS, PACKAGES, direct_imports, needed_files

# Each folder imports only itself and folders before it; stages and commands come last.
LAYERS = [
    "common",
    "acquire",
    "datasets",
    "video",
    "store",
    "folds",
    "feed",
    "models",
    "scores",
    "training",
    "mtcae",
    "pretrain",
    "affect",
    "evaluation",
    "serving",
    "export",
    "verify",
    "tracking",
]
# The engine knows no model, loss, score or store, although these come before it; a system knows no
# other one.
CLOSED = {
    "training": {"common", "training"},
    "pretrain": {*LAYERS[: LAYERS.index("mtcae")], "pretrain"},
    "affect": {*LAYERS[: LAYERS.index("mtcae")], "affect"},
}
# Functions with more than MAX_PARAMETERS, and why.
MAX_PARAMETERS, MAX_LINES = 8, 80
MANY_PARAMETERS = {
    # One for each part of a training that its caller builds: the engine's whole interface.
    "pipeline/training/loop.py:train",
}


def layer(module: Path) -> str:
    """`pipeline/store/x.py` -> `store`, `stages/x.py` -> `stages`."""
    return module.parts[1] if module.parts[0] == "pipeline" else module.parts[0]


def test_the_layers_are_the_folders_of_the_library() -> None:
    folders = {
        path.name for path in (ROOT / "pipeline").iterdir() if (path / "__init__.py").exists()
    }
    assert set(LAYERS) == folders


@pytest.mark.parametrize("module", modules(), ids=str)
def test_imports_go_one_way(module: Path) -> None:
    own = layer(module)
    reached = {layer(imported) for imported in direct_imports(module, ROOT)}
    if own == "commands":
        allowed = {*LAYERS, "commands"}
    elif own == "stages":
        allowed = set(LAYERS)  # Not even one another.
    else:
        allowed = CLOSED.get(own, {*LAYERS[: LAYERS.index(own) + 1]})
    assert reached <= allowed


def test_only_stages_and_commands_tell_mlflow_anything() -> None:
    observers = {
        module
        for module in modules()
        if any(OBSERVERS in imported.parents for imported in direct_imports(module, ROOT))
    }
    outside = {module.as_posix() for module in observers if OBSERVERS not in module.parents}
    assert outside == {
        "commands/affect_ablation.py",
        "commands/table_one.py",
        "commands/ui.py",
        "stages/affect/aggregate.py",
        "stages/affect/train.py",
        "stages/aggregate.py",
        "stages/finetune.py",
        "stages/pretrain/look.py",
        "stages/pretrain/train.py",
    }


def foreign_imports(module: Path) -> set[str]:
    """The first names of what a file imports from elsewhere, in whatever form."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).partition(".")[0])
    return names - set(PACKAGES)


@pytest.mark.parametrize(
    "module", ["stages/finetune.py", "stages/encode.py", "pipeline/training/loop.py"]
)
def test_training_needs_neither_dvc_nor_mlflow_nor_the_face_detector(module: str) -> None:
    needed = needed_files(Path(module), ROOT, without=[OBSERVERS])
    foreign = set().union(*(foreign_imports(file) for file in needed))
    assert not foreign & {"dvc", "mlflow", "facenet_pytorch", "av", "ffmpeg"}


@pytest.mark.slow
def test_a_fold_is_trained_on_a_machine_without_dvc_and_mlflow() -> None:
    program = """
import sys
for name in ("dvc", "mlflow"):
    sys.modules[name] = None  # Whoever imports it gets an ImportError.
import stages.finetune, stages.encode, stages.pretrain.train
import stages.affect.prior, stages.affect.cnn, stages.affect.train
import benchmarks.train_step, benchmarks.step_profile
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_importing_the_project_changes_nothing_around_it() -> None:
    names = [".".join(module.with_suffix("").parts) for module in modules()]
    program = f"""
import atexit, importlib, logging, os, signal, threading
import torch, lightning_fabric, mlflow, pandas, sklearn, timm, webdataset, dvc.api, facenet_pytorch
import matplotlib, scipy.stats, skimage.data, transformers, distributed, onnxruntime
registered = []
atexit.register = lambda function, *_, **__: registered.append(function) or function
def state():
    loggers = {{name: logging.getLogger(name).level for name in ("urllib3", "mlflow")}}
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return dict(os.environ), loggers, handlers, threading.active_count(), torch.get_num_threads()
before = state()
for name in {names}:
    importlib.import_module(name)
own = [f for f in registered if f.__module__.partition(".")[0] in {PACKAGES}]
assert state() == before, (before, state())
assert not own, own
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def functions(module: Path) -> list[ast.FunctionDef]:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("module", modules(), ids=str)
def test_functions_are_short_and_take_few_parameters(module: Path) -> None:
    for function in functions(module):
        arguments = function.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        count = len([name for name in names if name not in ("self", "cls")])
        name = f"{module.as_posix()}:{function.name}"
        assert count <= MAX_PARAMETERS or name in MANY_PARAMETERS, f"{name} takes {count}"
        assert function.end_lineno is not None
        length = function.end_lineno - function.lineno + 1
        assert length <= MAX_LINES, f"{name} has {length} lines"


def test_packages_have_empty_init_files() -> None:
    for folder in PACKAGES:
        for path in (ROOT / folder).rglob("__init__.py"):
            assert path.stat().st_size == 0, path
