"""A data set of six people on noise, and parameters that train on it in a second."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.clips import Clip, write_stored
from pipeline.common.frames import FaceTrack
from pipeline.mtcae.assembly import TrainingParams
from pipeline.store.contents import CLIPS
from pipeline.store.shards import write_shards
from pipeline.store.strips import encode_strip

CLASSES = ["angry", "happy", "sad"]


def write_clips(shards: Path, box: tuple[int, int, int, int]) -> None:
    """Three clips of each of six people, with that box in every frame."""
    random = np.random.default_rng(0)
    labelled = []
    for person in "abcdef":
        for i in range(3):
            strip = encode_strip(random.integers(0, 256, (16, 56, 56, 3), np.uint8), quality=90)
            boxes = np.tile(np.array(box, np.float32), (16, 1))
            points = random.uniform(8, 40, (16, 5, 2)).astype(np.float32)
            name = f"{person}{i}"
            times = np.arange(16) / 5 + i
            clip = Clip(name, f"{name}.mp4", person, CLASSES[i], content=name, times=times)
            labelled.append((clip, strip, FaceTrack(boxes, points, np.ones(16, np.bool_))))
    write_stored(shards / CLIPS, write_shards(shards, labelled))


def small_params(document: dict[str, Any], **changes: dict[str, object]) -> TrainingParams:
    """Three epochs of three steps; every switch that draws at random is on.

    Args:
        document: Of params.yaml; it is changed.
        changes: By section of the recipe.
    """
    document["datasets"]["sample"]["classes"] = CLASSES
    model, recipe = document["models"]["tiny"], document["recipes"]["quick"]
    model["encoder"] |= {"depth": 1, "dim": 32, "image_size": 56, "patch_size": 8}
    model["encoder"] |= {"tubelet_size": 8, "stem": "linear"}
    model["decoder"] |= {"dim": 32, "dropout": 0.1, "head_dropout": 0.1}
    random: dict[str, dict[str, object]] = {
        "encoder": {"drop_path": 0.1},
        "augment": {
            "crop_area": 0.5,
            "crop_aspect": 1.3333,
            "rand_augment_ops": 2,
            "rand_augment_probability": 0.5,
            "rand_augment_magnitude": 5.0,
            "rand_augment_deviation": 0.5,
            "erase_probability": 0.25,
            "copies": 2,
        },
        "mix": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "probability": 0.5},
        "engine": {
            "epochs": 3,
            "min_steps": 1,
            "batch_size": 5,
            "micro_batch_size": 4,
            "class_balanced": True,
            "ema": 0.9,
        },
        "loss": {"label_smoothing": 0.1, "scale": "frame"},
    }
    for sections in (random, changes):
        for name, values in sections.items():
            recipe[name] |= values
    return TrainingParams.from_document(document)
