"""Where a training saves its state, and what to do when a device is too small for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.common.encoder_weights import CARD
from pipeline.common.files import project_root, sha256_in, sha256_of
from pipeline.common.imports import OBSERVERS, needed_files
from pipeline.mtcae.assembly import TrainingParams
from pipeline.mtcae.fold_data import FoldData
from pipeline.store.contents import CLIPS
from pipeline.store.tokens import TOKENS
from pipeline.training.identity import training_key

# Where a device's memory is full.
ADVICE = (
    "lower engine.micro_batch_size of the recipe (the result stays the same, but for mixup and "
    "cutmix), set its encoder.checkpointing to true if the encoder is trained, or choose a smaller "
    "model; the training then starts afresh"
)


def manifest_digest(data: FoldData) -> str:
    """SHA-256 of the shards' manifest, in hexadecimal."""
    with data.shards.open(CLIPS) as file:
        return sha256_in(file)


def scratch_folder(
    script: Path, params: TrainingParams, data: FoldData, manifest: str, plan: Mapping[str, Any]
) -> Path:
    """Where a training saves its state: a folder that another training does not have.

    Args:
        script: Python file that trains; what it imports counts too.
        params: Of the training.
        data: Which it reads.
        manifest: See `manifest_digest`.
        plan: What else decides the result, as JSON knows it: which clips are in which part.
    """
    root = Path(__file__).parents[2]
    key = training_key(
        params.model_dump(mode="json"),
        plan,
        {
            CLIPS: manifest,
            TOKENS: sha256_of(data.tokens / TOKENS),
            CARD: sha256_of(data.start / CARD),
        },
        needed_files(script.relative_to(root), root, without=[OBSERVERS]),
        root,
    )
    return project_root(Path()) / ".scratch" / script.stem / key
