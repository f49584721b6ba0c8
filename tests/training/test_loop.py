from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
import torch
from lightning_fabric import Fabric
from project import ROOT, modules
from small import LOSS
from tiny_training import (
    ENGINE,
    clips,
    fit,
    steady_adamw,
    tiny_model,
    tiny_task,
    without_clock,
)
from torch import Tensor, nn
from torch.optim import AdamW

from pipeline.common.imports import needed_files
from pipeline.feed.mix import MixSettings
from pipeline.mtcae.predictions import evaluate
from pipeline.mtcae.structures import STRUCTURES
from pipeline.mtcae.task import MTCAETask
from pipeline.store.batch import Batch
from pipeline.training import loop
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import end_together
from pipeline.training.history import Epoch
from pipeline.training.loop import train
from pipeline.training.optim import cosine_schedule
from pipeline.training.task import Place, Validation

HEAD = "tasks.heads.expression.proj.weight"
ENGINE_FILES = [module for module in modules() if module.parts[:2] == ("pipeline", "training")]


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def train_losses(row: Epoch) -> list[float]:
    """Total, boxes, points, expression."""
    return [row[f"train_{term}"] for term in MTCAETask.loss_terms]


class ScriptedTask:
    """A task whose epochs have these UARs, whatever the model predicts."""

    def __init__(self, validation: list[Batch], *uars: float) -> None:
        self.task = tiny_task(validation)
        self.loss_terms = self.task.loss_terms
        self.uars = iter(uars)

    def parts(self, batch: Batch, place: Place, size: int) -> list[Batch]:
        return self.task.parts(batch, place, size)

    def totals(self, module: nn.Module, part: Batch) -> Tensor:
        return self.task.totals(module, part)

    def losses(self, module: nn.Module, part: Batch, totals: Tensor) -> Sequence[Tensor]:
        return self.task.losses(module, part, totals)

    def validate(self, fabric: Fabric, module: nn.Module) -> Validation:
        scores, (_, *others) = self.task.validate(fabric, module)
        uar = next(self.uars)
        return Validation({**scores, "uar": uar}, rank=(uar, *others))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


@dataclass(frozen=True)
class Samples:
    """What a regression learns from."""

    ids: list[str]
    x: Tensor
    y: Tensor

    def to(self, device: torch.device) -> Self:
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def part(self, rows: slice) -> Self:
        return replace(self, ids=self.ids[rows], x=self.x[rows], y=self.y[rows])


class SampleBatches:
    """Two batches, of three samples and of two, in every epoch."""

    steps_per_epoch = 2

    def __init__(self, samples: Samples) -> None:
        self.batches = [samples.part(slice(3)), samples.part(slice(3, 5))]

    def starting_at(self, epoch: int, step: int) -> Iterator[Samples]:
        return islice(cycle(self.batches), step, None)


class Regression:
    """Squared errors; the best epoch has the smallest error."""

    loss_terms: tuple[str, ...] = ("error",)

    def __init__(self, validation: Samples) -> None:
        self.validation = validation

    def parts(self, batch: Samples, place: Place, size: int) -> list[Samples]:
        return [batch.part(slice(i, i + size)) for i in range(0, len(batch.ids), size)]

    def totals(self, module: nn.Module, part: Samples) -> Tensor:
        return torch.tensor([len(part.ids)])

    def losses(self, module: nn.Module, part: Samples, totals: Tensor) -> Sequence[Tensor]:
        return [(module(part.x) - part.y).square().sum() / totals[0]]

    def validate(self, fabric: Fabric, module: nn.Module) -> Validation:
        with torch.no_grad():
            (loss,) = self.losses(module, self.validation, self.totals(module, self.validation))
        return Validation({"error": loss.item()}, rank=(-loss.item(),))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


@pytest.mark.parametrize("module", ENGINE_FILES, ids=str)
def test_the_engine_knows_no_faces_models_or_stores(module: Path) -> None:
    areas = {file.parts[1] for file in needed_files(module, ROOT)}
    assert areas <= {"common", "training"}


