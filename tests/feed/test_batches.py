from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import NoiseClips, clips

from pipeline.common.clips import Clip
from pipeline.feed.batches import (
    Augmentation,
    augment,
    epoch_order,
    evaluation_batches,
    num_steps,
    shares,
    training_batches,
)
from pipeline.mtcae.loss import NO_LABEL
from pipeline.store.shards import Batch, Clips, write_shard
from pipeline.store.strips import encode_strip
from pipeline.video.tracks import FaceTrack

LABELS = np.array([0] * 60 + [1] * 25 + [2] * 5)
ALL = Augmentation(0.5, 2, 7.0, 0.5)


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
        shares(numbers, epoch=1, batch_size=4, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert [len(part) for part in parts] == [num_steps(10, 4)] * world_size == [3] * world_size
    for step in range(3):
        taken = [share[step] for share in parts]
        labelled = [clip for share in taken if share.labelled for clip in share.clips]
        assert labelled == numbers[4 * step : 4 * step + 4].tolist()
        sizes = [len(share.clips) * share.labelled for share in taken]
        assert max(sizes) - min(sizes) <= 1
        assert all(len(share.clips) == 1 for share in taken if not share.labelled)


def test_a_share_knows_how_often_its_clips_came_before_in_the_epoch() -> None:
    numbers = np.array([5, 7, 5, 5, 6, 7])
    whole = shares(numbers, epoch=1, batch_size=4, rank=0, world_size=1)
    assert [share.repeats for share in whole] == [[0, 0, 1, 2], [0, 1]]
    second = shares(numbers, epoch=1, batch_size=4, rank=1, world_size=2)
    assert [(share.clips, share.repeats) for share in second] == [([5, 5], [1, 2]), ([7], [1])]


@pytest.fixture
def stored(tmp_path: Path) -> Clips:
    """Ten clips of noise in two shards."""
    random = np.random.default_rng(0)
    for shard in range(2):
        examples = []
        for i in range(5):
            strip = encode_strip(random.integers(0, 256, (4, 32, 32, 3), np.uint8), quality=95)
            boxes = np.tile(np.array([4, 4, 20, 20], np.float32), (4, 1))
            points = random.uniform(4, 20, (4, 5, 2)).astype(np.float32)
            track = FaceTrack(boxes, points, np.ones(4, np.bool_))
            name = f"{shard}{i}"
            examples.append((Clip(name, f"{name}.mp4", f"s{shard}", "ab"[i % 2]), strip, track))
        write_shard(tmp_path / f"{shard}.tar", examples)
    return Clips(sorted(tmp_path.glob("*.tar")), classes=["a", "b"], image_size=32)


def first_batches(
    source: Clips,
    number: int,
    *,
    first_epoch: int = 1,
    first_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
) -> list[Batch]:
    endless = training_batches(
        source,
        first_epoch=first_epoch,
        first_step=first_step,
        batch_size=4,
        rank=rank,
        world_size=world_size,
        class_balanced=False,
        augmentation=ALL,
        seed=1,
        num_workers=num_workers,
    )
    return list(islice(endless, number))


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.clips == b.clips
        for name in ("frames", "boxes", "points", "mask", "labels"):
            assert torch.equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_augmented_batches_are_the_same_for_any_number_of_workers(
    stored: Clips, num_workers: int
) -> None:
    assert_equal(first_batches(stored, 7, num_workers=num_workers), first_batches(stored, 7))


def test_two_devices_see_the_augmented_clips_that_one_sees(stored: Clips) -> None:
    whole = first_batches(stored, 6)
    halves = [first_batches(stored, 6, rank=rank, world_size=2) for rank in range(2)]
    joined = [
        one._replace(
            clips=one.clips + other.clips,
            **{
                name: torch.cat([getattr(one, name), getattr(other, name)])
                for name in ("frames", "boxes", "points", "mask", "labels")
            },
        )
        for one, other in zip(*halves, strict=True)
    ]
    assert_equal(joined, whole)


def test_an_epoch_goes_on_from_any_step_without_reading_what_came_before(stored: Clips) -> None:
    whole = first_batches(stored, 9)
    read: list[int] = []

    class Counted:
        labels = stored.labels

        def __getitem__(self, numbers: list[int]) -> Batch:
            read.extend(numbers)
            return stored[numbers]

    # The fifth batch is the second of the second epoch.
    rest = first_batches(Counted(), 5, first_epoch=2, first_step=1)  # type: ignore[arg-type]
    assert_equal(rest, whole[4:])
    assert len(read) == sum(len(batch.clips) for batch in rest)


def test_a_clip_is_augmented_differently_in_every_epoch_and_not_at_all_without(
    stored: Clips,
) -> None:
    batch = stored[[0, 1, 2]]
    first, again, second = (
        augment(batch, ALL, seed=1, epoch=epoch, repeats=[0, 0, 0]) for epoch in (1, 1, 2)
    )
    assert_equal([first], [again])
    assert not torch.equal(first.frames, second.frames)
    assert augment(batch, Augmentation(), seed=1, epoch=1, repeats=[0, 0, 0]) is batch


def test_a_clip_that_comes_again_in_an_epoch_is_augmented_differently(stored: Clips) -> None:
    batch = stored[[0, 0, 0]]
    changed = augment(batch, ALL, seed=1, epoch=1, repeats=[0, 1, 1])
    assert not torch.equal(changed.frames[0], changed.frames[1])
    assert torch.equal(changed.frames[1], changed.frames[2])


def test_a_flip_mirrors_pixels_boxes_and_points_and_changes_left_and_right(stored: Clips) -> None:
    batch = stored[[0, 1]]
    mirrored = augment(batch, Augmentation(flip_probability=1.0), seed=1, epoch=1, repeats=[0, 0])
    assert torch.equal(mirrored.frames, batch.frames.flip(-1))
    torch.testing.assert_close(
        mirrored.boxes[..., 0], 1 - batch.boxes[..., 0] - batch.boxes[..., 2]
    )
    torch.testing.assert_close(mirrored.points[..., 0, 0], 1 - batch.points[..., 1, 0])
    torch.testing.assert_close(mirrored.points[..., 3, 1], batch.points[..., 4, 1])


def test_tokens_are_not_augmented(stored: Clips) -> None:
    batch = stored[[0]]._replace(tokens=torch.zeros(1, 2, 8))
    with pytest.raises(ValueError, match=r"flip_probability=1\.0.* needs frames"):
        augment(batch, Augmentation(flip_probability=1.0), seed=1, epoch=1, repeats=[0])


def test_a_device_without_a_clip_gets_one_without_a_label(stored: Clips) -> None:
    # Ten clips in fours: two are left for the third step, of four devices.
    parts = [first_batches(stored, 3, rank=rank, world_size=4)[2] for rank in range(4)]
    labels = [part.labels.tolist() for part in parts]
    assert labels[2:] == [[NO_LABEL], [NO_LABEL]]
    assert NO_LABEL not in labels[0] + labels[1]
    assert not parts[2].mask.any()


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_the_devices_evaluate_every_clip_once_and_in_order(world_size: int) -> None:
    source, found = NoiseClips(clips(7)), []
    for rank in range(world_size):
        loader = evaluation_batches(
            source, batch_size=2, rank=rank, world_size=world_size, num_workers=0
        )
        # Twice, as after every epoch.
        for _ in range(2):
            names = [name for batch in loader for name in batch.clips]
        found += names
    assert found == source.whole.clips
