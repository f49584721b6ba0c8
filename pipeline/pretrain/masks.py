"""Which tokens of a sample are hidden: the same number in every sample, drawn by name.

Shape letters: B samples, N tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.store.batch import Batch, Target

# Where a batch's targets hold the masks: `values` (B, N) booleans, True where a token is hidden;
# `known` (B,) booleans, False for a sample that an idle device repeats.
MASK = "mask"


class Masking(NamedTuple):
    """How many tokens are hidden, and where: the same positions in every slice.

    Attributes:
        num_slices: Slices of a clip in time, a tubelet thick; 1 for a picture.
        num_positions: Tokens of a slice.
        num_hidden: Of the positions, from 1 to one less than all.
    """

    num_slices: int
    num_positions: int
    num_hidden: int

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.num_slices * self.num_positions

    @property
    def num_visible(self) -> int:
        """Tokens of a sample that the encoder sees."""
        return self.num_slices * (self.num_positions - self.num_hidden)

    def draw(self, name: str, *, seed: int, epoch: int, repeat: int = 0) -> Tensor:
        """(N,) booleans, True where a token is hidden, slice by slice and row by row.

        Args:
            name: Of the sample.
            seed: Of the training.
            epoch: From 1; 0 for masks that stay the same.
            repeat: How often the sample came before in this epoch.
        """
        # Not the stream from which the sample's augmentation is drawn.
        digest = int.from_bytes(hashlib.sha256(f"mask of {name}".encode()).digest()[:8], "big")
        noise = np.random.default_rng((seed, epoch, digest, repeat)).random(self.num_positions)
        hidden = np.zeros(self.num_positions, np.bool_)
        hidden[noise.argsort(kind="stable")[self.num_positions - self.num_hidden :]] = True
        return torch.from_numpy(np.tile(hidden, self.num_slices))


def tube_masking(num_slices: int, num_positions: int, ratio: float) -> Masking:
    """Tubes through all slices; int(ratio * positions) of them are hidden.

    Raises:
        ValueError: The ratio leaves no tube visible, or hides none.

    Source: VideoMAE (arXiv 2203.12602), section 3.3, and its code.
    """
    return _sensible(Masking(num_slices, num_positions, int(ratio * num_positions)), ratio)


def random_masking(num_patches: int, ratio: float) -> Masking:
    """Patches of a picture; int(patches * (1 - ratio)) of them stay visible.

    Raises:
        ValueError: The ratio leaves no patch visible, or hides none.

    Source: MAE (arXiv 2111.06377), section 3, and its code.
    """
    return _sensible(Masking(1, num_patches, num_patches - int(num_patches * (1 - ratio))), ratio)


def _sensible(masking: Masking, ratio: float) -> Masking:
    if not 0 < masking.num_hidden < masking.num_positions:
        raise ValueError(
            f"a mask ratio of {ratio} hides {masking.num_hidden} of {masking.num_positions} "
            "positions: some must be hidden and some visible"
        )
    return masking


def with_masks(
    batch: Batch, masking: Masking, *, seed: int, epoch: int, repeats: Sequence[int] = ()
) -> Batch:
    """The batch with a mask for each sample, drawn by its id.

    What an idle device repeats must not count: `Batch.without_targets` after this.

    Args:
        batch: Clips (B, T, 3, H, W) or pictures (B, 3, H, W), on the CPU.
        masking: Of the autoencoder.
        seed: Of the training.
        epoch: From 1; 0 for samples that are masked alike in every validation.
        repeats: How often each sample came before in this epoch; never where there are none.
    """
    repeats = repeats or [0] * len(batch)
    masks = [
        masking.draw(name, seed=seed, epoch=epoch, repeat=repeat)
        for name, repeat in zip(batch.ids, repeats, strict=True)
    ]
    known = torch.ones(len(batch), dtype=torch.bool)
    return batch.with_target(MASK, Target(torch.stack(masks), known))
