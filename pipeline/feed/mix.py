"""timm's mixup and cutmix, for clips.

Shape letters: B clips, T frames, C classes.
"""

from dataclasses import replace

import numpy as np
import torch
from pydantic import NonNegativeFloat
from timm.data.mixup import cutmix_bbox_and_lam, mixup_target
from torch import Tensor

from pipeline.common.params import Section
from pipeline.feed.augment import Probability, global_generators_seeded_by
from pipeline.store.batch import Batch, Target


class MixSettings(Section):
    """Mixup and cutmix of the clips that a device takes at once; see `mix_batch`.

    Attributes:
        mixup_alpha: A clip keeps a share of itself drawn from Beta(alpha, alpha); 0 is off.
        cutmix_alpha: The same of cutmix. Where both are on, each gets half of the mixed batches.
        probability: Chance that the clips are mixed.
    """

    mixup_alpha: NonNegativeFloat
    cutmix_alpha: NonNegativeFloat
    probability: Probability

    @property
    def changes(self) -> list[str]:
        """What may change a clip, in words; nothing where every clip stays as it is."""
        strengths = {"mixup": self.mixup_alpha, "cutmix": self.cutmix_alpha}
        return [name for name, strength in strengths.items() if strength]


def mix_batch(
    batch: Batch,
    settings: MixSettings,
    *,
    num_classes: int,
    label_smoothing: float,
    generator: np.random.Generator,
) -> Batch:
    """Blend clip i with clip B - 1 - i, or paste a rectangle of that into all frames of this.

    A batch is mixed in one way or not at all. The middle clip of an odd batch stays as it is. Boxes
    and points of mixed clips become unknown, because a blend of two faces has no one box.

    Args:
        batch: Frames, with class indices (B,) as `expression`.
        settings: How much.
        num_classes: C.
        label_smoothing: Probability spread over all C classes, as F.cross_entropy does it.
        generator: Of all draws; advanced.

    Returns:
        The batch with probabilities (B, C) as `expression`, whose rows sum to 1. A blend of uint8
        frames is rounded to the nearest integer.

    Source: mixup (Zhang et al., 2018), CutMix (Yun et al., 2019); timm's mixup in mode "batch".
    """
    frames, own_share = batch.inputs, 1.0
    use_cutmix = settings.cutmix_alpha > 0 and (
        settings.mixup_alpha == 0 or generator.random() < 0.5
    )
    alpha = settings.cutmix_alpha if use_cutmix else settings.mixup_alpha
    if alpha > 0 and len(batch) > 1 and generator.random() < settings.probability:
        own_share = generator.beta(alpha, alpha)
        partners = frames.flip(0)
        if use_cutmix:
            # The share that comes back counts only what of the rectangle is in the frame.
            with global_generators_seeded_by(generator):
                (top, bottom, left, right), own_share = cutmix_bbox_and_lam(frames.shape, own_share)  # type: ignore[no-untyped-call]
            frames = frames.clone()
            frames[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
        else:
            blend = torch.lerp(frames.float(), partners.float(), 1 - own_share)
            frames = (blend if frames.is_floating_point() else blend.round()).to(frames.dtype)
    labels, known = batch.targets["expression"]
    soft_labels: Tensor = mixup_target(labels, num_classes, own_share, label_smoothing)  # type: ignore[no-untyped-call]
    clips = torch.arange(len(batch), device=labels.device)
    whole = (clips == clips.flip(0)) | bool(own_share >= 1)
    targets = {
        name: Target(target.values, target.known & whole[:, None])
        for name, target in batch.targets.items()
    }
    targets["expression"] = Target(soft_labels, known)
    return replace(batch, inputs=frames, targets=targets)
