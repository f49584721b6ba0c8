"""Files that appear only when they are whole, and what they hold."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with a stable layout."""
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def is_lfs_pointer(path: Path) -> bool:
    """Whether Git LFS left its small text file here instead of the content."""
    start = b"version https://git-lfs.github.com/spec/"
    with path.open("rb") as file:
        return file.read(len(start)) == start


def project_root(folder: Path) -> Path:
    """The project's own folder, also from the copy of it in which DVC runs a queued experiment."""
    parts = folder.resolve().parts
    for i in range(len(parts) - 2):
        if parts[i : i + 3] == (".dvc", "tmp", "exps"):
            return Path(*parts[:i])
    return folder.resolve()


def is_only_in_project(path: Path) -> bool:
    """Whether the project has a file or folder that DVC's copy of it, the current folder, lacks."""
    return not path.exists() and (project_root(Path.cwd()) / path).exists()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return sha256_in(file)


def sha256_in(file: BufferedIOBase) -> str:
    """SHA-256 of an open file's content, in hexadecimal."""
    return hashlib.file_digest(file, "sha256").hexdigest()
