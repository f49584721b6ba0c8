from collections.abc import Iterable, Mapping
from math import log
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from small import LOSS, NO_MIXING
from torch import Tensor, nn

from pipeline.feed.mix import MixSettings
from pipeline.mtcae.loss import count, multitask_loss
from pipeline.mtcae.model import Predictions
from pipeline.mtcae.task import MTCAETask
from pipeline.store.batch import Batch, Target
from pipeline.training.task import Place

NUM_CLASSES, NUM_FRAMES = 3, 2
NUM_OUTPUTS = NUM_FRAMES * (4 + 10) + NUM_CLASSES
PLACE = Place(epoch=1, step=0, rank=0)
SMOOTH = LOSS.model_copy(update={"label_smoothing": 0.1})
MIXUP = MixSettings(mixup_alpha=1.0, cutmix_alpha=0, probability=1.0)


class Answer(nn.Module):
    """Says of a clip what its input holds: boxes, points and logits, one after the other."""

    def forward(self, inputs: Tensor) -> Predictions:
        numbers = inputs.flatten(1)
        boxes, points = numbers[:, : NUM_FRAMES * 4], numbers[:, NUM_FRAMES * 4 : -NUM_CLASSES]
        return Predictions(
            boxes.reshape(-1, NUM_FRAMES, 4),
            points.reshape(-1, NUM_FRAMES, 5, 2),
            numbers[:, -NUM_CLASSES:],
        )


