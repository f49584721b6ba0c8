from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from small import NO_AUGMENTATION
from tiny_training import NoiseClips, clips

from pipeline.common.clips import Clip
from pipeline.common.frames import FaceTrack
from pipeline.feed.augment import AugmentSettings
from pipeline.feed.batches import (
    BatchPlan,
    LabelledSource,
    MiddleSegment,
    TrainingBatches,
    augment_batch,
    evaluation_batches,
)
from pipeline.feed.order import Rank, epoch_order
from pipeline.store.batch import Batch, concatenate
from pipeline.store.folders import LocalShards
from pipeline.store.shards import write_shards
from pipeline.store.stored_frames import StoredFrames
from pipeline.store.strips import encode_strip

ALL = AugmentSettings(
    flip_probability=0.5,
    shift=0.1,
    scale=0.1,
    rotation=10.0,
    crop_area=0.5,
    crop_aspect=1.3333,
    colour=0.2,
    rand_augment_ops=2,
    rand_augment_probability=0.5,
    rand_augment_magnitude=7.0,
    rand_augment_deviation=0.5,
    erase_probability=0.5,
    copies=1,
)
TWICE = ALL.model_copy(update={"copies": 2})
ALONE = Rank()
EVERY_FLIP = NO_AUGMENTATION.model_copy(update={"flip_probability": 1.0})


@pytest.fixture
def stored(tmp_path: Path) -> StoredFrames:
    """Ten clips of noise in two shards."""
    random = np.random.default_rng(0)
    examples = []
    for i in range(10):
        strip = encode_strip(random.integers(0, 256, (4, 32, 32, 3), np.uint8), quality=95)
        boxes = np.tile(np.array([4, 4, 20, 20], np.float32), (4, 1))
        points = random.uniform(4, 20, (4, 5, 2)).astype(np.float32)
        track = FaceTrack(boxes, points, np.ones(4, np.bool_))
        examples.append((Clip(f"{i}", f"{i}.mp4", f"s{i // 5}", "ab"[i % 2]), strip, track))
    found = write_shards(tmp_path, examples, shard_bytes=80_000)
    assert len({clip.shard for clip in found}) == 2
    return StoredFrames(LocalShards(tmp_path), found, classes=["a", "b"], image_size=32)


def training(
    source: LabelledSource,
    augment: AugmentSettings = ALL,
    *,
    rank: Rank = ALONE,
    num_workers: int = 0,
) -> TrainingBatches:
    return TrainingBatches(
        source,
        augment,
        BatchPlan(
            batch_size=4,
            class_balanced=False,
            min_steps=1,
            seed=1,
            rank=rank,
            num_workers=num_workers,
        ),
    )


class Counted:
    """The samples of a source, and the numbers of those that were read."""

    def __init__(self, source: StoredFrames) -> None:
        self.source = source
        self.labels, self.segments = source.labels, source.segments
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, numbers: list[int], /) -> Batch:
        self.read.extend(numbers)
        return self.source[numbers]


def first_batches(batches: TrainingBatches, number: int) -> list[Batch]:
    return list(islice(batches.starting_at(1, 0), number))


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    for a, b in zip(one, other, strict=True):
        assert (a.ids, a.groups) == (b.ids, b.groups)
        assert torch.equal(a.inputs, b.inputs)
        assert list(a.targets) == list(b.targets)
        for name, target in a.targets.items():
            assert torch.equal(target.values, b.targets[name].values)
            assert torch.equal(target.known, b.targets[name].known)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_augmented_batches_are_the_same_for_any_number_of_workers(
    stored: StoredFrames, num_workers: int
) -> None:
    whole = first_batches(training(stored), 7)
    assert_equal(first_batches(training(stored, num_workers=num_workers), 7), whole)


def test_two_devices_see_the_augmented_clips_that_one_sees(stored: StoredFrames) -> None:
    whole = first_batches(training(stored), 6)
    halves = [first_batches(training(stored, rank=Rank(rank, 2)), 6) for rank in range(2)]
    assert_equal([concatenate(both) for both in zip(*halves, strict=True)], whole)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_an_epoch_has_as_many_steps_on_every_number_of_devices(
    stored: StoredFrames, world_size: int
) -> None:
    for rank in range(world_size):
        assert training(stored, rank=Rank(rank, world_size)).steps_per_epoch == 3


