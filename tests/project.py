"""What the tests of the repository's own shape share: which module imports which."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


def modules() -> list[Path]:
    """The project's Python files, relative to its root, without the empty `__init__.py`."""
    files = [
        path
        for folder in ("pipeline", "stages", "commands")
        for path in (ROOT / folder).rglob("*.py")
    ]
    return sorted(path.relative_to(ROOT) for path in files if path.name != "__init__.py")


@cache
def imports_of(module: Path) -> frozenset[Path]:
    """The project's files that a file imports directly, wherever in the file the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} uses a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    candidates = {Path(*name.split(".")).with_suffix(".py") for name in names}
    return frozenset(candidates & set(modules()))


def all_imports_of(module: Path) -> set[Path]:
    """The project's files that a file needs, directly or not, with itself."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += imports_of(current)
    return found