def clips(num_clips: int) -> Batch:
    """Noise; every third label and about half of the faces are unknown."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(num_clips, *shape, generator=generator)

    mask = random(NUM_FRAMES) < 0.5
    numbers = torch.arange(num_clips)
    return Batch(
        ids=[f"clip{i}" for i in range(num_clips)],
        groups=[f"subject{i}" for i in range(num_clips)],
        inputs=random(1, 1, 1, NUM_OUTPUTS),
        targets={
            "boxes": Target(random(NUM_FRAMES, 4), mask),
            "points": Target(random(NUM_FRAMES, 5, 2), mask),
            "expression": Target(numbers % NUM_CLASSES, numbers % 3 < 2),
        },
    )


def guesses(*classes: int) -> Batch:
    """Clips a, b, c, d of the classes 0, 0, 1, 2, whose logits say these classes."""
    logits = F.one_hot(torch.tensor(classes), NUM_CLASSES).float()
    known = torch.ones(4, NUM_FRAMES, dtype=torch.bool)
    return Batch(
        ids=["a", "b", "c", "d"],
        groups=["s"] * 4,
        inputs=torch.cat([torch.zeros(4, NUM_OUTPUTS - NUM_CLASSES), logits], dim=1),
        targets={
            "boxes": Target(torch.full((4, NUM_FRAMES, 4), 2.0), known),
            "points": Target(torch.full((4, NUM_FRAMES, 5, 2), 3.0), known),
            "expression": Target(torch.tensor([0, 0, 1, 2]), torch.ones(4, dtype=torch.bool)),
        },
    )


def task(mix: MixSettings = NO_MIXING, validation: Iterable[Batch] = ()) -> MTCAETask:
    return MTCAETask(SMOOTH, mix, num_classes=NUM_CLASSES, seed=1, validation=validation)


@pytest.mark.parametrize(("size", "sizes"), [(2, [2, 2, 1]), (4, [4, 1]), (9, [5])])
def test_the_losses_of_the_parts_add_up_to_the_loss_of_the_whole(
    size: int, sizes: list[int]
) -> None:
    whole = clips(5)
    parts = task().parts(whole, PLACE, size)
    assert [len(part) for part in parts] == sizes
    totals = torch.stack([task().totals(Answer(), part) for part in parts]).sum(dim=0)
    assert totals.tolist() == [4, int(whole.targets["boxes"].known.sum())]
    losses = [torch.stack([*task().losses(Answer(), part, totals)]) for part in parts]
    expected = multitask_loss(Answer()(whole.inputs), whole.targets, SMOOTH, count(whole.targets))
    assert len(expected) == len(task().loss_terms)
    torch.testing.assert_close(torch.stack(losses).sum(dim=0), torch.stack(expected))


def test_the_clips_of_a_part_are_mixed_by_draws_of_their_own_place() -> None:
    def mixed(place: Place) -> list[Tensor]:
        return [part.inputs for part in task(MIXUP).parts(clips(4), place, 2)]

    first = mixed(PLACE)
    assert all(torch.equal(a, b) for a, b in zip(first, mixed(PLACE), strict=True))
    plain = clips(4).inputs
    shares = [
        ((part - own.flip(0)) / (own - own.flip(0))).mean().item()
        for part, own in zip(first, (plain[:2], plain[2:]), strict=True)
    ]
    assert shares[0] != pytest.approx(shares[1])
    for place in (Place(2, 0, 0), Place(1, 1, 0), Place(1, 0, 1)):
        assert not torch.equal(mixed(place)[0], first[0])


def test_a_clip_on_its_own_is_not_mixed() -> None:
    (part,) = task(MIXUP).parts(clips(1).without_targets(), PLACE, 2)
    assert torch.equal(part.inputs, clips(1).inputs)
    assert part.targets["expression"].values.tolist() == [0]
    assert task().totals(Answer(), part).tolist() == [0, 0]


def test_validation_scores_all_clips_and_ranks_by_recall_and_then_by_expression_loss() -> None:
    # The second clip is taken for class 1; every logit is 1 for the guess and 0 for the others.
    whole = guesses(0, 1, 1, 2)
    fabric = Fabric(accelerator="cpu", devices=1)
    found = task(validation=whole.parts(3)).validate(fabric, Answer())
    # Without smoothing: minus the logarithm of e or, once, of 1 over their sum.
    expression = log(torch.e + 2) - 3 / 4
    assert found.scores == pytest.approx(
        {
            "loss": 0.5 * 4 + 0.5 * 9 + 1.5 * expression,
            "expression_loss": expression,
            "uar": (1 / 2 + 1 + 1) / 3,
            "war": 3 / 4,
        }
    )
    assert found.rank == (found.scores["uar"], -found.scores["expression_loss"])
    assert task().loss_terms[0] in found.scores


def test_the_best_epoch_on_the_test_clips_is_kept_beside_and_goes_on_after_a_stop() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    # UAR and WAR: 1/3 and 1/4; 5/6 and 3/4; 2/3 and 3/4; 5/6 and 3/4 again.
    epochs = [guesses(2, 2, 0, 2), guesses(0, 1, 1, 2), guesses(0, 0, 1, 1), guesses(1, 0, 1, 2)]

    def train(*numbers: int, state: Mapping[str, Any] | None = None) -> MTCAETask:
        tested: list[Batch] = []
        one = MTCAETask(
            SMOOTH,
            NO_MIXING,
            num_classes=NUM_CLASSES,
            seed=1,
            validation=[guesses(0, 0, 0, 0)],
            tested=tested,
        )
        if state:
            one.load_state_dict(state)
        for number in numbers:
            tested[:] = epochs[number].parts(3)
            found = one.validate(fabric, Answer())
            assert found.scores["uar"] == pytest.approx(1 / 3)  # It chooses nothing.
        return one

    whole = train(0, 1, 2, 3)
    assert whole.optimistic
    assert (whole.optimistic.epoch, whole.optimistic.epochs) == (2, 4)
    assert whole.optimistic.uar == pytest.approx(5 / 6)
    assert whole.optimistic.war == pytest.approx(3 / 4)
    assert whole.optimistic.predicted == {"a": 0, "b": 1, "c": 1, "d": 2}
    for stop in (1, 2, 3):
        first = train(*range(stop))
        assert train(*range(stop, 4), state=first.state_dict()).optimistic == whole.optimistic
    assert task().optimistic is None
