"""What the tests of the repository's own shape share."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.common.imports import PACKAGES

ROOT = Path(__file__).parents[1]


def modules() -> list[Path]:
    """The project's Python files, relative to its root, without the empty `__init__.py`."""
    files = [path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in files if path.name != "__init__.py")


def source_files(entry: Mapping[str, Any]) -> set[Path]:
    """The Python files that a stage of a dvc.yaml depends on, by itself or in a folder."""
    found: set[Path] = set()
    for dep in map(Path, entry["deps"]):
        if dep.suffix == ".py":
            found.add(dep)
        elif dep.parts[0] == "pipeline":
            inside = [path.relative_to(ROOT) for path in (ROOT / dep).rglob("*.py")]
            found |= {path for path in inside if path.name != "__init__.py"}
    return found


def paths_untold(entry: Mapping[str, Any], paths: Iterable[str]) -> list[str]:
    """Those that are no argument of the stage's command, and in no folder that is one."""
    arguments = entry["cmd"].split()[3:]
    return [
        path
        for path in paths
        if not any(
            path == argument or Path(argument) in Path(path).parents for argument in arguments
        )
    ]
