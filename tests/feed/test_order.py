from collections import Counter

import numpy as np
import pytest

from pipeline.feed.order import Rank, epoch_order, num_passes, num_steps, shares

LABELS = np.array([0] * 60 + [1] * 25 + [2] * 5)


def order(seed: int = 1, epoch: int = 1, class_balanced: bool = False) -> list[int]:
    numbers = epoch_order(LABELS, seed=seed, epoch=epoch, class_balanced=class_balanced)
    return [int(number) for number in numbers]


@pytest.mark.parametrize("class_balanced", [False, True])
def test_the_order_is_a_function_of_seed_and_epoch(class_balanced: bool) -> None:
    orders = [order(seed, epoch, class_balanced) for seed in (1, 2) for epoch in (1, 2)]
    assert order(1, 1, class_balanced) == orders[0]
    assert len({tuple(each) for each in orders}) == 4


def test_an_epoch_is_every_clip_once_wherever_it_stands() -> None:
    assert sorted(order()) == list(range(90))
    # No longer walk through the shards: the first tenth comes from everywhere.
    assert max(order()[:9]) - min(order()[:9]) > 45


def test_balanced_classes_are_equally_frequent_and_small_ones_repeated_evenly() -> None:
    seen = Counter[int]()
    for epoch in range(1, 31):
        numbers = order(epoch=epoch, class_balanced=True)
        assert Counter(LABELS[numbers].tolist()) == {0: 30, 1: 30, 2: 30}
        times = Counter(numbers)
        assert {times[i] for i in range(60)} == {0, 1}
        assert {times[i] for i in range(60, 85)} == {1, 2}
        assert {times[i] for i in range(85, 90)} == {6}
        seen.update(numbers)
    # Over the epochs no clip of a class is left behind: 15 times each of 60 in 30 epochs.
    assert all(5 <= seen[i] <= 26 for i in range(60))


def test_a_class_that_does_not_divide_the_clips_is_not_always_the_one_with_fewer() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    totals = Counter[int]()
    for epoch in range(1, 101):
        numbers = epoch_order(labels, seed=1, epoch=epoch, class_balanced=True)
        assert len(numbers) == 5
        totals.update(labels[numbers].tolist())
    assert totals[0] == pytest.approx(250, abs=25)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_the_shares_of_a_step_are_its_batch_whatever_the_number_of_devices(
    world_size: int,
) -> None:
    numbers = np.array(order()[:10])
    parts = [
        shares(numbers, epoch=1, batch_size=4, rank=Rank(rank, world_size))
        for rank in range(world_size)
    ]
    assert [len(part) for part in parts] == [num_steps(10, 4)] * world_size == [3] * world_size
    for step in range(3):
        taken = [share[step] for share in parts]
        labelled = [number for share in taken if not share.idle for number in share.numbers]
        assert labelled == numbers[4 * step : 4 * step + 4].tolist()
        sizes = [len(share.numbers) * (not share.idle) for share in taken]
        assert max(sizes) - min(sizes) <= 1
        assert all(len(share.numbers) == 1 for share in taken if share.idle)


def test_a_share_knows_how_often_its_clips_came_before_in_the_epoch() -> None:
    numbers = np.array([5, 7, 5, 5, 6, 7])
    whole = shares(numbers, epoch=1, batch_size=4, rank=Rank())
    assert [share.repeats for share in whole] == [[0, 0, 1, 2], [0, 1]]
    second = shares(numbers, epoch=1, batch_size=4, rank=Rank(1, 2))
    assert [(share.numbers, share.repeats) for share in second] == [([5, 5], [1, 2]), ([7], [1])]


def test_a_small_set_is_gone_through_as_often_as_the_fewest_steps_take() -> None:
    for num_samples in range(1, 40):
        for min_steps in (1, 2, 7, 50):
            passes = num_passes(num_samples, batch_size=8, min_steps=min_steps)
            assert num_steps(passes * num_samples, 8) >= min_steps
            assert passes == 1 or num_steps((passes - 1) * num_samples, 8) < min_steps


def test_every_pass_of_an_epoch_has_every_sample_once_in_another_order() -> None:
    order = epoch_order(np.zeros(20, np.int64), seed=1, epoch=1, class_balanced=False, passes=3)
    passes = order.reshape(3, 20)
    assert (np.sort(passes, axis=1) == np.arange(20)).all()
    assert len({tuple(one) for one in passes.tolist()}) == 3
    parts = shares(order, epoch=1, batch_size=16, rank=Rank())
    repeats = [repeat for part in parts for repeat in part.repeats]
    assert repeats == [0] * 20 + [1] * 20 + [2] * 20
