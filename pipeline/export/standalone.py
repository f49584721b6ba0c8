"""A model as a folder that is loaded without this project: weights, description, code, example."""

import ast
import re
import shutil
from importlib.metadata import packages_distributions
from pathlib import Path

from pipeline.common.imports import needed_files

_ROOT = Path(__file__).parents[2]
_EXAMPLE = Path("pipeline/export/examples/torch_example.py")
# What the copies are called: a project that loads the model may have a `pipeline` of its own.
PACKAGE = "mtcae_dfer"


def write_standalone(folder: Path, weights: Path) -> None:
    """Write a model, and copies of the modules that it takes, to a folder.

    Args:
        folder: Where to write.
        weights: What `save_model` wrote, model.safetensors with model.json beside it.
    """
    for path in (weights, weights.with_suffix(".json")):
        shutil.copyfile(path, folder / f"model{path.suffix}")
    modules = needed_files(_EXAMPLE, _ROOT)
    for module in modules - {_EXAMPLE}:
        copy = folder / PACKAGE / module.relative_to("pipeline")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(_renamed(module), encoding="utf-8")
        for package in list(copy.relative_to(folder).parents)[:-1]:
            (folder / package / "__init__.py").touch()
    (folder / "example.py").write_text(_renamed(_EXAMPLE), encoding="utf-8")
    shutil.copyfile(_ROOT / "LICENSE", folder / PACKAGE / "LICENSE")
    pins = _pins(modules)
    (folder / "requirements.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")


def _renamed(module: Path) -> str:
    text = (_ROOT / module).read_text(encoding="utf-8")
    return re.sub(r"^(\s*(?:from|import) )pipeline\b", rf"\1{PACKAGE}", text, flags=re.MULTILINE)


def _pins(modules: set[Path]) -> list[str]:
    """The lines of requirements.txt for what the modules import."""
    imported: set[str] = set()
    for module in modules:
        for node in ast.walk(ast.parse((_ROOT / module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    known = packages_distributions()
    distributions = {one.lower() for name in imported for one in known.get(name, [])}
    pins = (_ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    # timm imports torchvision.
    wanted = distributions | {"torchvision"}
    return [pin for pin in pins if pin.partition("==")[0].lower() in wanted]
