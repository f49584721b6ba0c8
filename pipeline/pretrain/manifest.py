"""The manifest of a pre-training: a row per span of a video, per stored clip or per picture.

It is written some rows at a time, and read as Arrow columns, which stay small for a million rows
and which workers share: memory does not grow while samples are read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.files import atomic_path

Data = Literal["rendered", "shards", "videos", "images"]
"""What a collection is of."""

# In the folder of a collection: the manifest; of videos, when the frames of each are shown (int64,
# see `Span`) and where its face is (four float32 each, see `Square`); videos drawn on the spot.
MANIFEST, POINTS, SQUARES, RENDERED = "samples.parquet", "points.bin", "squares.bin", "videos"
TRAIN, HELD_OUT = "train", "held_out"
# Rows that are kept before they are written.
_ROWS = 10_000


class Picture(NamedTuple):
    """A row about a picture.

    Attributes:
        sample: Its name, unique in the manifest.
        path: Of the file, relative to the source.
        dataset: Of this project, of which the group is; empty for others.
        group: Whoever is seen, or what stands for it.
        part: `train` or `held_out`.
    """

    sample: str
    path: str
    dataset: str
    group: str
    part: str


class Span(NamedTuple):
    """A row about successive frames of a video from which clips are drawn; see `Picture`.

    Attributes:
        seconds: Its length.
        num_frames: Its frames.
        first_point: Where in POINTS those of its frames begin.
        stream: Place of the video stream in the file.
        is_timed: See `VideoTrack`.
        pixel_width: Of a pixel, in parts of `pixel_height`.
        pixel_height: Of a pixel.
        first_square: Where in SQUARES those of its face begin.
        num_squares: How many it has; none where whole pictures are taken.
        square_step: Frames from one square to the next; the first one is of the first frame.
    """

    sample: str
    path: str
    dataset: str
    group: str
    part: str
    seconds: float
    num_frames: int
    first_point: int
    stream: int
    is_timed: bool
    pixel_width: int
    pixel_height: int
    first_square: int
    num_squares: int
    square_step: int


class Clip(NamedTuple):
    """A row about a clip in a shard of this project; see `Picture`.

    Attributes:
        path: Of the shard, relative to the source.
        first_byte: Where the clip begins in the shard.
        end: The first byte after it.
    """

    sample: str
    path: str
    dataset: str
    group: str
    part: str
    first_byte: int
    end: int


Row = TypeVar("Row", Picture, Span, Clip)
_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


class ManifestWriter(Generic[Row]):
    """Writes rows in the order given."""

    def __init__(self, writer: "pq.ParquetWriter", schema: "pa.Schema") -> None:
        self.writer = writer
        self.schema = schema
        self.rows: list[Row] = []
        self.count = 0

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.count += 1
        if len(self.rows) == _ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is still kept."""
        columns = [list(column) for column in zip(*self.rows, strict=True)]
        if columns:
            arrays = [
                pa.array(column, field.type)
                for column, field in zip(columns, self.schema, strict=True)
            ]
            self.writer.write_table(pa.table(arrays, schema=self.schema))
        self.rows = []


@contextmanager
def write_manifest(path: Path, kind: type[Row]) -> Iterator[ManifestWriter[Row]]:
    """A writer of one kind of rows; the file appears only when it is whole."""
    schema = pa.schema([(name, _TYPES[type_]) for name, type_ in get_type_hints(kind).items()])
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as parquet:
        writer: ManifestWriter[Row] = ManifestWriter(parquet, schema)
        yield writer
        writer.flush()


def count_parts(path: Path) -> dict[str, int]:
    """How many rows of a manifest each part has.

    Raises:
        ValueError: One has none.
    """
    parts = pq.read_table(path, columns=["part"])["part"].value_counts().to_pylist()
    counts = {count["values"]: count["counts"] for count in parts}
    for part in (TRAIN, HELD_OUT):
        if not counts.get(part):
            raise ValueError(
                f"no sample is left in the part {part!r}: too few files can be used, or they are "
                "of too few groups"
            )
    return counts


class Rows(Generic[Row]):
    """The rows of one part of a manifest, numbered from 0 in their order.

    Args:
        path: Of the manifest.
        kind: Of its rows.
        part: `train` or `held_out`.

    Raises:
        ValueError: The manifest holds another kind of rows, or none of that part.
    """

    def __init__(self, path: Path, kind: type[Row], part: str) -> None:
        wanted = list(kind._fields)
        if (found := pq.read_schema(path).names) != wanted:
            raise ValueError(f"{path} has the columns {found}, not {wanted}: collect it again")
        table = pq.read_table(path, filters=[("part", "=", part)]).combine_chunks()
        if not len(table):
            raise ValueError(f"{path} has no sample in the part {part!r}")
        self.kind: type[Row] = kind
        self.columns: dict[str, Any] = {
            name: table[name].chunk(0)
            if table[name].type == pa.string()
            else table[name].to_numpy()
            for name in wanted
        }

    def __len__(self) -> int:
        return len(self.columns["sample"])

    def __getitem__(self, number: int) -> Row:
        values = [
            column[number].item() if isinstance(column, np.ndarray) else column[number].as_py()
            for column in self.columns.values()
        ]
        row: Row = self.kind(*values)
        return row

    def groups(self) -> dict[str, list[str]]:
        """The groups of every data set that has a name, sorted."""
        names = pa.table({name: self.columns[name] for name in ("dataset", "group")})
        distinct = names.group_by(["dataset", "group"]).aggregate([]).to_pylist()
        found: dict[str, list[str]] = {}
        for row in sorted(distinct, key=lambda row: (row["dataset"], row["group"])):
            if row["dataset"]:
                found.setdefault(row["dataset"], []).append(row["group"])
        return found
