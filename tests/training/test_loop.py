from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.optim import AdamW

from pipeline.data.shards import Batch
from pipeline.evaluation.metrics import Recalls
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.models.mtcae import MTCAE, STRUCTURES
from pipeline.training import loop
from pipeline.training.loop import Epoch, Trained, train
from pipeline.training.loss import LossWeights, multitask_loss
from pipeline.training.optim import adamw, cosine_schedule
from pipeline.training.predict import evaluate

NUM_CLASSES, NUM_FRAMES, SIZE = 4, 4, 32
WEIGHTS = LossWeights()


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def clips(num_clips: int, seed: int = 0, known: float = 1.0) -> Batch:
    """Noise, with random boxes and points in about `known` of the frames; clip i is of class i."""
    random = np.random.default_rng(seed)

    def fractions(*shape: int) -> Tensor:
        return torch.from_numpy(random.random(shape, np.float32))

    names = [f"clip{i}" for i in range(num_clips)]
    return Batch(
        clips=names,
        subjects=[f"subject of {name}" for name in names],
        frames=(fractions(num_clips, NUM_FRAMES, 3, SIZE, SIZE) * 255).byte(),
        boxes=fractions(num_clips, NUM_FRAMES, 4),
        points=fractions(num_clips, NUM_FRAMES, 5, 2),
        mask=fractions(num_clips, NUM_FRAMES) < known,
        labels=torch.arange(num_clips) % NUM_CLASSES,
    )


def batches(whole: Batch, size: int) -> list[Batch]:
    columns: list[Any] = list(whole)
    starts = range(0, len(whole.clips), size)
    return [Batch(*(column[i : i + size] for column in columns)) for i in starts]


def tiny_model(arch: str = "cascaded", decoder: str = "vit", dropout: float = 0.0) -> MTCAE:
    torch.manual_seed(1)
    encoder = VideoMAEEncoder(
        dim=32, depth=1, num_heads=2, image_size=SIZE, patch_size=16, num_frames=NUM_FRAMES
    )
    return MTCAE(
        encoder,
        arch=arch,
        decoder=decoder,
        num_classes=NUM_CLASSES,
        decoder_dim=32,
        decoder_heads=2,
        decoder_head_dim=16,
        decoder_layers=1,
        dropout=dropout,
        head_dropout=dropout,
    )


def fit(
    fabric: Fabric,
    model: MTCAE,
    training: list[Batch],
    validation: list[Batch],
    *,
    epochs: int,
    early_stop: int = 1000,
    flip_probability: float = 0.0,
    seed: int = 1,
    on_epoch: Callable[[Epoch], None] = lambda line: None,
    optimizer: AdamW | None = None,
) -> Trained:
    optimizer = optimizer or adamw(model, learning_rate=3e-3, weight_decay=0.0, layer_decay=1.0)
    schedule = cosine_schedule(optimizer, warmup_steps=2, total_steps=epochs * len(training))
    return train(
        fabric,
        model,
        optimizer,
        schedule,
        train_batches=lambda epoch: training,
        validation_batches=validation,
        epochs=epochs,
        early_stop=early_stop,
        loss_weights=WEIGHTS,
        label_smoothing=0.0,
        flip_probability=flip_probability,
        clip_gradients=1.0,
        seed=seed,
        on_epoch=on_epoch,
    )


def state(model: MTCAE) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def script_uars(monkeypatch: pytest.MonkeyPatch, *uars: float) -> None:
    """Let the epochs have these UARs, whatever the model predicts."""
    scores = iter(uars)
    monkeypatch.setattr(loop, "recalls", lambda *_: Recalls(next(scores), 0.0, []))


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


def test_dropout_is_on_in_training_and_off_in_validation(fabric: Fabric) -> None:
    model, modes = tiny_model(), list[bool]()
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    fit(fabric, model, batches(clips(4), size=2), [clips(4)], epochs=2)
    assert modes == [True, True, False] * 2


def test_the_same_seed_gives_the_same_weights_and_history_to_the_last_bit(fabric: Fabric) -> None:
    parts = batches(clips(6, known=0.7), size=4)

    def run(seed: int) -> tuple[list[Epoch], dict[str, Tensor]]:
        model = tiny_model(dropout=0.3)
        trained = fit(fabric, model, parts, parts, epochs=3, flip_probability=0.5, seed=seed)
        return [line._replace(seconds=0, clips_per_second=0) for line in trained.history], state(
            model
        )

    (history, weights), (same_history, same_weights) = run(1), run(1)
    assert same_history == history
    assert all(torch.equal(same_weights[name], value) for name, value in weights.items())
    assert run(2)[0] != history


def test_a_mirrored_clip_is_what_the_model_sees_when_every_clip_is_flipped(fabric: Fabric) -> None:
    whole = clips(4)
    mirrored = whole._replace(
        frames=whole.frames.flip(-1),
        boxes=torch.stack(
            [1 - whole.boxes[..., 0] - whole.boxes[..., 2], *whole.boxes[..., 1:].unbind(-1)], -1
        ),
        points=torch.stack([1 - whole.points[..., 0], whole.points[..., 1]], -1)[
            :, :, [1, 0, 2, 4, 3]
        ],
    )
    flipped = fit(fabric, tiny_model(), [whole], [whole], epochs=1, flip_probability=1.0).history[0]
    plain = fit(fabric, tiny_model(), [mirrored], [whole], epochs=1).history[0]
    assert flipped[2:6] == pytest.approx(plain[2:6], rel=1e-6)
    assert (
        flipped.train_loss
        != fit(fabric, tiny_model(), [whole], [whole], epochs=1).history[0].train_loss
    )


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