def test_a_model_that_has_nothing_to_do_with_faces_trains_like_a_plain_loop_of_torch(
    fabric: Fabric, tmp_path: Path
) -> None:
    epochs = 20
    random = torch.Generator().manual_seed(1)
    x = torch.randn(8, 3, generator=random)
    y = x @ torch.tensor([[1.0], [-2.0], [3.0]]) + 0.5
    samples = Samples([f"sample{i}" for i in range(8)], x, y)
    validation = samples.part(slice(5, 8))

    def untrained() -> tuple[nn.Linear, AdamW]:
        torch.manual_seed(1)
        model = nn.Linear(3, 1)
        # With such an eps, steps are in proportion to the gradients.
        return model, AdamW(model.parameters(), lr=0.3, weight_decay=0.01, eps=1.0)

    # Batches of three and two samples go through in parts of two.
    model, optimizer = untrained()
    trained = train(
        fabric,
        model,
        optimizer,
        cosine_schedule(optimizer, warmup_steps=3, total_steps=2 * epochs, lowest=0),
        Regression(validation),
        SampleBatches(samples),
        ENGINE.model_copy(update={"epochs": epochs, "clip_gradients": 0.0}),
        Checkpoints(tmp_path / "scratch"),
        lambda row: None,
    )

    plain, optimizer = untrained()
    schedule = cosine_schedule(optimizer, warmup_steps=3, total_steps=2 * epochs, lowest=0)
    for epoch, row in enumerate(trained.history, start=1):
        errors = []
        rates = []
        for rows in (slice(3), slice(3, 5)):
            loss = nn.functional.mse_loss(plain(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
            errors.append(loss.item())
        with torch.no_grad():
            error = nn.functional.mse_loss(plain(x[5:]), y[5:]).item()
        assert without_clock(row) == pytest.approx(
            {
                "epoch": epoch,
                "learning_rate": rates[-1],
                "train_error": (3 * errors[0] + 2 * errors[1]) / 5,
                "validation_error": error,
            },
            rel=1e-5,
        )
    # The error falls, so that the last epoch is the best one.
    assert trained.best_epoch == len(trained.history) == epochs
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("arch", "decoder"), STRUCTURES)
def test_every_structure_learns_four_clips_by_heart(
    fabric: Fabric, arch: str, decoder: str
) -> None:
    four = [clips(4)]
    model = tiny_model(arch, decoder)
    untrained = evaluate(fabric, model, four, LOSS).losses
    history = fit(fabric, model, four, tiny_task(four), epochs=80).history
    assert history[-1]["validation_war"] == 1
    trained = evaluate(fabric, model, four, LOSS)
    assert (trained.probabilities.argmax(axis=1) == trained.labels).all()
    for task in ("boxes", "points"):
        if arch == "stl":
            assert trained.losses[task] == 0
        else:
            assert trained.losses[task] < untrained[task] / 5


def test_the_weights_kept_are_those_of_the_epoch_with_the_highest_uar(fabric: Fabric) -> None:
    model = tiny_model()
    snapshots: dict[float, dict[str, Tensor]] = {}
    trained = fit(
        fabric,
        model,
        [clips(4)],
        ScriptedTask([clips(4, seed=1)], 0.2, 0.6, 0.4, 0.5),
        epochs=4,
        on_epoch=lambda row: snapshots.update({row["epoch"]: state(model)}),
    )
    assert trained.best_epoch == 2
    assert [row["validation_uar"] for row in trained.history] == [0.2, 0.6, 0.4, 0.5]
    kept = state(model)
    assert all(torch.equal(kept[name], value) for name, value in snapshots[2].items())
    assert not all(torch.equal(kept[name], value) for name, value in snapshots[4].items())


@pytest.mark.parametrize(("validation_seed", "best_epoch"), [(0, 6), (1, 1)])
def test_of_epochs_with_equal_uar_the_one_with_the_lowest_expression_loss_is_kept(
    fabric: Fabric, validation_seed: int, best_epoch: int
) -> None:
    # The loss falls on the clips that are learnt by heart, and rises on other noise.
    validation = [clips(4, seed=validation_seed)]
    model, task = tiny_model(), ScriptedTask(validation, *[0.5] * 6)
    trained = fit(fabric, model, [clips(4, seed=0)], task, epochs=6)
    losses = [row["validation_expression_loss"] for row in trained.history]
    assert trained.best_epoch == best_epoch
    assert losses[best_epoch - 1] == min(losses)
    assert evaluate(fabric, model, validation, LOSS).losses["expression"] == min(losses)


def test_training_stops_when_no_better_epoch_came_for_long(fabric: Fabric) -> None:
    task = ScriptedTask([clips(4)], 0.3, 0.2, 0.6, 0.5, 0.5, 0.9)
    trained = fit(fabric, tiny_model(), [clips(4)], task, epochs=6, early_stop=2)
    assert len(trained.history) == 5
    assert trained.best_epoch == 3


def test_the_history_holds_means_over_clips_and_the_rate_of_the_last_step(fabric: Fabric) -> None:
    model, four = tiny_model(), [clips(4)]
    untrained = evaluate(fabric, model, four, LOSS).losses
    rows: list[Epoch] = []
    history = fit(fabric, model, four, tiny_task(four), epochs=2, on_epoch=rows.append).history
    assert rows == history
    assert [row["epoch"] for row in history] == [1, 2]
    # The only batch of the first epoch meets the untrained model.
    assert train_losses(history[0]) == pytest.approx(list(untrained.values()), rel=1e-6)
    # A step an epoch, in a warm-up of two: the schedule ends there, at a rate that is not zero.
    rates = [row["learning_rate"] for row in history]
    assert rates == pytest.approx([1.5e-3, 3e-3])


def test_processes_meet_over_signals_and_saving_only_once_an_epoch_beside_the_steps(
    fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    meetings: list[tuple[bool, ...]] = []

    def any_device(_: Fabric, *flags: bool) -> list[bool]:
        meetings.append(flags)
        return list(flags)

    monkeypatch.setattr(loop, "any_device", any_device)
    parts = clips(8).parts(2)
    fit(fabric, tiny_model(), parts, tiny_task(parts), epochs=2)
    # The last epoch is always saved.
    assert [signalled for signalled, _ in meetings] == [False, False]
    assert meetings[-1][1]


def test_losses_of_batches_count_by_their_clips(fabric: Fabric) -> None:
    model, parts = tiny_model(), clips(4).parts(3)
    optimizer = AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    untrained = evaluate(fabric, model, [clips(4)], LOSS).losses
    row = fit(fabric, model, parts, tiny_task(parts), epochs=1, optimizer=optimizer).history[0]
    assert train_losses(row) == pytest.approx(list(untrained.values()), rel=1e-5)
    assert row["validation_loss"] == pytest.approx(untrained["total"], rel=1e-5)


@pytest.mark.parametrize("clip_gradients", [1.0, 0.0])
def test_gradients_that_are_not_numbers_stop_training_before_they_reach_the_weights(
    clip_gradients: float, fabric: Fabric
) -> None:
    model, two = tiny_model(), [clips(2)]
    weight = model.get_parameter(HEAD)
    weight.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[no-untyped-call]
    before = state(model)
    with pytest.raises(FloatingPointError, match=r"gradient of epoch 1 is .* clip0, clip1: lower"):
        fit(fabric, model, two, tiny_task(two), epochs=1, clip_gradients=clip_gradients)
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())


def test_dropout_is_on_in_training_and_off_in_validation(fabric: Fabric) -> None:
    model, modes = tiny_model(), list[bool]()
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    fit(fabric, model, clips(4).parts(2), tiny_task([clips(4)]), epochs=2)
    assert modes == [True, True, False] * 2


def test_the_same_seed_gives_the_same_weights_and_history_to_the_last_bit(fabric: Fabric) -> None:
    parts = clips(6, known=0.7).parts(4)
    mix = MixSettings(mixup_alpha=0.8, cutmix_alpha=1.0, probability=0.5)

    def run(seed: int) -> tuple[list[Epoch], dict[str, Tensor]]:
        model = tiny_model(dropout=0.3)
        trained = fit(fabric, model, parts, tiny_task(parts, mix, seed), seed=seed, epochs=3)
        return [without_clock(row) for row in trained.history], state(model)

    (history, weights), (same_history, same_weights) = run(1), run(1)
    assert same_history == history
    assert all(torch.equal(same_weights[name], value) for name, value in weights.items())
    assert run(2)[0] != history


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
def test_clips_that_go_through_in_parts_train_like_the_whole_batch(
    fabric: Fabric, micro_batch_size: int
) -> None:
    # Batches of 5 and 2 clips, with boxes known in few frames: parts differ in what they count.
    parts = clips(7, known=0.4).parts(5)
    task = tiny_task(parts)
    whole, cut = tiny_model(), tiny_model()
    expected = fit(fabric, whole, parts, task, epochs=2, optimizer=steady_adamw(whole)).history
    found = fit(
        fabric,
        cut,
        parts,
        task,
        epochs=2,
        micro_batch_size=micro_batch_size,
        optimizer=steady_adamw(cut),
    ).history
    for row, same in zip(found, expected, strict=True):
        assert without_clock(row) == pytest.approx(without_clock(same), rel=1e-4)
    wanted, start = state(whole), state(tiny_model())
    for name, value in state(cut).items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-6)
    assert any((wanted[name] - start[name]).abs().max() > 1e-2 for name in wanted)


