"""The name of a training: another one for all that could give another result."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.common.files import sha256_of


def training_key(
    params: Mapping[str, Any],
    part: Mapping[str, Any],
    inputs: Mapping[str, str],
    sources: Iterable[Path],
    root: Path,
) -> str:
    """A name for a training, which changes with all that decides its result.

    Args:
        params: All parameters, as JSON knows them.
        part: What of the data is trained on: the number of the fold and its parts.
        inputs: SHA-256 of every file that is read, by its name without folders.
        sources: Python files that run, relative to the root; names and content count.
        root: Folder of the project.
    """
    described = {
        "params": params,
        "part": part,
        "inputs": inputs,
        "sources": [[path.as_posix(), sha256_of(root / path)] for path in sorted(sources)],
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]
