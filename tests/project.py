"""What the tests of the repository's own shape share."""

from pathlib import Path

from pipeline.common.imports import PACKAGES

ROOT = Path(__file__).parents[1]


def modules() -> list[Path]:
    """The project's Python files, relative to its root, without the empty `__init__.py`."""
    files = [path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in files if path.name != "__init__.py")
