from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from tiny_training import (
    WEIGHTS,
    NoiseClips,
    batches,
    clips,
    fit,
    steady_adamw,
    tiny_model,
    without_clock,
)
from torch import Tensor

from pipeline.feed.batches import evaluation_batches
from pipeline.mtcae.loss import LossWeights, multitask_loss
from pipeline.mtcae.model import MTCAE
from pipeline.mtcae.predictions import evaluate
from pipeline.mtcae.structures import STRUCTURES
from pipeline.scores.metrics import Recalls
from pipeline.store.shards import Batch
from pipeline.training import history, loop
from pipeline.training.devices import failing_together
from pipeline.training.history import Epoch
from pipeline.training.optim import adamw
from pipeline.training.step import Mixing


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def state(model: MTCAE) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def script_uars(monkeypatch: pytest.MonkeyPatch, *uars: float) -> None:
    """Let the epochs have these UARs, whatever the model predicts."""
    scores = iter(uars)
    monkeypatch.setattr(history, "recalls", lambda *_: Recalls(next(scores), 0.0, []))


@pytest.mark.parametrize(("arch", "decoder"), STRUCTURES)
def test_every_structure_learns_four_clips_by_heart(
    fabric: Fabric, arch: str, decoder: str
) -> None:
    four = [clips(4)]
    model = tiny_model(arch, decoder)
    untrained = evaluate(fabric, model, four, WEIGHTS).losses
    history = fit(fabric, model, four, four, epochs=80).history
    assert history[-1].validation_war == 1
    trained = evaluate(fabric, model, four, WEIGHTS)
    assert (trained.probabilities.argmax(axis=1) == trained.labels).all()
    for task in ("boxes", "points"):
        if arch == "stl":
            assert trained.losses[task] == 0
        else:
            assert trained.losses[task] < untrained[task] / 5


def test_the_weights_kept_are_those_of_the_epoch_with_the_highest_uar(
    fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    snapshots: dict[int, dict[str, Tensor]] = {}
    script_uars(monkeypatch, 0.2, 0.6, 0.4, 0.5)
    trained = fit(
        fabric,
        model,
        [clips(4)],
        [clips(4, seed=1)],
        epochs=4,
        on_epoch=lambda line: snapshots.update({line.epoch: state(model)}),
    )
    assert trained.best_epoch == 2
    assert [line.validation_uar for line in trained.history] == [0.2, 0.6, 0.4, 0.5]
    kept = state(model)
    assert all(torch.equal(kept[name], value) for name, value in snapshots[2].items())
    assert not all(torch.equal(kept[name], value) for name, value in snapshots[4].items())


@pytest.mark.parametrize(("validation_seed", "best_epoch"), [(0, 6), (1, 1)])
def test_of_epochs_with_equal_uar_the_one_with_the_lowest_expression_loss_is_kept(
    fabric: Fabric, monkeypatch: pytest.MonkeyPatch, validation_seed: int, best_epoch: int
) -> None:
    script_uars(monkeypatch, *[0.5] * 6)
    # The loss falls on the clips that are learnt by heart, and rises on other noise.
    validation = [clips(4, seed=validation_seed)]
    model = tiny_model()
    trained = fit(fabric, model, [clips(4, seed=0)], validation, epochs=6)
    losses = [line.validation_expression_loss for line in trained.history]
    assert trained.best_epoch == best_epoch
    assert losses[best_epoch - 1] == min(losses)
    assert evaluate(fabric, model, validation, WEIGHTS).losses["expression"] == min(losses)


def test_training_stops_when_no_better_epoch_came_for_long(
    fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_uars(monkeypatch, 0.3, 0.2, 0.6, 0.5, 0.5, 0.9)
    trained = fit(fabric, tiny_model(), [clips(4)], [clips(4)], epochs=6, early_stop=2)
    assert len(trained.history) == 5
    assert trained.best_epoch == 3


def test_the_learning_curve_holds_means_over_clips_and_the_rate(fabric: Fabric) -> None:
    model, four = tiny_model(), [clips(4)]
    untrained = evaluate(fabric, model, four, WEIGHTS).losses
    lines: list[Epoch] = []
    history = fit(fabric, model, four, four, epochs=2, on_epoch=lines.append).history
    assert lines == history
    assert [line.epoch for line in history] == [1, 2]
    # The only batch of the first epoch meets the untrained model; total, boxes, points, expression.
    assert list(history[0][2:6]) == pytest.approx(list(untrained.values()), rel=1e-6)
    # The rate that the next batch will have, at the end of a warmup of two steps.
    assert history[0].learning_rate == pytest.approx(3e-3)


def test_losses_of_batches_count_by_their_clips(fabric: Fabric) -> None:
    model, parts = tiny_model(), batches(clips(4), size=3)
    optimizer = adamw(model, learning_rate=0.0, weight_decay=0.0, layer_decay=1.0)
    untrained = evaluate(fabric, model, [clips(4)], WEIGHTS).losses
    line = fit(fabric, model, parts, parts, epochs=1, optimizer=optimizer).history[0]
    assert list(line[2:6]) == pytest.approx(list(untrained.values()), rel=1e-5)
    assert line.validation_loss == pytest.approx(untrained["total"], rel=1e-5)


@pytest.mark.parametrize("clip_gradients", [1.0, 0.0])
def test_gradients_that_are_not_numbers_stop_training_before_they_reach_the_weights(
    clip_gradients: float, fabric: Fabric
) -> None:
    model = tiny_model()
    weight = model.get_parameter("heads.expression.proj.weight")
    weight.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[no-untyped-call]
    before = state(model)
    with pytest.raises(FloatingPointError, match=r"gradient of epoch 1 is .* clip0, clip1: lower"):
        fit(fabric, model, [clips(2)], [clips(2)], epochs=1, clip_gradients=clip_gradients)
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())


def test_dropout_is_on_in_training_and_off_in_validation(fabric: Fabric) -> None:
    model, modes = tiny_model(), list[bool]()
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    fit(fabric, model, batches(clips(4), size=2), [clips(4)], epochs=2)
    assert modes == [True, True, False] * 2


def test_the_same_seed_gives_the_same_weights_and_history_to_the_last_bit(fabric: Fabric) -> None:
    parts = batches(clips(6, known=0.7), size=4)

    def run(seed: int) -> tuple[list[Epoch], dict[str, Tensor]]:
        model = tiny_model(dropout=0.3)
        mixing = Mixing(0.8, 1.0, 0.5, 4)
        trained = fit(fabric, model, parts, parts, epochs=3, mixing=mixing, seed=seed)
        return [without_clock(line) for line in trained.history], state(model)

    (history, weights), (same_history, same_weights) = run(1), run(1)
    assert same_history == history
    assert all(torch.equal(same_weights[name], value) for name, value in weights.items())
    assert run(2)[0] != history


@pytest.mark.parametrize("max_clips", [1, 2, 3])
def test_clips_that_go_through_in_parts_train_like_the_whole_batch(
    fabric: Fabric, max_clips: int
) -> None:
    # Batches of 5 and 2 clips, with boxes known in few frames: parts differ in what they count.
    parts = batches(clips(7, known=0.4), size=5)
    whole, cut = tiny_model(), tiny_model()
    expected = fit(fabric, whole, parts, parts, epochs=2, optimizer=steady_adamw(whole)).history
    found = fit(
        fabric,
        cut,
        parts,
        parts,
        epochs=2,
        max_clips_per_step=max_clips,
        optimizer=steady_adamw(cut),
    ).history
    for line, same in zip(found, expected, strict=True):
        assert line[:10] == pytest.approx(same[:10], rel=1e-4)
    wanted, start = state(whole), state(tiny_model())
    for name, value in state(cut).items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-6)
    assert any((wanted[name] - start[name]).abs().max() > 1e-2 for name in wanted)


