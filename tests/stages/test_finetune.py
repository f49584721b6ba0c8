from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from project import ROOT

from pipeline.models.checkpoints import load_model, save_model
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.models.mtcae import MTCAE
from stages.finetune import Params, build_model


@pytest.fixture
def document() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return document


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A trained model of the tiny size whose encoder takes plain RGB in [0, 1], as MARLIN does."""
    encoder = VideoMAEEncoder(
        dim=128,
        depth=4,
        num_heads=4,
        image_size=56,
        patch_size=8,
        tubelet_size=8,
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    path = tmp_path / "model.safetensors"
    save_model(path, MTCAE(encoder, arch="stl", decoder="vit", num_classes=3), metadata={})
    return path


def build(document: dict[str, Any], **recipe: object) -> MTCAE:
    document["recipes"]["quick"] |= recipe
    return build_model(Params.from_document(document))


def test_a_frozen_encoder_needs_weights(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"name a checkpoint in encoder\.weights"):
        build(document, encoder="frozen")


@pytest.mark.parametrize("mode", ["full", "frozen"])
def test_the_encoder_starts_from_the_checkpoint_with_its_normalisation(
    mode: str, document: dict[str, Any], checkpoint: Path
) -> None:
    document["encoder"]["weights"] = str(checkpoint)
    model = build(document, encoder=mode)
    expected = load_model(checkpoint)[0].encoder
    frames = torch.rand(1, 16, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(model.encoder.eval()(frames), expected(frames), rtol=0, atol=0)
    assert model.encoder.mean.flatten().tolist() == [0, 0, 0]
    trained = {parameter.requires_grad for parameter in model.encoder.parameters()}
    assert trained == {mode == "full"}


def test_every_preset_of_model_and_recipe_is_valid(document: dict[str, Any]) -> None:
    for model in document["models"]:
        for recipe in document["recipes"]:
            params = Params.from_document(document | {"model": model, "recipe": recipe})
            assert params.models.decoder_dim > 0


def test_drop_path_and_checkpointing_reach_the_encoder(document: dict[str, Any]) -> None:
    encoder = build(document, drop_path=0.3, checkpointing=True).encoder
    assert encoder.checkpointing
    assert encoder.config["drop_path"] == 0.3
