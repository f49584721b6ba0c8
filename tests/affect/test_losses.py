from math import log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from pipeline.affect.emma import Predictions
from pipeline.affect.losses import (
    LossSettings,
    Totals,
    au_errors,
    ccc_loss,
    count,
    cross_entropy,
    js_divergence,
    moments,
    multitask_loss,
    positive_weights,
)
from pipeline.affect.metrics import concordance
from pipeline.store.batch import Target

C, U = 8, 12
SETTINGS = LossSettings(
    valence_arousal=1, expression=1, aus=1, au_divisor="labelled", pos_weight="balanced"
)
POS_WEIGHT = torch.linspace(0.5, 4, U)


def targets(num_images: int, seed: int = 0, known: float = 0.7) -> dict[str, Target]:
    random = torch.Generator().manual_seed(seed)

    def mask(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random) < known

    return {
        "valence_arousal": Target(
            2 * torch.rand(num_images, 2, generator=random) - 1, mask(num_images, 2)
        ),
        "expression": Target(
            torch.randint(0, C, (num_images,), generator=random), mask(num_images)
        ),
        "aus": Target(torch.rand(num_images, U, generator=random).round(), mask(num_images, U)),
    }


def predictions(num_images: int, seed: int = 1) -> Predictions:
    random = torch.Generator().manual_seed(seed)
    return Predictions(*(torch.randn(num_images, k, generator=random) for k in (2, C, U)))


def rows(batch: dict[str, Target], part: slice) -> dict[str, Target]:
    return {name: Target(*(column[part] for column in target)) for name, target in batch.items()}


def loss_and_gradients(
    predicted: Predictions,
    truth: dict[str, Target],
    size: int,
    settings: LossSettings = SETTINGS,
) -> tuple[Tensor, list[Tensor]]:
    """Computed in parts of so many images."""
    leaves = Predictions(*(column.clone().requires_grad_() for column in predicted))
    parts = [slice(i, i + size) for i in range(0, len(leaves.expression), size)]
    totals = torch.stack(
        [count(rows(truth, part), leaves.valence_arousal[part]).flat() for part in parts]
    ).sum(dim=0)
    losses = torch.zeros(5)
    for part in parts:
        said = Predictions(*(column[part] for column in leaves))
        found = multitask_loss(
            said, rows(truth, part), settings, POS_WEIGHT, Totals.from_flat(totals)
        )
        found.total.backward()  # type: ignore[no-untyped-call]
        losses += torch.stack(found).detach()
    return losses, [column.grad for column in leaves if column.grad is not None]


def plain_ccc_loss(x: Tensor, y: Tensor) -> Tensor:
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    spread = x.var(correction=0) + y.var(correction=0) + (x.mean() - y.mean()) ** 2
    return 1 - 2 * covariance / spread


