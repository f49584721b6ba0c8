"""Which of the project's own files a Python file needs, read from its import statements.

Nothing is imported to find out. The training's resume key, the code that MLflow keeps with a model,
and the tests of dvc.yaml and of the layers all ask this module.
"""

import ast
from collections.abc import Collection
from functools import cache
from pathlib import Path

PACKAGES = ("pipeline", "stages", "commands")
# What only watches: no stage's result, dep or resume key rests on it.
OBSERVERS = Path("pipeline/tracking")


@cache
def direct_imports(module: Path, root: Path) -> frozenset[Path]:
    """The project's files that a file imports, wherever in the file the import stands.

    `import a.b`, `from a import b` and `from a.b import c` all count, for modules and packages.

    Args:
        module: Relative to the root.
        root: The project's folder.

    Raises:
        ValueError: It uses a relative import, or imports everything (`*`) from a module.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse((root / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.names[0].name == "*":
                raise ValueError(f"{module}, line {node.lineno}: import names, by full paths")
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    own = [name.split(".") for name in names if name.partition(".")[0] in PACKAGES]
    files = {Path(*parts).with_suffix(".py") for parts in own}
    return frozenset(file for file in files if (root / file).is_file())


def needed_files(module: Path, root: Path, *, without: Collection[Path] = ()) -> set[Path]:
    """The project's files that a file needs, directly or not, with itself; no `__init__.py`.

    Args:
        module: Relative to the root.
        root: The project's folder.
        without: Folders that are left out, with all that only they need.
    """
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current in found or any(folder in current.parents for folder in without):
            continue
        found.add(current)
        waiting += direct_imports(current, root)
    return found
