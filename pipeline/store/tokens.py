"""Tokens of a frozen encoder, computed once: one file per shard, one record per clip.

Without augmentation a frozen encoder says the same of a clip in every epoch, fold and structure.
`<shard>.npy` holds a record per clip in the order of the shards' manifest: tokens (N, D) float16,
and boxes, points and mask as a batch has them, so that training reads no shard and decodes no JPEG.
`tokens.json` says what the tokens were made of, or why there are none; it is written last.

float16 rather than bfloat16: tokens come out of a norm, far inside its range, its rounding error of
one part in 2048 is an eighth of bfloat16's, and NumPy can map it. Under bf16 autocast the decoders'
first layer rounds them to bfloat16 anyway; the heads of `stl` and float32 trainings do not.

Shape letters: B clips in a batch, T frames, N tokens of a clip, D encoder width.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.common.clips import StoredClip
from pipeline.common.files import atomic_path, write_json
from pipeline.store.batch import Batch
from pipeline.store.stored_frames import class_numbers, face_targets

# In the tokens' folder: what they were made of, as JSON.
TOKENS = "tokens.json"


class Origin(NamedTuple):
    """What tokens depend on besides the clips.

    Attributes:
        encoder: Sizes, mean and deviation of the encoder.
        weights: SHA-256 of the checkpoint, in hexadecimal.
        precision: Of the computation, as Fabric calls it.
    """

    encoder: dict[str, Any]
    weights: str
    precision: str


def write_no_tokens(out: Path, reason: str) -> None:
    """Write the empty result and why it is empty."""
    write_json(out / TOKENS, {"empty": reason})


def token_record(num_frames: int, num_tokens: int, dim: int) -> np.dtype[np.void]:
    """What is stored of a clip."""
    return np.dtype(
        [
            ("tokens", np.float16, (num_tokens, dim)),
            ("boxes", np.float32, (num_frames, 4)),
            ("points", np.float32, (num_frames, 5, 2)),
            ("mask", np.bool_, (num_frames,)),
        ]
    )


@contextmanager
def new_tokens(out: Path, clips: Sequence[StoredClip], origin: Origin) -> Iterator[None]:
    """All tokens are written in this block; when it ends without an error, the folder is whole.

    Args:
        out: Folder of the tokens.
        clips: Of the shards' manifest, all of them.
        origin: What the tokens are made of.
    """
    (out / TOKENS).unlink(missing_ok=True)
    yield
    write_json(out / TOKENS, _description(origin, clips))


def write_tokens(
    out: Path,
    clips: Sequence[StoredClip],
    batches: Iterable[Batch],
    encode: Callable[[Tensor], Tensor],
    record: np.dtype[np.void],
) -> None:
    """Encode the clips of one or several shards; memory does not grow with their number.

    Args:
        out: Folder of the tokens.
        clips: Of the shards' manifest; all clips of each of these shards.
        batches: The same clips, in that order; the last bits of tokens may depend on their sizes.
        encode: From the inputs of a batch to tokens (B, N, D) of any floating type.
        record: Of `token_record`.

    Raises:
        ValueError: A token is no finite float16.
    """
    records = _records(batches, encode, record)
    for shard, group in groupby(clips, attrgetter("shard")):
        in_shard = list(group)
        with atomic_path(out / _file_of(shard)) as temporary, temporary.open("wb") as file:
            header = {
                "descr": np.lib.format.dtype_to_descr(record),
                "fortran_order": False,
                "shape": (len(in_shard),),
            }
            np.lib.format.write_array_header_1_0(file, header)
            for clip in in_shard:
                name, content = next(records, ("no more clips", b""))
                assert name == clip.clip, f"{name} came where {clip.clip} was expected"
                file.write(content)
    assert next(records, None) is None, "more clips came than the manifest has"


def _records(
    batches: Iterable[Batch], encode: Callable[[Tensor], Tensor], record: np.dtype[np.void]
) -> Iterator[tuple[str, bytes]]:
    """Name and record of every clip."""
    for batch in batches:
        tokens = encode(batch.inputs).to(torch.float16).cpu()
        if not tokens.isfinite().all():
            raise ValueError(
                f"a token of one of the clips {', '.join(batch.ids)} does not fit into float16; "
                "are these the right weights?"
            )
        boxes, points = batch.targets["boxes"], batch.targets["points"]
        columns = (tokens, boxes.values, points.values, boxes.known)
        for name, *values in zip(batch.ids, *columns, strict=True):
            row = tuple(value.numpy() for value in values)
            yield name, np.array(row, record).tobytes()


class StoredTokens(Dataset[Batch]):
    """As `StoredFrames` of shards, with an encoder's tokens (B, N, D) float16 as inputs.

    Args:
        folder: Of the tokens.
        clips: All clips of the manifest of the shards that they were made of.
        rows: Which of them, in the order of their numbers.
        classes: Class names in the order of the model's logits.
        origin: What the tokens must have been made of.

    Attributes:
        labels: A class index per clip, from the manifest.
        segments: One: where there are several, tokens are not stored.

    Raises:
        ValueError: The tokens are of another origin or other clips, or there are none, and the
            message says in what they differ; or a clip's label is none of the classes.
    """

    segments = 1

    def __init__(
        self,
        folder: Path,
        clips: Sequence[StoredClip],
        rows: Sequence[int],
        *,
        classes: Sequence[str],
        origin: Origin,
    ) -> None:
        _refuse_stale(folder, _description(origin, clips))
        self.folder = folder
        chosen = [clips[row] for row in rows]
        self.labels = class_numbers(chosen, classes)
        # Arrays, not lists: workers that count references would copy a list page by page.
        self.names = np.array([clip.clip for clip in chosen], np.str_)
        self.groups = np.array([clip.group for clip in chosen], np.str_)
        self.files = np.array([_file_of(clip.shard) for clip in chosen], np.str_)
        in_shards = [
            row for _, group in groupby(clips, attrgetter("shard")) for row, _ in enumerate(group)
        ]
        self.rows = np.array(in_shards, np.int64)[list(rows)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, numbers: list[int]) -> Batch:
        # Mapped anew each time: an open map would count every page that was ever read as memory.
        records = [
            np.load(self.folder / file, mmap_mode="r")[row]
            for file, row in zip(self.files[numbers], self.rows[numbers], strict=True)
        ]

        def column(name: str) -> Tensor:
            return torch.from_numpy(np.stack([record[name] for record in records]))

        labels = torch.from_numpy(self.labels[numbers])
        return Batch(
            ids=self.names[numbers].tolist(),
            groups=self.groups[numbers].tolist(),
            inputs=column("tokens"),
            targets=face_targets(column("boxes"), column("points"), column("mask"), labels),
        )


def _file_of(shard: str) -> str:
    """The file of a shard's tokens."""
    return Path(shard).with_suffix(".npy").name


def _description(origin: Origin, clips: Sequence[StoredClip]) -> dict[str, Any]:
    """What tokens.json says. Labels are not in it: they are read from the manifest."""
    content = json.dumps([[clip.clip, clip.shard, clip.digest] for clip in clips])
    return {
        **origin._asdict(),
        "num_clips": len(clips),
        "clips": hashlib.sha256(content.encode()).hexdigest(),
    }


def _refuse_stale(tokens: Path, wanted: dict[str, Any]) -> None:
    found = json.loads((tokens / TOKENS).read_text(encoding="utf-8"))
    if "empty" in found:
        reasons = [f"it is empty, because {found['empty']}"]
    else:
        reasons = [
            f"{name} is {found.get(name)!r} there and {value!r} here"
            for name, value in wanted.items()
            if found.get(name) != value
        ]
    if reasons:
        raise ValueError(
            f"{tokens} does not hold this run's tokens: {'; '.join(reasons)}. "
            "`dvc repro encode` computes them."
        )
