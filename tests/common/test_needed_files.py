from pathlib import Path

import pytest

from pipeline.common.imports import direct_imports, needed_files

FILES = {
    "stages/run.py": "import pipeline.models.large\n\nfrom pipeline.tracking.watch import look",
    "pipeline/__init__.py": "",
    "pipeline/models/__init__.py": "",
    "pipeline/models/large.py": "def build():\n    from pipeline.models import parts as p, size",
    "pipeline/models/parts.py": "from pipeline.models.size import WIDTH",
    "pipeline/models/size.py": "from pipeline.models import large",
    "pipeline/tracking/__init__.py": "",
    "pipeline/tracking/watch.py": "import pipeline.store.shelf\nimport pipeline.models.size",
    "pipeline/store/__init__.py": "",
    "pipeline/store/shelf.py": "BOARDS = 3",
    "pipeline/store/unused.py": "",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        write(tmp_path, name, text)
    return tmp_path


def write(root: Path, name: str, text: str) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    return Path(name)


def direct(root: Path, text: str) -> set[str]:
    """What a file of that text imports."""
    found = direct_imports(write(root, "commands/new.py", text), root)
    return {path.as_posix() for path in found}


def needed(root: Path, name: str, *without: str) -> set[str]:
    found = needed_files(Path(name), root, without=[Path(folder) for folder in without])
    return {path.as_posix() for path in found}


@pytest.mark.parametrize(
    "text",
    [
        "import pipeline.models.size",
        "import os, pipeline.models.size as s",
        "from pipeline.models import size",
        "from pipeline.models import size as s",
        "from pipeline.models.size import WIDTH",
        "from pipeline.models.size import (\n    WIDTH,\n    HEIGHT as H,\n)",
        "def later():\n    if True:\n        from pipeline.models.size import WIDTH",
    ],
)
def test_every_form_of_an_import_counts_wherever_it_stands(root: Path, text: str) -> None:
    assert direct(root, text) == {"pipeline/models/size.py"}


def test_several_modules_of_a_package_are_several_files(root: Path) -> None:
    assert direct(root, "from pipeline.models import large, size, gone") == {
        "pipeline/models/large.py",
        "pipeline/models/size.py",
    }


@pytest.mark.parametrize(
    "text", ["import os", "import pipelines.models.size", "import pipeline.models", "'pipeline'"]
)
def test_what_is_not_a_file_of_the_project_does_not_count(root: Path, text: str) -> None:
    write(root, "pipelines/models/size.py", "")
    write(root, "os.py", "")
    assert direct(root, text) == set()


def test_a_file_needs_itself_and_what_the_files_that_it_imports_need(root: Path) -> None:
    assert needed(root, "pipeline/models/parts.py") == {
        "pipeline/models/large.py",
        "pipeline/models/parts.py",
        "pipeline/models/size.py",
    }
    assert needed(root, "pipeline/store/shelf.py") == {"pipeline/store/shelf.py"}
    everything = {name for name in FILES if not name.endswith("__init__.py")}
    assert needed(root, "stages/run.py") == everything - {"pipeline/store/unused.py"}


def test_folders_are_left_out_with_what_only_they_need(root: Path) -> None:
    assert needed(root, "stages/run.py", "pipeline/tracking") == {
        "stages/run.py",
        "pipeline/models/large.py",
        "pipeline/models/parts.py",
        "pipeline/models/size.py",
    }


@pytest.mark.parametrize("text", ["from . import size", "from ..models.size import WIDTH"])
def test_relative_imports_are_refused_with_their_line(root: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"commands/new\.py, line 2: import names, by full paths"):
        direct(root, f"import os\n{text}")


def test_star_imports_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"commands/new\.py, line 1: import names"):
        direct(root, "from pipeline.models.size import *")
    # Refused also below the file that was asked for.
    write(root, "stages/other.py", "import commands.new")
    with pytest.raises(ValueError, match=r"commands/new\.py, line 1: import names"):
        needed(root, "stages/other.py")
