from pathlib import Path
from typing import Literal

import pytest
import torch
from small import video_encoder

from pipeline.models.encoder import EncoderSize
from pipeline.models.start import EncoderTraining, build_encoder
from pipeline.models.video_encoders import VideoEncoder

SIZE = EncoderSize(
    image_size=32, patch_size=16, tubelet_size=2, dim=24, depth=2, num_heads=2, stem="linear"
)


def build(mode: Literal["full", "frozen"], weights: Path | None) -> VideoEncoder:
    training = EncoderTraining(mode=mode, drop_path=0.2, checkpointing=True)
    return build_encoder(SIZE, 4, training, weights)


def test_a_frozen_encoder_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="a frozen encoder without weights would stay random"):
        build("frozen", None)


def test_an_encoder_from_scratch_is_trained_as_the_recipe_says() -> None:
    encoder = build("full", None)
    assert not encoder.frozen
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert encoder.size == SIZE
    assert encoder.num_frames == 4
    assert encoder.checkpointing
    assert encoder.blocks[1].drop_path1.drop_prob == 0.2  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["full", "frozen"])
def test_weights_of_a_checkpoint_fill_the_encoder(
    mode: Literal["full", "frozen"], tmp_path: Path
) -> None:
    weights = video_encoder(dim=24, depth=2, num_heads=2, image_size=32, num_frames=4).state_dict()
    torch.save(weights, tmp_path / "x.pth")
    encoder = build(mode, tmp_path / "x.pth")
    assert encoder.frozen == (mode == "frozen")
    assert all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())