def test_an_epoch_goes_on_from_any_step_without_reading_what_came_before(
    stored: StoredFrames,
) -> None:
    whole = first_batches(training(stored), 9)
    counted = Counted(stored)
    # The fifth batch is the second of the second epoch.
    rest = list(islice(training(counted).starting_at(2, 1), 5))
    assert_equal(rest, whole[4:])
    assert len(counted.read) == sum(len(batch) for batch in rest)


def test_a_clip_is_augmented_differently_in_every_epoch_and_not_at_all_without(
    stored: StoredFrames,
) -> None:
    batch = stored[[0, 1, 2]]
    first, again, second = (
        augment_batch(batch, ALL, seed=1, epoch=epoch, repeats=[0, 0, 0]) for epoch in (1, 1, 2)
    )
    assert_equal([first], [again])
    assert not torch.equal(first.inputs, second.inputs)
    assert augment_batch(batch, NO_AUGMENTATION, seed=1, epoch=1, repeats=[0, 0, 0]) is batch


def test_a_clip_that_comes_again_in_an_epoch_is_augmented_differently(
    stored: StoredFrames,
) -> None:
    batch = stored[[0, 0, 0]]
    changed = augment_batch(batch, ALL, seed=1, epoch=1, repeats=[0, 1, 1])
    assert not torch.equal(changed.inputs[0], changed.inputs[1])
    assert torch.equal(changed.inputs[1], changed.inputs[2])


def test_a_step_takes_copies_of_each_clip_side_by_side_and_reads_it_once(
    stored: StoredFrames,
) -> None:
    counted = Counted(stored)
    batches = training(counted, TWICE)
    assert batches.steps_per_epoch == training(stored).steps_per_epoch == 3
    for single, double in zip(
        first_batches(training(stored), 3), first_batches(batches, 3), strict=True
    ):
        numbers = [int(name) for name in single.ids]
        # The first copies are changed as the only ones would be, the second ones as clips are that
        # come again.
        assert_equal([double.rows(range(0, len(double), 2))], [single])
        again = augment_batch(stored[numbers], ALL, seed=1, epoch=1, repeats=[1 for _ in numbers])
        assert_equal([double.rows(range(1, len(double), 2))], [again])
        assert not torch.equal(single.inputs, again.inputs)
    assert sorted(counted.read) == list(range(10))


def test_copies_of_a_clip_that_comes_again_are_others(stored: StoredFrames) -> None:
    doubled = augment_batch(stored[[3, 3]], TWICE, seed=1, epoch=1, repeats=[0, 1])
    assert doubled.ids == ["3"] * 4
    repeated = augment_batch(stored[[3] * 4], ALL, seed=1, epoch=1, repeats=[0, 1, 2, 3])
    assert_equal([doubled], [repeated])


@pytest.mark.parametrize("world_size", [2, 3])
def test_copies_of_a_clip_are_on_one_device(stored: StoredFrames, world_size: int) -> None:
    whole = first_batches(training(stored, TWICE), 2)
    parts = [
        first_batches(training(stored, TWICE, rank=Rank(rank, world_size)), 2)
        for rank in range(world_size)
    ]
    for part in parts:
        assert all(batch.ids[::2] == batch.ids[1::2] for batch in part)
    assert_equal([concatenate(each) for each in zip(*parts, strict=True)], whole)


def test_copies_that_nothing_changes_are_refused() -> None:
    settings = NO_AUGMENTATION.model_dump()
    with pytest.raises(ValueError, match="2 copies of a clip would be the same"):
        AugmentSettings.model_validate(settings | {"copies": 2})
    erased = AugmentSettings.model_validate(settings | {"copies": 2, "erase_probability": 0.1})
    assert erased.changes == ["erasing"]


