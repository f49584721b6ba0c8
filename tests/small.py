"""Small models and settings for tests, in the records of params.yaml."""

from pathlib import Path
from shutil import copyfile
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline.common.encoder_weights import CARD, CHECKPOINT, History, read_history
from pipeline.common.files import write_json
from pipeline.common.frames import FaceSettings, FrameSettings
from pipeline.evaluation.baselines import LINEAR, MAJORITY
from pipeline.evaluation.setting import Coverage, Setting
from pipeline.evaluation.tables import OPTIMISTIC
from pipeline.feed.augment import AugmentSettings
from pipeline.feed.mix import MixSettings
from pipeline.models.encoder import EncoderSize, VideoMAEEncoder
from pipeline.models.image_encoder import ImageEncoder, ImageEncoderSize
from pipeline.models.video_encoders import VideoEncoder
from pipeline.mtcae.decoder import DecoderSize
from pipeline.mtcae.loss import LossSettings
from pipeline.mtcae.model import MTCAE
from pipeline.mtcae.structures import Structure

# Of weights that have seen nobody.
NEW = History.empty()
# The paper's.
LOSS = LossSettings(boxes=0.5, points=0.5, expression=1.5, scale="frame", label_smoothing=0.0)
FRAMES = FrameSettings(
    num_frames=16,
    segments=1,
    size=224,
    sampling="uniform",
    clock="frame",
    crop="face",
    margin=1.3,
    level=False,
    jpeg_quality=95,
)
FACES = FaceSettings(min_face_size=40, max_jump=1.5, max_gap=4, min_detected=0.3)
NO_AUGMENTATION = AugmentSettings(
    flip_probability=0,
    shift=0,
    scale=0,
    rotation=0,
    crop_area=1,
    crop_aspect=1,
    colour=0,
    rand_augment_ops=0,
    rand_augment_probability=1,
    rand_augment_magnitude=0,
    rand_augment_deviation=0,
    erase_probability=0,
    copies=1,
)
NO_MIXING = MixSettings(mixup_alpha=0, cutmix_alpha=0, probability=0)


def video_encoder(
    *,
    dim: int,
    depth: int,
    num_heads: int,
    image_size: int = 224,
    patch_size: int = 16,
    tubelet_size: int = 2,
    stem: Literal["linear", "conv"] = "linear",
    num_frames: int = 16,
    drop_path: float = 0.0,
    checkpointing: bool = False,
) -> VideoMAEEncoder:
    """An encoder with random weights."""
    size = EncoderSize(
        image_size=image_size,
        patch_size=patch_size,
        tubelet_size=tubelet_size,
        dim=dim,
        depth=depth,
        num_heads=num_heads,
        stem=stem,
    )
    return VideoMAEEncoder(
        size, num_frames=num_frames, drop_path=drop_path, checkpointing=checkpointing
    )


def task_model(
    encoder: VideoEncoder,
    *,
    arch: str,
    decoder: str,
    num_classes: int,
    dim: int = 512,
    num_heads: int = 3,
    head_dim: int = 512,
    num_layers: int = 5,
    dropout: float = 0.3,
    head_dropout: float = 0.1,
    norm_before_pool: bool = False,
) -> MTCAE:
    """A structure around an encoder; the sizes are the paper's unless they are given."""
    size = DecoderSize(
        dim=dim,
        num_heads=num_heads,
        head_dim=head_dim,
        num_layers=num_layers,
        dropout=dropout,
        head_dropout=head_dropout,
        norm_before_pool=norm_before_pool,
        attention="auto",
    )
    return MTCAE(encoder, Structure(arch, decoder), size, num_classes=num_classes)


def baselines(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Of the same clips: a majority class that is the first one, a linear model that is right."""
    shares = {f"probability_{name}": 1 / len(classes) for name in classes}
    common = predictions.drop(columns=OPTIMISTIC, errors="ignore").assign(
        box_iou=np.nan, landmark_error=np.nan, interocular_error=np.nan, **shares
    )
    return pd.concat(
        [
            common.assign(baseline=MAJORITY, predicted=classes[0]),
            common.assign(baseline=LINEAR, predicted=common["actual"]),
        ],
        ignore_index=True,
    )


def setting(predictions: pd.DataFrame, classes: list[str], **changes: Any) -> Setting:
    """Of an experiment that tested all there is, from random weights; `changes` are its fields."""
    occurring = set(predictions["actual"])
    folds = sorted(map(int, predictions["fold"].unique()))
    clips, subjects = len(predictions), predictions["subject"].nunique()
    fields = {
        "dataset": "tiny",
        "model": "small",
        "recipe": "quick",
        "seeds": [7],
        "protocol": "paper",
        "views": 1,
        "encoder": "from_scratch",
        "history": NEW,
        "seen": 0,
        "classes": classes,
        "occurring": [name for name in classes if name in occurring],
        "coverage": Coverage(
            clips=clips,
            all_clips=clips,
            subjects=subjects,
            all_subjects=subjects,
            folds=folds,
            all_folds=len(folds),
        ),
        "lacking": {},
    }
    return Setting.model_validate(fields | changes)


def start_from(checkpoint: Path | None, folder: Path) -> Path:
    """The folder that stage weights makes of a checkpoint, or of none."""
    folder.mkdir(parents=True, exist_ok=True)
    history = read_history(checkpoint) if checkpoint else NEW
    name = checkpoint.name if checkpoint else "from_scratch"
    write_json(folder / CARD, {"name": name, "history": history.model_dump()})
    if checkpoint:
        copyfile(checkpoint, folder / CHECKPOINT)
    return folder


def image_encoder(*, image_size: int = 32, drop_path: float = 0.0) -> ImageEncoder:
    """An encoder of 16 patches and two blocks with random weights, whose positions are trained."""
    size = ImageEncoderSize(image_size=image_size, patch_size=8, dim=16, depth=2, num_heads=2)
    encoder = ImageEncoder(size, drop_path=drop_path)
    encoder.pos_embed.requires_grad_()
    return encoder