def test_mixed_clips_count_towards_no_box(fabric: Fabric) -> None:
    always = Mixing(0.8, 0.0, 1.0, 4)
    line = fit(fabric, tiny_model(), [clips(4)], [clips(4)], epochs=1, mixing=always).history[0]
    assert line.train_box_loss == 0
    assert line.train_point_loss == 0
    assert line.train_expression_loss > 0


def test_the_average_of_the_weights_is_the_one_computed_by_hand_and_is_kept(
    fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_uars(monkeypatch, 0.1, 0.2, 0.3)
    model, four, decay = tiny_model(), [clips(4)], 0.8
    average = state(model)
    seen: list[dict[str, Tensor]] = []
    trained = fit(
        fabric,
        model,
        four,
        four,
        epochs=3,
        ema=decay,
        on_epoch=lambda line: seen.append(state(model)),
    )
    for weights in seen:
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in average}
    for name, value in state(model).items():
        torch.testing.assert_close(value, average[name], rtol=1e-5, atol=1e-6)
    # It is also what was validated.
    kept = evaluate(fabric, model, four, WEIGHTS).losses["total"]
    assert trained.history[-1].validation_loss == pytest.approx(kept, rel=1e-6)
    assert (
        average["heads.expression.proj.weight"] - seen[-1]["heads.expression.proj.weight"]
    ).any()


def test_processes_that_found_different_states_do_not_train(
    fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "gather", lambda _, value: [value, (5, 2)])
    with pytest.raises(RuntimeError, match=r"\[\(1, 0\), \(5, 2\)\]: it must be one folder"):
        fit(fabric, tiny_model(), [clips(2)], [clips(2)], epochs=1)


def test_of_several_processes_one_that_fails_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    with failing_together(SimpleNamespace(world_size=2)):  # type: ignore[arg-type]
        raise ValueError("a damaged shard")
    assert ended == [1]
    assert "ValueError: a damaged shard" in capsys.readouterr().err
    with pytest.raises(ValueError, match="alone"), failing_together(SimpleNamespace(world_size=1)):
        raise ValueError("alone")


