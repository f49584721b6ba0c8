import itertools
from pathlib import Path

import numpy as np
import torch

from pipeline.affect.feed import AugmentSettings, PictureBatches, Pictures, change, cut_out
from pipeline.affect.labels import EXPRESSIONS, LabelledImage, Labels
from pipeline.affect.stored import SetCard, StoredSet, read_stored, write_card, write_drawn
from pipeline.feed.batches import BatchPlan
from pipeline.feed.order import Rank

SIDE = 8
NONE = AugmentSettings(
    crop=1,
    flip_probability=0,
    jitter_probability=0,
    brightness=0,
    contrast=0,
    saturation=0,
    hue=0,
)
SOME = AugmentSettings(
    crop=0.75,
    flip_probability=0.5,
    jitter_probability=0.5,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
)


def stored(folder: Path, count: int = 7) -> StoredSet:
    """Noise; every second expression is not known."""
    random = np.random.default_rng(0)
    images = [
        LabelledImage(
            f"i{i}", f"v/{i}.png", f"g{i % 3}", "", Labels(EXPRESSIONS[i] if i % 2 else None, 0.1)
        )
        for i in range(count)
    ]
    write_drawn(folder, images, list(random.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)))
    write_card(folder, SetCard(identity="noise", classes=EXPRESSIONS, side=SIDE))
    return read_stored(folder)


def test_pictures_are_read_by_their_place_with_their_labels(tmp_path: Path) -> None:
    whole = stored(tmp_path)
    batch = Pictures(whole, [5, 2], side=SIDE, crop=1)[[1, 0]]
    assert (batch.ids, batch.groups) == (["i2", "i5"], ["g2", "g2"])
    assert np.array_equal(batch.inputs[0].permute(1, 2, 0).numpy(), whole.pixels[2])
    assert batch.targets["expression"].known.tolist() == [False, True]
    assert batch.targets["expression"].values[1] == 5


def test_unknown_expressions_are_a_class_of_their_own_for_the_order(tmp_path: Path) -> None:
    assert Pictures(stored(tmp_path), [0, 1, 2, 3], side=SIDE, crop=1).labels.tolist() == [
        8,
        1,
        8,
        3,
    ]


def test_an_evaluation_sees_the_middle(tmp_path: Path) -> None:
    whole = stored(tmp_path)
    seen = Pictures(whole, [0], side=6, crop=0.75)[[0]].inputs[0]
    assert np.array_equal(seen.permute(1, 2, 0).numpy(), whole.pixels[0][1:7, 1:7])


def test_a_training_sees_windows_of_the_picture_some_of_them_mirrored() -> None:
    picture = torch.arange(3 * SIDE * SIDE, dtype=torch.uint8).view(3, SIDE, SIDE)
    plain = SOME.model_copy(update={"jitter_probability": 0})
    windows = [
        cut_out(picture, top, left, 6, 6) for top, left in itertools.product(range(3), repeat=2)
    ]
    possible = [*windows, *(window.flip(-1) for window in windows)]
    found = set()
    for seed in range(60):
        seen = change(picture, plain, 6, np.random.default_rng(seed))
        (which,) = [i for i, one in enumerate(possible) if torch.equal(one, seen)]
        found.add(which)
    assert found == set(range(18))


def test_without_changes_a_picture_stays_as_it_is() -> None:
    picture = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8)
    assert torch.equal(change(picture, NONE, SIDE, np.random.default_rng(1)), picture)


def test_an_epoch_goes_on_in_its_middle_with_the_same_pictures(tmp_path: Path) -> None:
    pictures = Pictures(stored(tmp_path), list(range(7)), side=6, crop=0.75)
    batches = PictureBatches(
        pictures,
        SOME,
        BatchPlan(
            batch_size=2,
            class_balanced=False,
            min_steps=1,
            seed=3,
            rank=Rank(),
            num_workers=0,
        ),
    )
    assert batches.steps_per_epoch == 4
    whole = list(itertools.islice(batches.starting_at(1, 0), 8))
    later = list(itertools.islice(batches.starting_at(1, 3), 5))
    assert sorted(name for batch in whole[:4] for name in batch.ids) == [f"i{i}" for i in range(7)]
    for one, other in zip(whole[3:], later, strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.inputs, other.inputs)
    # Another epoch, other changes.
    first = {n: x for b in whole[:4] for n, x in zip(b.ids, b.inputs, strict=True)}
    second = {n: x for b in whole[4:] for n, x in zip(b.ids, b.inputs, strict=True)}
    assert any(not torch.equal(first[name], second[name]) for name in first)
