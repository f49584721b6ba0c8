import numpy as np
import pytest
import torch
from small_pretrain import batch, pictures

from pipeline.pretrain.masks import MASK, Masking, random_masking, tube_masking, with_masks

FIRST_VISIBLE = [2, 8, 11, 17, 18, 21]


def test_videomae_masks_176_of_196_positions_in_all_8_slices() -> None:
    masking = tube_masking(8, 196, 0.9)
    assert (masking.num_tokens, masking.num_visible) == (1568, 160)
    mask = masking.draw("clip", seed=1, epoch=1)
    assert mask.dtype == torch.bool
    assert int(mask.sum()) == 1408
    first, *others = mask.reshape(8, 196)
    assert int(first.sum()) == 176
    assert all(torch.equal(slice_, first) for slice_ in others)


def test_mae_keeps_49_of_196_patches() -> None:
    masking = random_masking(196, 0.75)
    assert (masking.num_tokens, masking.num_visible) == (196, 49)
    assert int(masking.draw("picture", seed=1, epoch=1).sum()) == 147


@pytest.mark.parametrize(("num_positions", "ratio"), [(196, 0.9), (100, 0.7), (16, 0.75), (9, 0.5)])
def test_a_tube_mask_rounds_the_hidden_down_and_a_random_mask_the_visible(
    num_positions: int, ratio: float
) -> None:
    tubes, patches = tube_masking(1, num_positions, ratio), random_masking(num_positions, ratio)
    assert tubes.num_hidden == int(ratio * num_positions)
    assert patches.num_visible == int(num_positions * (1 - ratio))


@pytest.mark.parametrize(
    ("ratio", "num_hidden"), [(0.0, 0), (0.05, 0), (1.0, 16), (1.5, 24), (-0.5, -8)]
)
def test_a_ratio_that_hides_nothing_or_everything_is_refused(ratio: float, num_hidden: int) -> None:
    with pytest.raises(ValueError, match=f"mask ratio of {ratio} hides {num_hidden} of 16 posit"):
        tube_masking(8, 16, ratio)


@pytest.mark.parametrize(("ratio", "num_hidden"), [(0.0, 0), (0.95, 16), (1.0, 16)])
def test_a_ratio_that_leaves_no_patch_visible_is_refused(ratio: float, num_hidden: int) -> None:
    with pytest.raises(ValueError, match=f"mask ratio of {ratio} hides {num_hidden} of 16 posit"):
        random_masking(16, ratio)


def test_a_mask_depends_on_seed_epoch_name_and_repeat_alone() -> None:
    masking = random_masking(196, 0.75)
    masks = {
        (seed, epoch, name, repeat): masking.draw(name, seed=seed, epoch=epoch, repeat=repeat)
        for seed in (1, 2)
        for epoch in (0, 1)
        for name in ("a", "b")
        for repeat in (0, 1)
    }
    assert len({tuple(mask.tolist()) for mask in masks.values()}) == 16
    again = masking.draw("b", seed=2, epoch=1, repeat=0)
    assert torch.equal(again, masks[2, 1, "b", 0])
    # On every machine and in every process.
    assert (~again).nonzero().flatten()[:6].tolist() == FIRST_VISIBLE


def test_every_position_is_hidden_as_often_as_the_ratio_says() -> None:
    masking = tube_masking(1, 16, 0.75)
    masks = [masking.draw(f"clip{i}", seed=1, epoch=1).numpy() for i in range(2000)]
    # Four deviations of a share of 2000 draws.
    assert np.abs(np.mean(masks, axis=0) - 0.75).max() < 4 * np.sqrt(0.75 * 0.25 / 2000)


def test_each_sample_of_a_batch_has_the_mask_of_its_name() -> None:
    masking = Masking(num_slices=1, num_positions=16, num_hidden=12)
    masked = with_masks(batch(pictures(3)), masking, seed=1, epoch=2, repeats=[0, 0, 1])
    values, known = masked.targets[MASK]
    assert known.all()
    for i, repeat in enumerate([0, 0, 1]):
        alone = masking.draw(f"sample{i}", seed=1, epoch=2, repeat=repeat)
        assert torch.equal(values[i], alone)
    assert torch.equal(masked.inputs, pictures(3))