def test_mixed_clips_count_towards_no_box(fabric: Fabric) -> None:
    always = MixSettings(mixup_alpha=0.8, cutmix_alpha=0.0, probability=1.0)
    task = tiny_task([clips(4)], always)
    row = fit(fabric, tiny_model(), [clips(4)], task, epochs=1).history[0]
    assert row["train_box_loss"] == 0
    assert row["train_point_loss"] == 0
    assert row["train_expression_loss"] > 0


def test_the_average_of_the_weights_is_the_one_computed_by_hand_and_is_kept(
    fabric: Fabric,
) -> None:
    model, four, decay = tiny_model(), [clips(4)], 0.8
    average = state(model)
    seen: list[dict[str, Tensor]] = []
    trained = fit(
        fabric,
        model,
        four,
        ScriptedTask(four, 0.1, 0.2, 0.3),
        epochs=3,
        ema=decay,
        on_epoch=lambda row: seen.append(state(model)),
    )
    for weights in seen:
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in average}
    for name, value in state(model).items():
        torch.testing.assert_close(value, average[name], rtol=1e-5, atol=1e-6)
    # It is also what was validated.
    kept = evaluate(fabric, model, four, LOSS).losses["total"]
    assert trained.history[-1]["validation_loss"] == pytest.approx(kept, rel=1e-6)
    assert (average[HEAD] - seen[-1][HEAD]).any()


