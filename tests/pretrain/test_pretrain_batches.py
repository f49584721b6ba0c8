import multiprocessing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from small_collection import look_in_this_process, make_videos, videos_of

from pipeline.common.frames import Frames
from pipeline.feed.batches import BatchPlan
from pipeline.feed.order import Rank
from pipeline.pretrain.batches import SKIPPED, Form, HeldOutSamples, PretrainBatches
from pipeline.pretrain.crops import AugmentSettings
from pipeline.pretrain.manifest import TRAIN
from pipeline.pretrain.masks import MASK, tube_masking
from pipeline.pretrain.video_clips import ClipSettings, VideoClips
from pipeline.store.batch import Batch
from pipeline.video.container import unreadable

FORM = Form(num_frames=4, size=32, masking=tube_masking(2, 4, 0.5))
AUGMENT = AugmentSettings(crop="multi_scale", flip_probability=0.5)
NUM_SAMPLES = 7
ALONE = Rank()


class Noise:
    """7 samples, of which some cannot be read."""

    def __init__(self, *bad: int) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return NUM_SAMPLES

    def name(self, number: int) -> str:
        return f"sample{number}"

    def group(self, number: int) -> str:
        return f"group{number}"

    def path(self, number: int) -> str:
        return f"folder/{number}.mp4"

    def groups(self) -> dict[str, list[str]]:
        return {}

    def read(self, number: int, random: np.random.Generator | None) -> Frames:
        if number in self.bad:
            raise unreadable(Path(self.path(number)), "3 frames do not decode")
        random = random or np.random.default_rng(number)
        return random.integers(0, 256, (4, 50, 60, 3), np.uint8)


def batches(
    *bad: int, rank: Rank = ALONE, num_workers: int = 0, batch_size: int = 3, min_steps: int = 1
) -> PretrainBatches:
    return PretrainBatches(
        Noise(*bad),
        FORM,
        AUGMENT,
        BatchPlan(
            batch_size=batch_size,
            class_balanced=False,
            min_steps=min_steps,
            seed=1,
            rank=rank,
            num_workers=num_workers,
        ),
    )


def samples(found: list[Batch]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What counts, by name: pixels and masks."""
    return {
        name: (batch.inputs[i], batch.targets[MASK].values[i])
        for batch in found
        for i, name in enumerate(batch.ids)
        if batch.targets[MASK].known[i]
    }


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    a, b = samples(one), samples(other)
    assert a.keys() == b.keys()
    for name, tensors in a.items():
        assert all(map(torch.equal, tensors, b[name])), name


def epoch(of: PretrainBatches, number: int, step: int = 0) -> list[Batch]:
    return list(islice(of.starting_at(number, step), of.steps_per_epoch - step))


def test_a_sample_is_drawn_alike_by_any_worker_and_device() -> None:
    alone = epoch(batches(), 2)
    assert len(alone) == 3
    assert_same(alone, epoch(batches(num_workers=2), 2))
    both = [batch for number in range(2) for batch in epoch(batches(rank=Rank(number, 2)), 2)]
    assert len(samples(both)) == NUM_SAMPLES
    assert_same(alone, both)


def test_every_epoch_draws_anew_and_goes_on_from_any_step() -> None:
    first, second = samples(epoch(batches(), 1)), samples(epoch(batches(), 2))
    assert first.keys() == second.keys()
    assert not any(torch.equal(first[name][0], second[name][0]) for name in first)
    assert_same(epoch(batches(), 1)[2:], epoch(batches(), 1, step=2))
    # From one epoch into the next.
    going = list(islice(batches().starting_at(1, 2), 4))
    assert_same(going[1:], epoch(batches(), 2))


def test_a_sample_that_comes_twice_in_an_epoch_is_drawn_twice() -> None:
    found = epoch(batches(min_steps=5), 1)
    assert sum(len(batch) for batch in found) == 2 * NUM_SAMPLES
    rows = [
        batch.inputs[i] for batch in found for i, name in enumerate(batch.ids) if name == "sample3"
    ]
    assert len(rows) == 2
    assert not torch.equal(*rows)


def test_masks_hide_the_same_number_and_the_same_tubes_in_every_slice() -> None:
    for batch in epoch(batches(), 1):
        masks = batch.targets[MASK].values.view(-1, 2, 4)
        assert (masks.sum(2) == 2).all()
        assert torch.equal(masks[:, 0], masks[:, 1])


def test_what_cannot_be_read_is_skipped_counted_and_named() -> None:
    with pytest.warns(UserWarning, match=r"skipped folder/4.mp4: 4.mp4: not a readable video"):
        found = epoch(batches(4), 1)
    whole = samples(epoch(batches(), 1))
    del whole["sample4"]
    left = samples(found)
    assert left.keys() == whole.keys()
    assert all(torch.equal(left[name][0], whole[name][0]) for name in whole)
    skipped = [
        name
        for batch in found
        for name, bad, counts in zip(batch.ids, *batch.targets[SKIPPED], strict=True)
        if bad and counts
    ]
    assert skipped == ["sample4"]


@pytest.mark.filterwarnings("ignore:skipped")
def test_when_nothing_can_be_read_any_more_the_training_ends() -> None:
    with pytest.raises(RuntimeError, match="none of the 3 samples of a batch can be read"):
        epoch(batches(*range(NUM_SAMPLES)), 1)


def test_what_an_idle_device_repeats_is_not_a_skipped_sample() -> None:
    last = epoch(batches(rank=Rank(1, 2)), 1)[-1]
    assert not last.targets[MASK].known.any()
    assert not last.targets[SKIPPED].known.any()


def test_held_out_samples_are_the_same_at_any_time_and_spread_over_all() -> None:
    held_out = HeldOutSamples(Noise(), FORM, most=3, seed=1)
    one, other = held_out[[0, 1, 2]], held_out[[2, 1, 0]]
    assert one.ids == other.ids[::-1] == ["sample0", "sample2", "sample4"]
    assert torch.equal(one.inputs, other.inputs.flip(0))
    assert torch.equal(one.targets[MASK].values, other.targets[MASK].values.flip(0))


def test_a_single_frame_is_a_picture() -> None:
    class Stills(Noise):
        def read(self, number: int, random: np.random.Generator | None) -> Frames:
            return super().read(number, random)[:1]

    form = FORM._replace(num_frames=0, masking=tube_masking(1, 4, 0.5))
    held_out = HeldOutSamples(Stills(), form, most=2, seed=1)
    assert held_out[[0, 1]].inputs.shape == (2, 3, 32, 32)


@pytest.mark.slow
def test_workers_decode_clips_of_videos_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_in_this_process(monkeypatch)
    source = make_videos(tmp_path / "films", anna_1=60, bo_1=30, cy_1=30)
    videos_of(source, tmp_path / "out")
    settings = ClipSettings(num_frames=4, stride=3, seconds_per_clip=0.5)

    def first(num_workers: int, keep_bytes: int) -> list[Batch]:
        clips = VideoClips(
            source, tmp_path / "out", TRAIN, settings, num_frames=4, side=40, keep_bytes=keep_bytes
        )
        return epoch(
            PretrainBatches(
                clips,
                FORM,
                AUGMENT,
                BatchPlan(
                    batch_size=3,
                    class_balanced=False,
                    min_steps=1,
                    seed=1,
                    rank=ALONE,
                    num_workers=num_workers,
                ),
            ),
            1,
        )

    alone = first(0, 0)
    assert_same(alone, first(0, 10**8))
    assert_same(alone, first(min(2, multiprocessing.cpu_count()), 0))
