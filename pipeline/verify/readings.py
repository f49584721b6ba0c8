"""The steps between a stored clip and a model in which two codes may differ, each one changeable.

Shape letters: T stored frames, S side of a stored frame, I side of a frame as the model reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.models.vit import IMAGENET_MEAN, IMAGENET_STD
from pipeline.store.strips import decode_strip, strip_size
from pipeline.verify.classifiers import POOLINGS, Pooling

Times = Literal["as stored", "backwards", "middle half", "first half", "one frame"]
Norm = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation per channel, of pixels from 0 to 1."""

_SIZES = (112, 128, 160, 192, 224)
_NORMS: dict[str, Norm] = {
    "mean and deviation of ImageNet": (IMAGENET_MEAN, IMAGENET_STD),
    "0 to 1": ((0.0,) * 3, (1.0,) * 3),
    "-1 to 1": ((0.5,) * 3, (0.5,) * 3),
    "0 to 255": ((0.0,) * 3, (1 / 255,) * 3),
}


@dataclass(frozen=True)
class Reading:
    """How a stored clip is shown to a model.

    Attributes:
        size: I.
        normalisation: What is subtracted and divided by.
        pooling: Of a `VideoClassifier`; None for a model of this project.
        share: Side of the square that is read over that of the stored frame; beyond 1 the frame's
            edge is repeated.
        smooth: Whether frames are made smaller by averaging, and not by looking at single pixels.
        mirrored: Left and right exchanged.
        blue_first: Channels in the order of OpenCV.
        times: Which frames; those that are left out are replaced by neighbours.
    """

    size: int
    normalisation: Norm
    pooling: Pooling | None
    share: float = 1.0
    smooth: bool = True
    mirrored: bool = False
    blue_first: bool = False
    times: Times = "as stored"


class Change(NamedTuple):
    """A reading that differs from another in one step."""

    step: str
    name: str
    reading: Reading


def single_changes(usual: Reading, patch_size: int) -> list[Change]:
    """All that is tried, one after the other.

    Args:
        usual: How the model is read otherwise.
        patch_size: Of the model; frames of other sizes must divide into patches.
    """
    changes = [
        Change("input size", f"{size} pixels", replace(usual, size=size))
        for size in _SIZES
        if size != usual.size and not size % patch_size and 0.5 <= size / usual.size <= 2
    ]
    changes.append(Change("scaling", "nearest pixel", replace(usual, smooth=False)))
    orders: list[tuple[Times, str]] = [
        ("middle half", "the middle half of the frames, each twice: a denser sampling"),
        ("first half", "the first half of the frames, each twice"),
        ("one frame", "the middle frame alone, repeated"),
        ("backwards", "backwards"),
    ]
    changes += [Change("sampling", words, replace(usual, times=times)) for times, words in orders]
    changes += [
        Change("crop", f"{words} ({share:.0%} of the stored side)", replace(usual, share=share))
        for share, words in ((0.875, "closer"), (0.75, "much closer"), (1.25, "wider"))
    ]
    changes.append(Change("crop", "mirrored", replace(usual, mirrored=True)))
    changes.append(Change("colour order", "blue first", replace(usual, blue_first=True)))
    changes += [
        Change("normalisation", name, replace(usual, normalisation=norm))
        for name, norm in _NORMS.items()
        if not np.allclose(norm, usual.normalisation, atol=1e-3)
    ]
    if usual.pooling is not None:
        changes += [
            Change("pooling", pooling, replace(usual, pooling=pooling))
            for pooling in POOLINGS
            if pooling != usual.pooling
        ]
    return changes


def read_strip(strip: bytes, reading: Reading) -> npt.NDArray[np.uint8]:
    """Frames (T, I, I, 3) of a stored clip; normalisation and pooling are the model's matter."""
    if reading.share == 1 and reading.smooth:
        frames = decode_strip(strip, reading.size)
    else:
        frames = _cut(decode_strip(strip, strip_size(strip)), reading)
    if reading.mirrored:
        frames = frames[:, :, ::-1]
    if reading.blue_first:
        frames = frames[..., ::-1]
    return np.ascontiguousarray(frames[_frame_numbers(len(frames), reading.times)])


def _cut(frames: npt.NDArray[np.uint8], reading: Reading) -> npt.NDArray[np.uint8]:
    side = frames.shape[1]
    margin = round((reading.share - 1) * side / 2)
    if margin > 0:
        edges = ((0, 0), (margin, margin), (margin, margin), (0, 0))
        frames = np.pad(frames, edges, mode="edge")
    elif margin < 0:
        frames = frames[:, -margin:margin, -margin:margin]
    method = Image.Resampling.BICUBIC if reading.smooth else Image.Resampling.NEAREST
    size = (reading.size, reading.size)
    return np.stack([np.asarray(Image.fromarray(one).resize(size, method)) for one in frames])


def _frame_numbers(count: int, times: Times) -> Sequence[int]:
    if times == "backwards":
        return range(count - 1, -1, -1)
    if times == "middle half":
        return [count // 4 + i // 2 for i in range(count)]
    if times == "first half":
        return [i // 2 for i in range(count)]
    if times == "one frame":
        return [count // 2] * count
    return range(count)
