"""Tokens of a frozen encoder, computed once: one file per subject, one record per clip.

Without augmentation a frozen encoder says the same of a clip in every epoch, fold and structure.
`<subject>.npy` holds a record per clip in the order of the shards' manifest: tokens (N, D) float16,
and boxes, points and mask as a Batch has them, so that training reads no shard and decodes no JPEG.
`tokens.json` says what the tokens were made of, or why there are none; it is written last.

float16 rather than bfloat16: tokens come out of a norm, far inside its range, and its rounding
error of one part in 2048 is an eighth of bfloat16's (docs/performance.md). NumPy can map it, too.

Shape letters: B clips in a batch, T frames, N tokens of a clip, D encoder width.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from pipeline.common.clips import Clip, read_manifest
from pipeline.common.files import atomic_path, sha256_of, write_json
from pipeline.feed.loader import load_batches
from pipeline.store.shards import CLIPS, Batch, subject_shards

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


def origin_of(
    config: Mapping[str, Any], mean: Tensor, std: Tensor, weights: Path, precision: str
) -> Origin:
    """The origin of tokens that an encoder of this configuration and checkpoint computes.

    The rate of drop path is left out: a frozen encoder drops nothing.
    """
    sizes = {name: value for name, value in config.items() if name != "drop_path"}
    normalisation = {"mean": mean.flatten().tolist(), "std": std.flatten().tolist()}
    return Origin(sizes | normalisation, sha256_of(weights), precision)


def why_tokens_vary(
    encoder: str,
    *,
    flip_probability: float,
    rand_augment_ops: int,
    erase_probability: float,
    mixup_alpha: float,
    cutmix_alpha: float,
) -> str:
    """Why a clip's tokens are not the same in every epoch of a recipe; empty where they are."""
    if encoder != "frozen":
        return "the encoder is trained"
    changes = {
        "flips": flip_probability,
        "RandAugment": rand_augment_ops,
        "erasing": erase_probability,
        "mixup": mixup_alpha,
        "cutmix": cutmix_alpha,
    }
    active = ", ".join(name for name, strength in changes.items() if strength)
    return f"the frames are augmented: {active}" if active else ""


def write_no_tokens(out: Path, reason: str) -> None:
    """Write the empty result and why it is empty."""
    write_json(out / TOKENS, {"empty": reason})


def clip_record(num_frames: int, num_tokens: int, dim: int) -> np.dtype[np.void]:
    """What is stored of a clip."""
    return np.dtype(
        [
            ("tokens", np.float16, (num_tokens, dim)),
            ("boxes", np.float32, (num_frames, 4)),
            ("points", np.float32, (num_frames, 5, 2)),
            ("mask", np.bool_, (num_frames,)),
        ]
    )


def write_tokens(
    out: Path,
    shards: Path,
    encode: Callable[[Tensor], Tensor],
    *,
    origin: Origin,
    record: np.dtype[np.void],
    image_size: int,
    batch_size: int,
    num_workers: int,
) -> None:
    """Encode every clip of the shards; memory does not grow with their number.

    Args:
        out: Folder of the tokens.
        shards: Folder of the shards.
        encode: From frames (B, T, 3, I, I) uint8 to tokens (B, N, D) of any floating type.
        origin: What `encode` is made of.
        record: Of `clip_record`.
        image_size: I, as `encode` takes it.
        batch_size: B; the last bits of tokens may depend on it.
        num_workers: Processes that decode frames.

    Raises:
        ValueError: A token is no finite float16, or the shards are not those of their manifest.
    """
    # Until everything is written, nothing says that the folder is whole.
    (out / TOKENS).unlink(missing_ok=True)
    clips = read_manifest(shards / CLIPS)
    by_subject = _by_subject(clips)
    paths = subject_shards(shards, list(by_subject))
    batches = load_batches(
        paths,
        classes=sorted({clip.label for clip in clips}),
        image_size=image_size,
        batch_size=batch_size,
        num_workers=num_workers,
    )
    encoded = _encoded(batches, encode)
    encoded = iter(tqdm(encoded, desc="encoding", total=len(clips), unit="clip", mininterval=1))
    for shard, of_subject in zip(paths, by_subject.values(), strict=True):
        with atomic_path(_tokens_of(shard, out)) as temporary, temporary.open("wb") as file:
            header = {
                "descr": np.lib.format.dtype_to_descr(record),
                "fortran_order": False,
                "shape": (len(of_subject),),
            }
            np.lib.format.write_array_header_1_0(file, header)
            for clip in of_subject:
                name, values = next(encoded, ("no more clips", ()))
                if name != clip.clip:
                    raise ValueError(f"{shard}: found {name} where {CLIPS} has {clip.clip}")
                file.write(np.array(values, record).tobytes())
    if more := next(encoded, None):
        raise ValueError(f"{shards}: found {more[0]}, which {CLIPS} does not have")
    write_json(out / TOKENS, _description(origin, clips))


