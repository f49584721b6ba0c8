from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.feed.loader import load
from pipeline.store.batch import Batch, Target, concatenate

NUM_FRAMES = 2


@pytest.fixture
def batch() -> Batch:
    """Five samples: sample i holds tens of i, and its box is known in the first frame if i is."""
    tens = 10 * torch.arange(5)
    known = torch.tensor([[i > 0, False] for i in range(5)])
    return Batch(
        ids=["a", "b", "c", "d", "e"],
        groups=["Ann", "Ann", "Bob", "Zoë", "Zoë"],
        inputs=tens[:, None].expand(-1, 3).to(torch.uint8),
        targets={
            "boxes": Target(tens[:, None, None] + torch.arange(8.0).view(NUM_FRAMES, 4), known),
            "expression": Target(tens + 1, torch.tensor([True, True, False, True, True])),
        },
    )


def tensors(batch: Batch) -> Iterator[Tensor]:
    yield batch.inputs
    for target in batch.targets.values():
        yield from target


def assert_same(one: Batch, other: Batch) -> None:
    assert (one.ids, one.groups) == (other.ids, other.groups)
    assert list(one.targets) == list(other.targets)
    for value, wanted in zip(tensors(one), tensors(other), strict=True):
        assert value.dtype == wanted.dtype
        assert torch.equal(value, wanted)


def change_everything(batch: Batch) -> None:
    for tensor in tensors(batch):
        tensor.copy_(~tensor if tensor.dtype == torch.bool else tensor + 1)


def test_rows_are_the_samples_in_the_order_of_their_numbers(batch: Batch) -> None:
    rows = batch.rows([3, 0, 3])
    assert len(rows) == 3
    assert rows.ids == ["d", "a", "d"]
    assert rows.groups == ["Zoë", "Ann", "Zoë"]
    assert rows.inputs.tolist() == [[30] * 3, [0] * 3, [30] * 3]
    assert rows.targets["boxes"].values[:, 1, 0].tolist() == [34, 4, 34]
    assert rows.targets["boxes"].known.tolist() == [[True, False], [False, False], [True, False]]
    assert rows.targets["expression"].values.tolist() == [31, 1, 31]
    assert batch.rows([2, 4]).targets["expression"].known.tolist() == [False, True]


def test_all_rows_are_the_batch_and_none_are_an_empty_one(batch: Batch) -> None:
    assert_same(batch.rows(range(5)), batch)
    none = batch.rows([])
    assert (none.ids, none.groups, len(none)) == ([], [], 0)
    assert none.targets["boxes"].values.shape == (0, NUM_FRAMES, 4)


@pytest.mark.parametrize(
    ("size", "lengths"), [(1, [1] * 5), (2, [2, 2, 1]), (4, [4, 1]), (5, [5]), (9, [5])]
)
def test_parts_are_the_samples_in_order_without_a_copy(
    batch: Batch, size: int, lengths: list[int]
) -> None:
    parts = batch.parts(size)
    assert [len(part) for part in parts] == lengths
    assert_same(concatenate(parts), batch)
    for part in parts:
        for tensor, whole in zip(tensors(part), tensors(batch), strict=True):
            assert tensor.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


def test_every_tensor_goes_to_the_device(batch: Batch) -> None:
    moved = batch.to(torch.device("meta"))
    assert all(tensor.is_meta for tensor in tensors(moved))
    assert [tensor.shape for tensor in tensors(moved)] == [t.shape for t in tensors(batch)]
    assert (moved.ids, moved.groups) == (batch.ids, batch.groups)
    assert_same(batch.to(torch.device("cpu")), batch)


def test_without_inputs_names_and_targets_are_copies(batch: Batch) -> None:
    bare, before = batch.without_inputs(), batch.rows(range(5))
    assert bare.inputs.shape == (5, 0)
    assert len(bare) == 5
    change_everything(batch)
    assert not torch.equal(batch.targets["boxes"].values, before.targets["boxes"].values)
    for name, target in before.targets.items():
        assert torch.equal(bare.targets[name].values, target.values)
        assert torch.equal(bare.targets[name].known, target.known)
    assert (bare.ids, bare.groups) == (before.ids, before.groups)


def test_without_targets_nothing_is_known_of_the_same_samples(batch: Batch) -> None:
    before = batch.rows(range(5))
    hidden = batch.without_targets()
    assert (hidden.ids, hidden.groups) == (batch.ids, batch.groups)
    assert torch.equal(hidden.inputs, batch.inputs)
    assert hidden.targets["boxes"].known.tolist() == [[False] * NUM_FRAMES] * 5
    assert hidden.targets["expression"].known.tolist() == [False] * 5
    for name, target in batch.targets.items():
        assert torch.equal(hidden.targets[name].values, target.values)
    assert_same(batch, before)


def test_a_target_is_replaced_or_added_and_the_others_stay(batch: Batch) -> None:
    before = batch.rows(range(5))
    soft = Target(torch.full((5, 7), 1 / 7), torch.tensor([True] * 5))
    replaced = batch.with_target("expression", soft)
    assert replaced.targets["expression"] is soft
    assert replaced.targets["boxes"] is batch.targets["boxes"]
    added = batch.with_target("age", soft)
    assert list(added.targets) == ["boxes", "expression", "age"]
    assert added.targets["expression"] is batch.targets["expression"]
    assert_same(batch, before)


def test_a_segment_is_every_so_manyth_frame_of_inputs_and_of_what_is_known_of_frames(
    batch: Batch,
) -> None:
    frames = torch.arange(5 * 6).view(5, 6, 1)
    long = batch.rows([0, 1]).with_target("points", Target(frames[:2], frames[:2, :, 0] % 2 == 0))
    part = Batch(long.ids, long.groups, frames[:2], {"points": long.targets["points"]})
    second = part.segment(1, 3)
    assert second.inputs.flatten(1).tolist() == [[1, 4], [7, 10]]
    assert second.targets["points"].values.flatten(1).tolist() == [[1, 4], [7, 10]]
    assert second.targets["points"].known.tolist() == [[False, True], [False, True]]
    assert batch.segment(1, 2).targets["expression"] is batch.targets["expression"]
    assert batch.segment(1, 2).targets["boxes"].known.tolist() == [[False]] * 5


def test_batches_are_concatenated_in_their_order(batch: Batch) -> None:
    assert_same(concatenate([batch.rows([4, 1]), batch.rows([3])]), batch.rows([4, 1, 3]))
    assert_same(concatenate([batch]), batch)


class Rows(Dataset[Batch]):
    """Rows of a batch; its items are batches."""

    def __init__(self, whole: Batch) -> None:
        self.whole = whole

    def __getitem__(self, numbers: list[int]) -> Batch:
        return self.whole.rows(numbers)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_loader_hands_batches_on_unchanged(batch: Batch, num_workers: int) -> None:
    # As of a source of tokens, too.
    halves = Batch(batch.ids, batch.groups, batch.inputs / torch.tensor(4.0).half(), batch.targets)
    items = [[3, 0], [1], [4, 2, 2]]
    for whole in (batch, halves):
        plain: DataLoader[Batch] = DataLoader(
            Rows(whole), sampler=items, batch_size=None, num_workers=num_workers
        )
        for loader in (plain, load(Rows(whole), items, num_workers=num_workers)):
            for loaded, numbers in zip(loader, items, strict=True):
                assert type(loaded) is Batch
                assert all(type(target) is Target for target in loaded.targets.values())
                assert_same(loaded, whole.rows(numbers))
