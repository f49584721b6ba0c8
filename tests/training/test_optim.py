import math

import numpy as np
import pytest
import torch
import yaml
from project import ROOT
from small import task_model, video_encoder
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from pipeline.mtcae.model import MTCAE
from pipeline.training.optim import (
    OptimizerSettings,
    ScheduleSettings,
    adamw,
    cosine_schedule,
    make_schedule,
    plateau_schedule,
)

RATE, DECAY = 0.1, 0.05


def tiny_model(depth: int = 2) -> MTCAE:
    encoder = video_encoder(dim=12, depth=depth, num_heads=2, image_size=32, num_frames=4)
    return task_model(
        encoder,
        arch="cascaded",
        decoder="vit",
        num_classes=3,
        dim=8,
        num_heads=2,
        head_dim=4,
        num_layers=1,
    )


def build(model: MTCAE, layer_decay: float = 0.5) -> AdamW:
    settings = OptimizerSettings(learning_rate=RATE, weight_decay=DECAY, layer_decay=layer_decay)
    return adamw(model, settings, model.layers_from_output)


def settings(model: MTCAE, optimizer: AdamW, key: str) -> dict[str, float]:
    """One setting of each parameter, by the parameter's name."""
    values = {id(p): group[key] for group in optimizer.param_groups for p in group["params"]}
    return {name: values[id(p)] for name, p in model.named_parameters() if id(p) in values}


def one_parameter(rate: float = 1.0) -> AdamW:
    return AdamW([nn.Parameter(torch.zeros(1))], lr=rate)


def rates_of(
    optimizer: AdamW, schedule: LambdaLR | ReduceLROnPlateau, num_steps: int
) -> list[float]:
    """The rate of each step under a schedule that is stepped after every batch."""
    assert isinstance(schedule, LambdaLR)
    rates = []
    for _ in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_the_groups_hold_every_parameter_exactly_once() -> None:
    model = tiny_model()
    grouped = [id(p) for group in build(model).param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_each_block_learns_at_a_fixed_fraction_of_the_rate_of_the_block_above_it() -> None:
    model = tiny_model(depth=3)
    for name, rate in settings(model, build(model), "lr").items():
        distance = 0
        for prefix, layers in {
            "encoder.blocks.2.": 1,
            "encoder.blocks.1.": 2,
            "encoder.blocks.0.": 3,
            "encoder.patch_embed.": 4,
        }.items():
            distance = layers if name.startswith(prefix) else distance
        assert rate == pytest.approx(0.1 * 0.5**distance), name


def test_a_layer_decay_of_one_gives_every_layer_the_full_rate() -> None:
    model = tiny_model()
    assert set(settings(model, build(model, layer_decay=1.0), "lr").values()) == {RATE}


def test_without_a_count_of_layers_every_parameter_has_the_full_rate() -> None:
    model = tiny_model()
    chosen = OptimizerSettings(learning_rate=RATE, weight_decay=DECAY, layer_decay=0.5)
    assert set(settings(model, adamw(model, chosen), "lr").values()) == {RATE}


def test_weights_are_decayed_and_biases_and_norms_are_not() -> None:
    model = tiny_model()
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)]
    for name, decay in settings(model, build(model), "weight_decay").items():
        spared = name.endswith("bias") or name.rpartition(".")[0] in norms
        assert decay == (0 if spared else DECAY), name


def test_a_frozen_encoder_is_left_out() -> None:
    model = tiny_model()
    model.encoder.freeze()
    names = set(settings(model, build(model), "lr"))
    assert names == {
        name for name, _ in model.named_parameters() if not name.startswith("encoder.")
    }


def test_the_cosine_schedule_rises_linearly_and_falls_along_half_a_cosine() -> None:
    optimizer = one_parameter(rate=2.0)
    schedule = cosine_schedule(optimizer, warmup_steps=4, total_steps=20, lowest=0)
    rates = rates_of(optimizer, schedule, 24)
    assert rates[:5] == pytest.approx([0.5, 1, 1.5, 2, 2])
    assert rates[8] == pytest.approx(1 + math.cos(math.pi / 4))
    assert rates[12] == pytest.approx(1)
    assert rates[16] == pytest.approx(1 - math.cos(math.pi / 4))
    assert rates[20:] == pytest.approx([0] * 4)


# Full rate 2, lowest 0.4, four steps up and four down: up by 0.4 each, down by 1.6 times half a
# cosine. cos 45 degrees = 0.70711.
RISE_AND_FALL = [0.8, 1.2, 1.6, 2.0, 2.0, 1.76569, 1.2, 0.63431, 0.4, 0.4]


def test_the_cosine_schedule_rises_from_the_lowest_rate_and_falls_back_to_it() -> None:
    optimizer = one_parameter(rate=2.0)
    chosen = ScheduleSettings(kind="cosine", warmup_epochs=1, lowest_rate=0.4, plateau_patience=1)
    schedule = make_schedule(chosen, optimizer, epochs=2, steps_per_epoch=4)
    assert rates_of(optimizer, schedule, 10) == pytest.approx(RISE_AND_FALL, abs=1e-5)


def test_layers_far_from_the_output_have_their_share_of_the_lowest_rate() -> None:
    model = tiny_model(depth=2)
    optimizer = build(model, layer_decay=0.5)
    chosen = ScheduleSettings(kind="cosine", warmup_epochs=1, lowest_rate=0.02, plateau_patience=1)
    schedule = make_schedule(chosen, optimizer, epochs=2, steps_per_epoch=4)
    # RISE_AND_FALL with a twentieth of the rates; the embedding lies three layers below the heads.
    for step in range(10):
        rates = settings(model, optimizer, "lr")
        head = RISE_AND_FALL[step] / 20
        assert rates["tasks.heads.boxes.proj.weight"] == pytest.approx(head, abs=1e-6)
        assert rates["encoder.patch_embed.proj.weight"] == pytest.approx(head / 8, abs=1e-6)
        optimizer.step()
        schedule.step()  # type: ignore[call-arg]


