from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from pipeline.affect.build import (
    EncoderTraining,
    ModelSize,
    OptimizerSettings,
    build_cotex,
    build_emma,
    make_optimizer,
)
from pipeline.affect.cotex import CoTEXSettings
from pipeline.affect.emma import EMMA, HeadSize
from pipeline.models.image_encoder import ImageEncoder, ImageEncoderSize
from pipeline.training.optim import ScheduleSettings, make_schedule

SIZE = ModelSize(
    encoder=ImageEncoderSize(image_size=32, patch_size=8, dim=16, depth=2, num_heads=2),
    heads=HeadSize(score_dim=12, va_dim=6),
)
TRAINING = EncoderTraining(drop_path=0.1, checkpointing=False)
# The paper's, for its batch of 400.
OPTIMIZER = OptimizerSettings(
    learning_rate=5e-4 * 400 / 256, weight_decay=0.05, layer_decay=0.65, va_learning_rate=1e-4
)


def emma(start: Path | None = None) -> EMMA:
    return build_emma(SIZE, TRAINING, start, num_classes=8, num_cnn_classes=8, va_input="both")


def save_mae(file: Path) -> ImageEncoder:
    """An encoder as MAE publishes it, with some of its decoder."""
    torch.manual_seed(5)
    encoder = ImageEncoder(SIZE.encoder)
    weights = {name: tensor.contiguous() for name, tensor in encoder.named_parameters()}
    save_file({**weights, "mask_token": torch.zeros(1, 1, 8)}, file)
    return encoder


def by_name(model: nn.Module, optimizer: AdamW) -> dict[str, tuple[float, float]]:
    """Rate and decay of each parameter."""
    found = {
        id(weight): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    named = {name: found[id(weight)] for name, weight in model.named_parameters()}
    assert len(named) == len(found)
    return named


def test_the_va_head_has_a_rate_of_its_own_and_layers_have_falling_ones() -> None:
    model = emma()
    settings = by_name(model, make_optimizer(model, OPTIMIZER))
    rate = 7.8125e-4
    assert settings["va_head.0.weight"] == (1e-4, 0.05)
    assert settings["va_head.2.bias"] == (1e-4, 0)
    assert settings["score_head.0.weight"] == pytest.approx((rate, 0.05))
    assert settings["encoder.blocks.1.mlp.fc1.weight"] == pytest.approx((rate * 0.65, 0.05))
    assert settings["encoder.patch_embed.proj.weight"] == pytest.approx((rate * 0.65**3, 0.05))
    for name in ("encoder.pos_embed", "encoder.cls_token"):
        assert settings[name] == pytest.approx((rate * 0.65**3, 0))


def test_the_schedule_moves_all_rates_alike() -> None:
    model = emma()
    optimizer = make_optimizer(model, OPTIMIZER)
    kind = ScheduleSettings(kind="cosine", warmup_epochs=5, lowest_rate=1e-6, plateau_patience=1)
    schedule = make_schedule(kind, optimizer, epochs=30, steps_per_epoch=2)
    assert isinstance(schedule, LambdaLR)
    optimizer.step()
    for _ in range(9):
        schedule.step()  # to the end of the warm-up
    settings = by_name(model, optimizer)
    assert settings["va_head.0.weight"][0] == pytest.approx(1e-4)
    for _ in range(51):
        schedule.step()
    settings = by_name(model, optimizer)
    assert settings["score_head.0.weight"][0] == pytest.approx(1e-6)
    assert settings["va_head.0.weight"][0] == pytest.approx(1e-6 * 1e-4 / 7.8125e-4)


def test_the_views_of_cotex_start_from_one_mae_and_have_heads_of_their_own(tmp_path: Path) -> None:
    prior = save_mae(tmp_path / "mae.safetensors")
    settings = CoTEXSettings(views=2, mask_rate=0.5, js_weight=12.5)
    model = build_cotex(SIZE, TRAINING, tmp_path / "mae.safetensors", settings, num_classes=8)
    first, second = model.views
    wanted = dict(prior.named_parameters())
    for view in (first, second):
        found = dict(view.named_parameters())
        assert all(torch.equal(found[f"encoder.{name}"], wanted[name]) for name in wanted)
    assert not torch.equal(first.get_parameter("head.weight"), second.get_parameter("head.weight"))
    settings_of = by_name(model, make_optimizer(model, OPTIMIZER))
    assert settings_of["views.1.encoder.pos_embed"][1] == 0
    assert settings_of["views.1.encoder.blocks.1.attn.qkv.bias"][0] == pytest.approx(
        7.8125e-4 * 0.65
    )


def test_emma_starts_from_a_mae_whose_positions_it_trains(tmp_path: Path) -> None:
    prior = save_mae(tmp_path / "mae.safetensors")
    model = emma(tmp_path / "mae.safetensors")
    assert torch.equal(model.encoder.norm.weight, prior.norm.weight)
    assert torch.equal(model.encoder.cls_token, prior.cls_token)
    assert model.encoder.pos_embed.requires_grad
    other = SIZE.model_copy(update={"encoder": SIZE.encoder.model_copy(update={"depth": 3})})
    with pytest.raises(ValueError, match="2 blocks deep, where the model's is 16 wide and 3 deep"):
        build_emma(
            other,
            TRAINING,
            tmp_path / "mae.safetensors",
            num_classes=8,
            num_cnn_classes=0,
            va_input="vit_scores",
        )
