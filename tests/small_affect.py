"""Affect models on disk, as stage train leaves them, and the CNN whose scores they read."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from project import ROOT
from small import NEW
from timm import create_model
from torch import nn

from pipeline.affect.cnn import CNNSettings, NoCNN, ScoreSource
from pipeline.affect.cnn_files import CNNCard, open_scores, save_cnn
from pipeline.affect.cnn_stored import CNNRecord
from pipeline.affect.cotex import MaskedCoTEX
from pipeline.affect.emma import EMMA
from pipeline.affect.labels import AUS, EXPRESSIONS
from pipeline.affect.recipe import Start, build
from pipeline.affect.results import write_model, write_tuning
from pipeline.affect.tuning import Tuning
from pipeline.common.encoder_weights import CARD
from pipeline.common.files import sha256_of, write_json
from stages.affect.train import Params

SIDE = 48  # Of the stored pictures; the model reads 32 of them.
NO_CNN = NoCNN()


def affect_params(**changes: Any) -> Params:
    """Of a tiny model that sees the middle of a picture."""
    document = yaml.safe_load((ROOT / "affect/params.yaml").read_text(encoding="utf-8"))
    encoder = {"image_size": 32, "patch_size": 16, "dim": 16, "depth": 1, "num_heads": 2}
    document["models"]["tiny"] |= {"stored_side": SIDE, "encoder": encoder}
    recipe = document["recipes"]["quick"]
    recipe["augment"]["crop"] = 32 / SIDE
    recipe["cnn_scores"] = changes.pop("cnn_scores", "once")
    return Params.from_document(document | {"va_input": "vit_scores"} | changes)


def save_affect_model(
    folder: Path,
    params: Params,
    cnn: ScoreSource = NO_CNN,
    *,
    seed: int = 0,
    digest: str = "",
    threshold: float = 0.5,
) -> EMMA | MaskedCoTEX:
    """Random weights; the model comes back in evaluation mode.

    Args:
        folder: A new one.
        params: Of its training.
        cnn: Whose scores it reads.
        seed: Of the weights.
        digest: Of the CNN's file.
        threshold: Of all action units.
    """
    torch.manual_seed(seed)
    start = Start(params.models, params.recipes, params.cotex, None, cnn, seed)
    model = build(params.system, params.va_input, start, len(EXPRESSIONS))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    more = {"classes": list(EXPRESSIONS), "fold": 1, "cnn_digest": digest}
    description = {**params.model_dump(mode="json"), **more}
    folder.mkdir(parents=True)
    write_model(folder, model, description, NEW)
    write_tuning(folder, Tuning(np.full(len(AUS), threshold), 0))
    return model.eval()


def save_small_cnn(
    folder: Path, side: int = SIDE, num_classes: int = 3
) -> tuple[ScoreSource, nn.Module]:
    """As stage cnn leaves it; the scores' source and the bare network, in evaluation mode."""
    torch.manual_seed(3)
    network = create_model("test_resnet", num_classes=num_classes).eval()
    history = NEW
    card = CNNCard(
        family="timm:test_resnet",
        classes=EXPRESSIONS[:num_classes],
        size=side,
        normalisation="half",
        history=history,
    )
    folder.mkdir(parents=True)
    save_cnn(folder / "cnn.safetensors", network, card)
    settings = CNNSettings(
        weights="cnn.safetensors", family="auto", classes=(), size=0, normalisation="imagenet"
    )
    record = CNNRecord(
        settings=settings,
        classes=card.classes,
        history=history,
        digest=sha256_of(folder / "cnn.safetensors"),
    )
    write_json(folder / CARD, record.model_dump())
    return open_scores(settings, folder / "cnn.safetensors", []), network