def test_augmentation_leaves_names_labels_and_the_batch_itself_alone(stored: StoredFrames) -> None:
    batch, before = stored[[0, 1, 2]], stored[[0, 1, 2]]
    changed = augment_batch(batch, ALL, seed=1, epoch=1, repeats=[0, 0, 0])
    assert (changed.ids, changed.groups) == (batch.ids, batch.groups)
    for now, then in zip(changed.targets["expression"], batch.targets["expression"], strict=True):
        assert torch.equal(now, then)
    assert torch.equal(changed.targets["boxes"].known, changed.targets["points"].known)
    assert_equal([batch], [before])


def test_a_flip_mirrors_pixels_boxes_and_points_and_changes_left_and_right(
    stored: StoredFrames,
) -> None:
    batch = stored[[0, 1]]
    mirrored = augment_batch(batch, EVERY_FLIP, seed=1, epoch=1, repeats=[0, 0])
    assert torch.equal(mirrored.inputs, batch.inputs.flip(-1))
    boxes, points = batch.targets["boxes"].values, batch.targets["points"].values
    mirrored_points = mirrored.targets["points"].values
    torch.testing.assert_close(
        mirrored.targets["boxes"].values[..., 0], 1 - boxes[..., 0] - boxes[..., 2]
    )
    torch.testing.assert_close(mirrored_points[..., 0, 0], 1 - points[..., 1, 0])
    torch.testing.assert_close(mirrored_points[..., 3, 1], points[..., 4, 1])


def test_tokens_come_as_they_are_where_nothing_is_augmented(stored: StoredFrames) -> None:
    tokens = replace(stored[list(range(10))], inputs=torch.rand(10, 2, 8).half())
    batches = first_batches(training(NoiseClips(tokens), NO_AUGMENTATION), 3)
    order = epoch_order(stored.labels, seed=1, epoch=1, class_balanced=False)
    assert_equal([concatenate(batches)], [tokens.rows(order.tolist())])


def test_a_device_without_a_clip_gets_one_of_which_nothing_is_known(stored: StoredFrames) -> None:
    # Ten clips in fours: two are left for the third step, of four devices.
    parts = [first_batches(training(stored, rank=Rank(rank, 4)), 3)[2] for rank in range(4)]
    assert [part.targets["expression"].known.tolist() for part in parts] == [
        [True],
        [True],
        [False],
        [False],
    ]
    for idle in parts[2:]:
        assert idle.ids == parts[0].ids
        assert not any(target.known.any() for target in idle.targets.values())


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_the_devices_evaluate_every_clip_once_and_in_order(world_size: int) -> None:
    source, found = NoiseClips(clips(7)), []
    for rank in range(world_size):
        loader = evaluation_batches(
            source, batch_size=2, rank=Rank(rank, world_size), num_workers=0
        )
        # Twice, as after every epoch.
        for _ in range(2):
            names = [name for batch in loader for name in batch.ids]
        found += names
    assert found == source.whole.ids


def test_a_copy_of_a_clip_takes_one_of_its_samplings_at_random_and_validation_the_middle_one(
    stored: StoredFrames,
) -> None:
    # Two samplings of two frames each, out of the four that are stored.
    stored.segments = 2
    whole = stored[[0]]
    parts = [whole.segment(i, 2) for i in range(2)]
    taken = []
    for epoch in range(1, 20):
        batch = augment_batch(whole, NO_AUGMENTATION, segments=2, seed=1, epoch=epoch, repeats=[0])
        (found,) = [i for i in range(2) if torch.equal(parts[i].inputs, batch.inputs)]
        for name in ("boxes", "points"):
            assert torch.equal(batch.targets[name].values, parts[found].targets[name].values)
        taken.append(found)
    assert set(taken) == {0, 1}
    assert torch.equal(MiddleSegment(stored)[[0]].inputs, parts[1].inputs)
    (first,) = first_batches(training(stored, NO_AUGMENTATION), 1)
    assert first.inputs.shape[1] == 2
    idle = training(stored, NO_AUGMENTATION, rank=Rank(9, 10))
    assert next(idle.starting_at(1, 0)).inputs.shape[1] == 2