def test_a_compiled_model_trains_like_the_plain_one(fabric: Fabric) -> None:
    """With an average of the weights and a short last batch; kernels are not made."""
    trained = []
    for compiled in (False, True):
        model = tiny_model()
        if compiled:
            model.compile(backend="aot_eager", dynamic=False)
        optimizer = steady_adamw(model)
        fit(
            fabric,
            model,
            batches(clips(5), 2),
            [clips(4)],
            epochs=3,
            ema=0.5,
            optimizer=optimizer,
        )
        trained.append(state(model))
    plain, other = trained
    assert plain.keys() == other.keys()
    for name, value in plain.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)


def test_every_epoch_says_how_fast_it_was(
    fabric: Fabric, capsys: pytest.CaptureFixture[str]
) -> None:
    line = fit(fabric, tiny_model(), [clips(4)], [clips(4)], epochs=1).history[0]
    assert 0 < line.data_wait < 1
    assert line.clips_per_second > 4 / line.seconds
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert printed.startswith(f"epoch 1 of 1: loss {line.train_loss:.4f}")
    assert f"{line.clips_per_second:.1f} clips/s, {line.data_wait:.0%} of the time" in printed


def test_tokens_take_the_place_of_frames(fabric: Fabric) -> None:
    model, four = tiny_model(), clips(4)
    model.encoder.freeze()
    with torch.no_grad():
        tokens = model.encoder(four.frames / 255)
    empty = torch.empty(4, 0, dtype=torch.uint8)
    stored = [four._replace(frames=empty, tokens=tokens.half())]
    expected = fit(fabric, model, [four], [four], epochs=2).history
    again = tiny_model()
    again.encoder.freeze()
    found = fit(fabric, again, stored, stored, epochs=2).history
    for line, same in zip(found, expected, strict=True):
        assert line[:10] == pytest.approx(same[:10], rel=1e-3)


def test_a_loss_that_is_not_a_number_stops_training_and_names_the_clips(fabric: Fabric) -> None:
    bad = clips(3)
    bad.boxes[0, 0, 0] = float("nan")
    model = tiny_model()
    before = state(model)
    with pytest.raises(FloatingPointError, match=r"epoch 1 is nan; .* clip0, clip1, clip2: lower"):
        fit(fabric, model, [bad], [clips(3)], epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())


@pytest.mark.parametrize(("arch", "decoder"), [("cascaded", "vit"), ("stl", "vit")])
def test_evaluation_gives_every_clip_once_in_order_with_the_losses_of_the_whole(
    fabric: Fabric, arch: str, decoder: str
) -> None:
    model = tiny_model(arch, decoder, dropout=0.5).train()
    whole = clips(7)
    result = evaluate(fabric, model, batches(whole, size=3), WEIGHTS)
    with torch.no_grad():
        expected = model.eval()(whole.frames / 255)
    assert result.clips == whole.clips
    assert result.subjects == whole.subjects
    assert result.labels.tolist() == whole.labels.tolist()
    assert (result.target_boxes == whole.boxes.numpy()).all()
    assert (result.target_points == whole.points.numpy()).all()
    assert (result.mask == whole.mask.numpy()).all()
    np.testing.assert_allclose(result.probabilities, expected.logits.softmax(dim=1), atol=1e-6)
    for predicted, wanted in ((result.boxes, expected.boxes), (result.points, expected.points)):
        assert (predicted is None) == (wanted is None)
        if predicted is not None:
            np.testing.assert_allclose(predicted, wanted, atol=1e-5)
    losses = multitask_loss(
        expected, whole.boxes, whole.points, whole.mask, whole.labels, weights=WEIGHTS
    )
    assert list(result.losses) == ["total", "boxes", "points", "expression"]
    assert list(result.losses.values()) == pytest.approx([loss.item() for loss in losses], rel=1e-5)


def test_an_evaluation_with_workers_keeps_no_files_open(fabric: Fabric) -> None:
    open_files = []

    def watched() -> Iterator[Batch]:
        source = NoiseClips(clips(60))
        for batch in evaluation_batches(source, batch_size=1, rank=0, world_size=1, num_workers=1):
            yield batch
            open_files.append(len(list(Path("/proc/self/fd").iterdir())))

    assert len(evaluate(fabric, tiny_model(), watched(), WEIGHTS).clips) == 60
    # A few batches are on their way at any time.
    assert open_files[-1] < open_files[4] + 20


def test_losses_of_an_evaluation_do_not_depend_on_the_batches(fabric: Fabric) -> None:
    model, whole = tiny_model(), clips(7, known=0.5)
    in_threes = evaluate(fabric, model, batches(whole, 3), LossWeights())
    at_once = evaluate(fabric, model, [whole], LossWeights())
    assert in_threes.losses == pytest.approx(at_once.losses, rel=1e-5)


def test_half_precision_follows_single_precision_in_the_first_epochs(fabric: Fabric) -> None:
    training = batches(clips(8), 4)
    curves = []
    for precise in (fabric, Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")):
        trained = fit(precise, tiny_model(), training, training, epochs=3)
        curves.append([line.train_loss for line in trained.history])
    assert curves[1] == pytest.approx(curves[0], rel=0.02)
    assert curves[1] != curves[0]