def test_processes_that_found_different_states_do_not_train(
    fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "gather", lambda _, value: [value, (5, 2)])
    with pytest.raises(RuntimeError, match=r"\[\(1, 0\), \(5, 2\)\]: it must be one folder"):
        fit(fabric, tiny_model(), [clips(2)], tiny_task([clips(2)]), epochs=1)


def test_of_several_processes_one_that_fails_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    with end_together(SimpleNamespace(world_size=2)):  # type: ignore[arg-type]
        raise ValueError("a damaged shard")
    assert ended == [1]
    assert "ValueError: a damaged shard" in capsys.readouterr().err
    with pytest.raises(ValueError, match="alone"), end_together(SimpleNamespace(world_size=1)):
        raise ValueError("alone")


def test_a_compiled_model_trains_like_the_plain_one(fabric: Fabric) -> None:
    """With an average of the weights and a short last batch; kernels are not made."""
    trained = []
    for compiled in (False, True):
        model = tiny_model()
        if compiled:
            model.compile(backend="aot_eager", dynamic=False)
        fit(
            fabric,
            model,
            clips(5).parts(2),
            tiny_task([clips(4)]),
            epochs=3,
            ema=0.5,
            optimizer=steady_adamw(model),
        )
        trained.append(state(model))
    plain, other = trained
    assert plain.keys() == other.keys()
    for name, value in plain.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)


def test_every_epoch_says_how_fast_it_was(
    fabric: Fabric, capsys: pytest.CaptureFixture[str]
) -> None:
    row = fit(fabric, tiny_model(), [clips(4)], tiny_task([clips(4)]), epochs=1).history[0]
    assert 0 < row["data_wait"] < 1
    assert row["samples_per_second"] > 4 / row["seconds"]
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert printed.startswith(f"epoch 1 of 1: training loss {row['train_loss']:.4f}")
    speed = f"{row['samples_per_second']:.1f} samples/s, {row['data_wait']:.0%} of the time"
    assert speed in printed


def test_tokens_take_the_place_of_frames(fabric: Fabric) -> None:
    model, four = tiny_model(), clips(4)
    model.encoder.freeze()
    with torch.no_grad():
        tokens = model.encoder(four.inputs / 255)
    stored = [replace(four, inputs=tokens.half())]
    expected = fit(fabric, model, [four], tiny_task([four]), epochs=2).history
    again = tiny_model()
    found = fit(fabric, again.tasks, stored, tiny_task(stored), epochs=2).history
    for row, same in zip(found, expected, strict=True):
        assert without_clock(row) == pytest.approx(without_clock(same), rel=1e-3)


def test_a_loss_that_is_not_a_number_stops_training_and_names_the_clips(fabric: Fabric) -> None:
    bad = clips(3)
    bad.targets["boxes"].values[0, 0, 0] = float("nan")
    model = tiny_model()
    before = state(model)
    with pytest.raises(FloatingPointError, match=r"epoch 1 is nan; .* clip0, clip1, clip2: lower"):
        fit(fabric, model, [bad], tiny_task([clips(3)]), epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())


def test_half_precision_follows_single_precision_in_the_first_epochs(fabric: Fabric) -> None:
    training = clips(8).parts(4)
    curves = []
    for precise in (fabric, Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")):
        trained = fit(precise, tiny_model(), training, tiny_task(training), epochs=3)
        curves.append([row["train_loss"] for row in trained.history])
    assert curves[1] == pytest.approx(curves[0], rel=0.02)
    assert curves[1] != curves[0]
