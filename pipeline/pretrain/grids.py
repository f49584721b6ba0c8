"""Pictures to look at: held-out samples, what the encoder sees of them, and what is made of that.

Shape letters: B samples, T frames, H x W pixels.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.common.files import atomic_path
from pipeline.pretrain.autoencoder import MaskedAutoencoder
from pipeline.pretrain.masks import MASK
from pipeline.store.batch import Batch

# Frames of a clip that are shown; the side of each in pixels; between them and between samples.
_SHOWN, _SIDE, _LINE = 4, 112, 2


def save_grid(path: Path, model: MaskedAutoencoder, batch: Batch) -> None:
    """Three rows for every sample: its frames, those with the hidden tokens grey, and the model's.

    In the third row the visible tokens are the sample's own. The model is left in evaluation mode.

    Args:
        path: A PNG file.
        model: On any device.
        batch: A few samples with masks, on the CPU.
    """
    model.eval()
    device = next(model.parameters()).device
    inputs, masks = batch.inputs.to(device), batch.targets[MASK].values.to(device)
    rows = [
        inputs.float() / 255,
        model.hide(inputs, masks),
        model.reconstruct(inputs, masks),
    ]
    frames = torch.stack([_as_frames(row) for row in rows], dim=1)  # (B, 3, T, 3, H, W)
    with atomic_path(path) as temporary:
        _picture(frames.cpu()).save(temporary, format="PNG")


def _as_frames(inputs: Tensor) -> Tensor:
    """(B, T, 3, H, W) some of the frames of clips, or pictures as clips of one frame."""
    if inputs.ndim == 4:
        return inputs[:, None]
    count = min(_SHOWN, inputs.shape[1])
    return inputs[:, [(2 * i + 1) * inputs.shape[1] // (2 * count) for i in range(count)]]


def _picture(frames: Tensor) -> Image.Image:
    """All frames (B, 3, T, 3, H, W) beside and below one another, samples further apart."""
    pixels = (frames.clamp(0, 1) * 255).round().to(torch.uint8).movedim(3, -1).numpy()
    cell = _SIDE + _LINE
    num_samples, num_rows, num_frames = pixels.shape[:3]
    block = num_rows * cell + 4 * _LINE
    sheet = np.full((num_samples * block, num_frames * cell, 3), 255, np.uint8)
    for sample, row, frame in np.ndindex(num_samples, num_rows, num_frames):
        top, left = sample * block + row * cell, frame * cell
        small = Image.fromarray(pixels[sample, row, frame]).resize((_SIDE, _SIDE))
        sheet[top : top + _SIDE, left : left + _SIDE] = np.asarray(small)
    return Image.fromarray(sheet)