def _encoded(
    batches: Iterable[Batch], encode: Callable[[Tensor], Tensor]
) -> Iterator[tuple[str, tuple[npt.NDArray[Any], ...]]]:
    """Name and values of every clip, in the order of the record."""
    for batch in batches:
        tokens = encode(batch.frames).to(torch.float16).cpu()
        if not tokens.isfinite().all():
            raise ValueError(
                f"a token of one of the clips {', '.join(batch.clips)} does not fit into float16; "
                "are these the right weights?"
            )
        columns = (tokens, batch.boxes, batch.points, batch.mask)
        for name, *values in zip(batch.clips, *columns, strict=True):
            yield name, tuple(value.numpy() for value in values)


class EncodedClips(Dataset[Batch]):
    """As `Clips` of shards: numbered clips, an item is the batch of some numbers, without frames.

    The clips are those of the subjects, in the order of the subjects and then of the manifest, and
    their labels are the manifest's. Tokens stay float16 on their way to the model.

    Args:
        tokens: Folder of the tokens.
        shards: Folder of the shards that they were made of; only its lists are read.
        subjects: Whose clips.
        classes: Class names in the order of the model's logits.
        origin: What the tokens must have been made of.

    Attributes:
        labels: A class index per clip.

    Raises:
        ValueError: The tokens are of another origin or other clips, or there are none, and the
            message says in what they differ; or a clip's label is none of the classes.
    """

    def __init__(
        self,
        tokens: Path,
        shards: Path,
        subjects: list[str],
        *,
        classes: list[str],
        origin: Origin,
    ) -> None:
        clips = read_manifest(shards / CLIPS)
        _refuse_stale(tokens, _description(origin, clips))
        by_subject = _by_subject(clips)
        chosen = [clip for subject in subjects for clip in by_subject[subject]]
        if unknown := [clip for clip in chosen if clip.label not in classes]:
            raise ValueError(
                f"{shards / CLIPS}: the label of {unknown[0].clip} is {unknown[0].label!r}, none "
                f"of {classes}"
            )
        self.subjects = subjects
        self.paths = [_tokens_of(shard, tokens) for shard in subject_shards(shards, subjects)]
        # Arrays, not lists: workers that count references would copy a list page by page.
        self.names = np.array([clip.clip for clip in chosen])
        self.labels = np.array([classes.index(clip.label) for clip in chosen], np.int64)
        places = [(i, row) for i, s in enumerate(subjects) for row in range(len(by_subject[s]))]
        self.places = np.array(places, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, numbers: list[int]) -> Batch:
        places = self.places[numbers].tolist()
        # Mapped anew each time: an open map would count every page that was ever read as memory.
        records = [np.load(self.paths[i], mmap_mode="r")[row] for i, row in places]

        def column(name: str) -> Tensor:
            return torch.from_numpy(np.stack([record[name] for record in records]))

        return Batch(
            clips=self.names[numbers].tolist(),
            subjects=[self.subjects[i] for i, _ in places],
            frames=torch.empty(len(numbers), 0, dtype=torch.uint8),
            boxes=column("boxes"),
            points=column("points"),
            mask=column("mask"),
            labels=torch.from_numpy(self.labels[numbers]),
            tokens=column("tokens"),
        )


def _tokens_of(shard: Path, folder: Path) -> Path:
    """The file of a subject's tokens, named like its shard."""
    return (folder / shard.name).with_suffix(".npy")


def _by_subject(clips: list[Clip]) -> dict[str, list[Clip]]:
    grouped: dict[str, list[Clip]] = {}
    for clip in clips:
        grouped.setdefault(clip.subject, []).append(clip)
    return grouped


def _description(origin: Origin, clips: list[Clip]) -> dict[str, Any]:
    """What tokens.json says. Labels are not in it: they are read from the manifest."""
    content = json.dumps([[clip.clip, clip.subject, clip.content] for clip in clips])
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