def test_the_ccc_loss_and_its_gradient_are_those_of_autograd_in_double() -> None:
    random = torch.Generator().manual_seed(2)
    x = torch.randn(40, 2, generator=random, dtype=torch.float64).requires_grad_()
    y = torch.randn(40, 2, generator=random, dtype=torch.float64) + 0.3
    target = Target(y, torch.rand(40, 2, generator=random) < 0.6)
    found = ccc_loss(x, target, moments(x, target))
    expected = torch.stack(
        [plain_ccc_loss(x[known, i], y[known, i]) for i, known in enumerate(target.known.T)]
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    (oracle,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(gradient, oracle, rtol=1e-10, atol=1e-14)
    known = target.known[:, 0].numpy()
    ccc = concordance(x.detach().numpy()[known, 0], y.numpy()[known, 0])
    assert 1 - found[0].item() == pytest.approx(ccc, abs=1e-12)


def test_a_batch_of_24_is_3_of_8_and_24_of_1() -> None:
    truth, said = targets(24), predictions(24)
    for column in truth.values():  # two of the three parts lack a label of each kind
        column.known[:16] = False
    for settings in (SETTINGS, SETTINGS.model_copy(update={"au_divisor": "batch"})):
        whole, gradients = loss_and_gradients(said, truth, 24, settings)
        for size in (8, 5, 1):
            losses, others = loss_and_gradients(said, truth, size, settings)
            torch.testing.assert_close(losses, whole, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(others, gradients, rtol=1e-5, atol=1e-8)


def test_changing_what_is_not_known_changes_nothing_bit_for_bit() -> None:
    truth, said = targets(24), predictions(24)
    numbers, expression, aus = truth.values()
    other = {
        "valence_arousal": Target(numbers.values.where(numbers.known, torch.nan), numbers.known),
        "expression": Target(expression.values.where(expression.known, -1), expression.known),
        "aus": Target(aus.values.where(aus.known, -1), aus.known),
    }
    whole, gradients = loss_and_gradients(said, truth, 8)
    losses, others = loss_and_gradients(said, other, 8)
    assert torch.equal(losses, whole)
    assert all(torch.equal(a, b) for a, b in zip(others, gradients, strict=True))
    # And what is predicted where nothing is known gets no gradient.
    for gradient, target in zip(gradients, truth.values(), strict=True):
        assert not gradient[~target.known].any()


@pytest.mark.parametrize("num_known", [0, 1])
def test_fewer_than_two_labels_give_a_differentiable_zero(num_known: int) -> None:
    truth = targets(6)
    for target in truth.values():
        target.known[:] = False
    truth["valence_arousal"].known[:num_known] = True
    losses, gradients = loss_and_gradients(predictions(6), truth, 3)
    assert losses.tolist() == [0] * 5
    assert len(gradients) == 3
    assert not any(gradient.any() for gradient in gradients)


def test_one_constant_that_is_predicted_of_itself_gives_a_differentiable_zero() -> None:
    x = torch.full((7, 2), 0.1, requires_grad=True)
    target = Target(torch.full((7, 2), 0.1), torch.ones(7, 2, dtype=torch.bool))
    loss = ccc_loss(x, target, moments(x, target))
    assert loss.tolist() == [0, 0]
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert not x.grad.any()


def test_a_constant_prediction_has_the_loss_1_and_a_gradient_towards_the_labels() -> None:
    """A training begins near it, and must leave it."""
    x = torch.zeros(6, 2, requires_grad=True)
    y = torch.linspace(-0.5, 0.7, 6)[:, None].repeat(1, 2)
    loss = ccc_loss(
        x, Target(y, torch.ones_like(y, dtype=torch.bool)), moments(x, Target(y, y > -1))
    )
    assert loss.tolist() == pytest.approx([1, 1])
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    torch.testing.assert_close(x.grad.sign(), (y.mean() - y).sign())


def test_expressions_and_units_are_means_over_their_own_labels() -> None:
    truth, said = targets(30), predictions(30)
    losses, _ = loss_and_gradients(said, truth, 30)
    known = truth["expression"].known
    expected = F.cross_entropy(said.expression[known], truth["expression"].values[known])
    assert losses[3].item() == pytest.approx(expected.item(), rel=1e-6)
    aus = truth["aus"]
    per_unit = [
        F.binary_cross_entropy_with_logits(
            said.aus[mask, i], aus.values[mask, i], pos_weight=POS_WEIGHT[i]
        )
        for i, mask in enumerate(aus.known.T)
    ]
    assert losses[4].item() == pytest.approx(torch.stack(per_unit).sum().item(), rel=1e-6)
    by_batch, _ = loss_and_gradients(
        said, truth, 30, SETTINGS.model_copy(update={"au_divisor": "batch"})
    )
    shares = aus.known.float().mean(dim=0)
    expected = (torch.stack(per_unit) * shares).sum()
    assert by_batch[4].item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_weights_multiply_the_terms() -> None:
    settings = LossSettings(
        valence_arousal=2, expression=3, aus=0.5, au_divisor="labelled", pos_weight="one"
    )
    total, valence, arousal, expression, aus = loss_and_gradients(
        predictions(24), targets(24), 8, settings
    )[0].tolist()
    assert total == pytest.approx(2 * (valence + arousal) + 3 * expression + 0.5 * aus, rel=1e-6)


def test_balanced_weights_are_negatives_over_positives_of_the_known() -> None:
    values = torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 1, 1], [0, 1, 1]])
    known = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 1]]).bool()
    assert positive_weights(SETTINGS, Target(values, known)).tolist() == [3, 2, 1]
    given = SETTINGS.model_copy(update={"pos_weight": (7.1, 15.6)})
    with pytest.raises(ValueError, match="2 numbers for 3 action units"):
        positive_weights(given, Target(values, known))


def test_the_js_divergence_is_that_of_scipy() -> None:
    logits = torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(4)) * 3
    p, q = logits.double().softmax(dim=-1).numpy()
    expected = np.square([jensenshannon(one, other) for one, other in zip(p, q, strict=True)])
    np.testing.assert_allclose(js_divergence(logits).numpy(), expected, rtol=1e-4, atol=1e-7)


def test_the_js_divergence_is_ln_2_at_most_and_bears_large_logits() -> None:
    logits = torch.tensor([[[1e4, 0.0, 0]], [[0.0, 1e4, 0]]], requires_grad=True)
    (found,) = js_divergence(logits)
    assert found.item() == pytest.approx(log(2))
    found.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert js_divergence(torch.full((2, 1, 3), 1e4)).tolist() == pytest.approx([0], abs=1e-6)
    # One view differs from nobody.
    assert js_divergence(torch.randn(1, 5, 4)).tolist() == [0] * 5


def test_both_views_learn_from_the_js_divergence() -> None:
    logits = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(5)).double()
    logits.requires_grad_()
    js_divergence(logits).sum().backward()  # type: ignore[no-untyped-call]
    views = logits.detach().softmax(dim=-1)
    mean = views.mean(dim=0)
    # By hand: half of p_k (ln(p_k / m_k) - KL(p, m)) for each logit.
    ratio = (views / mean).log()
    by_hand = views * (ratio - (views * ratio).sum(dim=-1, keepdim=True)) / 2
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, by_hand, rtol=1e-5, atol=1e-7)


def test_logits_in_half_precision_are_compared_in_single() -> None:
    said, truth = predictions(8), targets(8)
    narrow = said.expression.bfloat16()
    assert torch.equal(
        cross_entropy(narrow, truth["expression"]),
        cross_entropy(narrow.float(), truth["expression"]),
    )
    narrow = said.aus.bfloat16()
    found = au_errors(narrow, truth["aus"], POS_WEIGHT)
    assert torch.equal(found, au_errors(narrow.float(), truth["aus"], POS_WEIGHT))