def test_the_fall_of_recipe_full_is_videomaes() -> None:
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    recipe = document["recipes"]["full"]
    chosen, batch_size = recipe["optimizer"], recipe["engine"]["batch_size"]
    # Both are meant for 256 clips, and scaled to the clips of a step: copies do not count.
    base, lowest = 1e-3 * batch_size / 256, 1e-6 * batch_size / 256
    assert chosen["learning_rate"] == pytest.approx(base, rel=1e-12)
    assert recipe["schedule"]["lowest_rate"] == pytest.approx(lowest, rel=1e-12)
    epochs, steps, warmup = recipe["engine"]["epochs"], 7, recipe["schedule"]["warmup_epochs"]
    optimizer = one_parameter(rate=chosen["learning_rate"])
    schedule = make_schedule(
        ScheduleSettings.model_validate(recipe["schedule"]),
        optimizer,
        epochs=epochs,
        steps_per_epoch=steps,
    )
    rates = rates_of(optimizer, schedule, epochs * steps + 1)
    fall = np.arange((epochs - warmup) * steps + 1)
    expected = lowest + (base - lowest) * (1 + np.cos(np.pi * fall / fall[-1])) / 2
    np.testing.assert_allclose(rates[warmup * steps :], expected, rtol=1e-9)
    rise = np.linspace(lowest, base, warmup * steps + 1)
    np.testing.assert_allclose(rates[: warmup * steps], rise[1:], rtol=1e-9)


def test_a_lowest_rate_of_zero_changes_no_bit() -> None:
    optimizer = one_parameter(rate=1e-3)
    schedule = cosine_schedule(optimizer, warmup_steps=45, total_steps=450, lowest=0.0)
    expected = [1e-3 * ((step + 1) / 45) for step in range(45)]
    expected += [1e-3 * ((1 + math.cos(math.pi * (i / 405))) / 2) for i in range(405)]
    assert rates_of(optimizer, schedule, 450) == expected


def test_the_plateau_schedule_stops_at_the_lowest_rate() -> None:
    optimizer = one_parameter(rate=1.0)
    chosen = ScheduleSettings(kind="plateau", warmup_epochs=0, lowest_rate=0.03, plateau_patience=1)
    schedule = make_schedule(chosen, optimizer, epochs=5, steps_per_epoch=2)
    rates = []
    for _ in range(4):
        schedule.step(1.0)  # type: ignore[arg-type]
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1, 0.1, 0.03, 0.03])


def test_a_lowest_rate_above_the_full_one_is_refused() -> None:
    chosen = ScheduleSettings(kind="cosine", warmup_epochs=0, lowest_rate=0.5, plateau_patience=1)
    with pytest.raises(ValueError, match=r"lowest_rate is 0\.5, above .* rate of 0\.1"):
        make_schedule(chosen, one_parameter(rate=0.1), epochs=2, steps_per_epoch=2)


def test_without_warmup_the_cosine_schedule_starts_at_the_full_rate() -> None:
    optimizer = one_parameter()
    cosine_schedule(optimizer, warmup_steps=0, total_steps=10, lowest=0)
    assert optimizer.param_groups[0]["lr"] == 1


def test_a_schedule_keeps_the_ratio_of_the_layers() -> None:
    model = tiny_model()
    optimizer = build(model)
    before = [group["lr"] for group in optimizer.param_groups]
    schedule = cosine_schedule(optimizer, warmup_steps=0, total_steps=4, lowest=0)
    optimizer.step()
    schedule.step()
    factor = (1 + math.cos(math.pi / 4)) / 2
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [factor * rate for rate in before]
    )


def test_the_plateau_schedule_takes_a_tenth_of_the_rate_when_the_loss_stops_falling() -> None:
    optimizer = one_parameter()
    schedule = plateau_schedule(optimizer, patience=3, lowest=0)

    def rate_after(*losses: float) -> float:
        for loss in losses:
            schedule.step(loss)
        return float(optimizer.param_groups[0]["lr"])

    assert rate_after(5, 4, 4, 4, 3, 3, 3) == 1
    assert rate_after(3) == pytest.approx(0.1)
    assert rate_after(2, 1, 1, 1) == pytest.approx(0.1)
    assert rate_after(1) == pytest.approx(0.01)


def test_the_cosine_of_a_recipe_is_counted_in_epochs() -> None:
    optimizer = one_parameter()
    chosen = ScheduleSettings(kind="cosine", warmup_epochs=1, lowest_rate=0, plateau_patience=1)
    schedule = make_schedule(chosen, optimizer, epochs=3, steps_per_epoch=2)
    assert rates_of(optimizer, schedule, 7) == pytest.approx(
        [0.5, 1, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]
    )


def test_the_plateau_of_a_recipe_has_its_patience() -> None:
    optimizer = one_parameter()
    chosen = ScheduleSettings(kind="plateau", warmup_epochs=0, lowest_rate=0, plateau_patience=2)
    schedule = make_schedule(chosen, optimizer, epochs=3, steps_per_epoch=2)
    rates = []
    for _ in range(3):
        schedule.step(1.0)  # type: ignore[arg-type]
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1, 1, 0.1])
