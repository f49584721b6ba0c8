"""Small lists of s-Aff-Wild2 with empty images, for tests."""

from collections.abc import Iterable
from pathlib import Path

HEADER = "image,valence,arousal,expression,aus"
UNKNOWN_AUS = ",".join(["-1"] * 12)
SOME_AUS = "1,0,0,0,0,0,1,0,0,0,1,0"


def row(path: str, valence: object = 0.1, arousal: object = 0.2, expression: object = 4,
        aus: str = SOME_AUS) -> str:  # fmt: skip
    return f"{path},{valence},{arousal},{expression},{aus}"


def write_list(folder: Path, rows: Iterable[str], *, end: str = "\n", start: str = "") -> Path:
    """An annotation file, with an empty image for each row that does not say `missing`."""
    rows = list(rows)
    for line in rows:
        path = folder / "cropped_aligned" / line.partition(",")[0]
        if path.suffix == ".jpg" and "missing" not in line:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    file = folder / "training_set_annotations.txt"
    file.write_bytes((start + end.join([HEADER, *rows]) + end).encode())
    return file
