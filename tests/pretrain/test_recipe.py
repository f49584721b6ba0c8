import math

import pytest
import yaml
from project import ROOT
from small_pretrain import image_autoencoder, video_autoencoder
from torch.optim import AdamW

from pipeline.pretrain.autoencoder import MaskedAutoencoder
from pipeline.pretrain.recipe import (
    ModelSizes,
    OptimizerSettings,
    Recipe,
    ScheduleSettings,
    make_optimizer,
    make_schedule,
)

OPTIMIZER = OptimizerSettings(rate_per_256=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05)


def undecayed(model: MaskedAutoencoder, optimizer: AdamW) -> set[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]
        for group in optimizer.param_groups
        for parameter in group["params"]
        if group["weight_decay"] == 0
    }


def test_the_rate_is_in_proportion_to_the_batch() -> None:
    optimizer = make_optimizer(image_autoencoder(), OPTIMIZER, batch_size=4096)
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(1.5e-4 * 16)
        assert group["betas"] == (0.9, 0.95)
        assert group["weight_decay"] in (0, 0.05)


def test_videomae_decays_neither_vectors_nor_its_mask_token() -> None:
    model = video_autoencoder()
    vectors = {name for name, p in model.named_parameters() if p.ndim == 1}
    assert {name.rpartition(".")[2] for name in vectors} == {"weight", "bias", "q_bias", "v_bias"}
    optimizer = make_optimizer(model, OPTIMIZER, batch_size=256)
    assert undecayed(model, optimizer) == vectors | {"mask_token"}


def test_mae_decays_its_tokens_and_trains_no_positions() -> None:
    model = image_autoencoder()
    optimizer = make_optimizer(model, OPTIMIZER, batch_size=256)
    assert undecayed(model, optimizer) == {n for n, p in model.named_parameters() if p.ndim == 1}
    trained = sum(len(group["params"]) for group in optimizer.param_groups)
    assert trained == len(list(model.parameters())) - 2


def rates(settings: ScheduleSettings, batch_size: int) -> list[float]:
    """Of 5 epochs of 2 steps."""
    optimizer = make_optimizer(image_autoencoder(), OPTIMIZER, batch_size=batch_size)
    schedule = make_schedule(
        settings, optimizer, batch_size=batch_size, epochs=5, steps_per_epoch=2
    )
    found = []
    for _ in range(10):
        found.append(optimizer.param_groups[0]["lr"] / 2)
        optimizer.step()
        schedule.step()
    return found


def test_the_rate_rises_from_the_floor_and_falls_back_along_a_cosine() -> None:
    found = rates(ScheduleSettings(warmup_epochs=1, floor_per_256=1e-5), batch_size=512)
    # Two steps up, eight down.
    down = [1e-5 + 1.4e-4 * (1 + math.cos(math.pi * i / 8)) / 2 for i in range(8)]
    assert found == pytest.approx([0.8e-4, 1.5e-4, *down])


def test_a_warm_up_of_all_epochs_or_a_floor_above_the_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup_epochs is 5 of 5 epochs"):
        rates(ScheduleSettings(warmup_epochs=5, floor_per_256=0), batch_size=256)
    with pytest.raises(ValueError, match="above the optimiser's learning rate"):
        rates(ScheduleSettings(warmup_epochs=1, floor_per_256=1e-3), batch_size=256)


def test_the_presets_are_valid_and_the_tiny_encoder_is_the_one_that_is_fine_tuned() -> None:
    presets = yaml.safe_load((ROOT / "pretrain/params.yaml").read_text(encoding="utf-8"))
    fine_tuned = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["models"]
    # The others are for published files alone.
    assert presets["models"].keys() == fine_tuned.keys() - {
        "base_160",
        "vjepa_large",
        "vjepa2_large",
    }
    for name, preset in presets["models"].items():
        sizes = ModelSizes.model_validate(preset)
        assert sizes.videomae.encoder.model_dump() == fine_tuned[name]["encoder"]
    for recipe in presets["recipes"].values():
        assert Recipe.model_validate(recipe).optimizer.betas == (0.9, 0.95)
