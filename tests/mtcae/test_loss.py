import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from small import LOSS
from torch import Tensor

from pipeline.mtcae.loss import Losses, Totals, count, in_fractions, masked_mse, multitask_loss
from pipeline.mtcae.model import Predictions
from pipeline.store.batch import Batch, Target

MASK = torch.tensor([[True, True, False], [True, False, False]])
LABELS = torch.tensor([0, 3])


def random(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def predictions() -> Predictions:
    return Predictions(random(2, 3, 4, seed=1), random(2, 3, 5, 2, seed=2), random(2, 7, seed=3))


def targets(expression: Target | None = None) -> dict[str, Target]:
    return {
        "boxes": Target(random(2, 3, 4, seed=4), MASK),
        "points": Target(random(2, 3, 5, 2, seed=5), MASK),
        "expression": expression or Target(LABELS, torch.tensor([True, True])),
    }


def losses(
    predicted: Predictions, *, label_smoothing: float = 0.0, expression: Target | None = None
) -> Losses:
    wanted = targets(expression)
    settings = LOSS.model_copy(update={"label_smoothing": label_smoothing})
    return multitask_loss(predicted, wanted, settings, count(wanted))


def test_masked_mse_is_the_mean_over_the_known_frames() -> None:
    predicted = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    target = torch.tensor([[[0.0, 0.0], [3.0, 2.0]], [[9.0, 9.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True], [False, False]])
    # (1 + 4) / 2 and (0 + 4) / 2; the second clip is unknown.
    assert masked_mse(predicted, target, mask, mask.sum()).item() == pytest.approx((2.5 + 2) / 2)


def test_masked_mse_agrees_with_numpy() -> None:
    predicted, target = random(2, 3, 4, seed=1), random(2, 3, 4, seed=2)
    known = MASK.numpy()
    expected = np.mean((predicted.numpy()[known] - target.numpy()[known]) ** 2)
    assert masked_mse(predicted, target, MASK, MASK.sum()).item() == pytest.approx(
        expected, rel=1e-6
    )


def test_without_a_known_frame_loss_and_gradients_are_zero() -> None:
    predicted = random(2, 3, 4, seed=1).requires_grad_()
    mask = torch.zeros(2, 3, dtype=torch.bool)
    loss = masked_mse(predicted, torch.zeros(2, 3, 4), mask, mask.sum())
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert predicted.grad is not None
    assert torch.equal(predicted.grad, torch.zeros(2, 3, 4))


@given(st.floats(width=32, min_value=-1e9, max_value=1e9))
def test_what_an_unknown_frame_holds_changes_neither_loss_nor_gradient(value: float) -> None:
    target = random(2, 3, 4, seed=2)
    results = []
    for filled in (target, torch.where(MASK[..., None], target, torch.tensor(value))):
        predicted = random(2, 3, 4, seed=1).requires_grad_()
        loss = masked_mse(predicted, filled, MASK, MASK.sum())
        loss.backward()  # type: ignore[no-untyped-call]
        results.append((loss, predicted.grad))
    (loss, gradient), (filled_loss, filled_gradient) = results
    assert torch.equal(loss, filled_loss)
    assert gradient is not None
    assert filled_gradient is not None
    assert torch.equal(gradient, filled_gradient)


def test_the_total_is_the_sum_with_the_weights_of_the_paper() -> None:
    predicted = Predictions(
        torch.full((1, 2, 4), 2.0), torch.full((1, 2, 5, 2), 3.0), torch.zeros(1, 4)
    )
    mask = torch.ones(1, 2, dtype=torch.bool)
    wanted = {
        "boxes": Target(torch.zeros(1, 2, 4), mask),
        "points": Target(torch.zeros(1, 2, 5, 2), mask),
        "expression": Target(torch.tensor([1]), torch.tensor([True])),
    }
    total, boxes, points, expression = multitask_loss(predicted, wanted, LOSS, count(wanted))
    assert (boxes.item(), points.item()) == (4, 9)
    assert expression.item() == pytest.approx(math.log(4))
    assert total.item() == pytest.approx(0.5 * 4 + 0.5 * 9 + 1.5 * math.log(4))


def test_stl_is_trained_on_the_plain_cross_entropy() -> None:
    logits = predictions().logits
    total, boxes, points, expression = losses(Predictions(None, None, logits))
    assert torch.equal(total, F.cross_entropy(logits, LABELS))
    assert torch.equal(total, expression)
    assert (boxes.item(), points.item()) == (0, 0)


def test_label_smoothing_mixes_in_the_uniform_distribution() -> None:
    predicted = predictions()
    smooth = losses(predicted, label_smoothing=0.1).expression
    log_probabilities = predicted.logits.log_softmax(dim=1)
    truth = 0.9 * F.one_hot(LABELS, 7) + 0.1 / 7
    assert smooth.item() == pytest.approx(
        -(truth * log_probabilities).sum(dim=1).mean().item(), rel=1e-6
    )
    assert torch.equal(smooth, F.cross_entropy(predicted.logits, LABELS, label_smoothing=0.1))


def test_clips_with_a_label_and_frames_with_a_face_are_counted() -> None:
    clips, frames = count(targets(Target(LABELS, torch.tensor([True, False]))))
    assert (clips.item(), frames.item()) == (1, 3)


@pytest.mark.parametrize("label", [0, 6, -100])
def test_what_an_unknown_label_holds_does_not_matter(label: int) -> None:
    logits = predictions().logits
    target = Target(torch.tensor([label, 3]), torch.tensor([False, True]))
    expression = losses(predictions(), expression=target).expression
    assert torch.equal(expression, F.cross_entropy(logits[1:], LABELS[1:]))


def test_probabilities_in_the_place_of_labels_are_not_smoothed_again() -> None:
    logits = predictions().logits
    truth = random(2, 7, seed=6).softmax(dim=1)
    target = Target(truth, torch.tensor([False, True]))
    expression = losses(predictions(), label_smoothing=0.1, expression=target).expression
    torch.testing.assert_close(expression, F.cross_entropy(logits[1:], truth[1:]))


def test_with_the_totals_of_the_whole_the_losses_of_the_parts_add_up_to_its_loss() -> None:
    whole = losses(predictions())
    parts = []
    for i in (0, 1):
        boxes, points, logits = predictions()
        assert boxes is not None
        assert points is not None
        part = Predictions(boxes[i : i + 1], points[i : i + 1], logits[i : i + 1])
        wanted = {
            name: Target(target.values[i : i + 1], target.known[i : i + 1])
            for name, target in targets().items()
        }
        totals = Totals(torch.tensor(2), torch.tensor(3))
        parts.append(torch.stack(multitask_loss(part, wanted, LOSS, totals)))
    torch.testing.assert_close(parts[0] + parts[1], torch.stack(whole))


def test_losses_of_half_precision_predictions_are_computed_in_single_precision() -> None:
    predicted = predictions()
    assert predicted.boxes is not None
    assert predicted.points is not None
    half = Predictions(
        predicted.boxes.bfloat16(), predicted.points.bfloat16(), predicted.logits.bfloat16()
    )
    rounded = Predictions(half.boxes.float(), half.points.float(), half.logits.float())  # type: ignore[union-attr]
    assert [loss.item() for loss in losses(half)] == [loss.item() for loss in losses(rounded)]


@pytest.mark.parametrize("value", [1e30, math.inf, math.nan])
def test_not_even_an_endless_number_in_an_unknown_frame_counts(value: float) -> None:
    predicted = torch.ones(1, 2, 4, requires_grad=True)
    target = torch.tensor([0.0, value])[None, :, None].expand(1, 2, 4)
    loss = masked_mse(predicted, target, torch.tensor([[True, False]]), torch.tensor(1))
    assert loss.item() == 1
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert gradient.tolist() == [[[0.5] * 4, [0.0] * 4]]


def batch(seed: int) -> Batch:
    known = {
        "boxes": Target(0.5 + 0.01 * random(2, 3, 4, seed=seed), MASK),
        "points": Target(0.5 + 0.1 * random(2, 3, 5, 2, seed=seed + 1), MASK),
        "expression": Target(LABELS, torch.tensor([True, True])),
    }
    return Batch(["a", "b"], ["a", "b"], torch.zeros(2, 1), known)


def test_of_errors_in_variances_the_best_constant_guess_costs_one() -> None:
    batches = [batch(10), batch(20)]
    settings = in_fractions(
        LOSS.model_copy(update={"boxes": 1.0, "points": 1.0, "scale": "variance"}), batches
    )
    for name, weight in (("boxes", settings.boxes), ("points", settings.points)):
        known = torch.cat([one.targets[name].values[MASK].flatten(1) for one in batches])
        errors = (known - known.mean(dim=0)).square().mean()
        assert weight * errors.item() == pytest.approx(1, rel=1e-5)
    assert settings.expression == LOSS.expression
    assert settings.scale == "frame"


def test_weights_of_errors_in_fractions_of_the_frame_stay_as_they_are() -> None:
    assert in_fractions(LOSS, []) is LOSS


def test_a_target_that_never_changes_has_a_finite_weight() -> None:
    still = batch(10)
    still.targets["boxes"].values[:] = 0.5
    settings = in_fractions(LOSS.model_copy(update={"scale": "variance"}), [still])
    assert settings.boxes == pytest.approx(0.5e6)
