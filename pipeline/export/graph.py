"""A trained model as an ONNX graph that takes pictures as numpy holds them.

Shape letters: B clips, N stored frames of a clip, I side of a frame in pixels, C classes.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.mtcae.view_mean import ViewMean
from pipeline.serving.onnx_model import FRAMES, OUTPUTS, Said

# A file of ONNX holds up to 2 GB; beyond this the weights stand beside it.
_LARGEST_FILE = 1_500_000_000


class Graph(nn.Module):
    """What is exported: normalisation, views and softmax are in it.

    Args:
        views: The model as its test asked it.
    """

    def __init__(self, views: ViewMean) -> None:
        super().__init__()
        self.views = views

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Those of `OUTPUTS` that the model has, for uint8 RGB frames (B, N, I, I, 3)."""
        said = self.views(frames.permute(0, 1, 4, 2, 3))
        probabilities = said.logits.softmax(dim=1)
        if said.boxes is None:
            return (probabilities,)
        return probabilities, said.boxes, said.points


def write_onnx(path: Path, views: ViewMean, *, num_stored: int, image_size: int) -> None:
    """Write a model as ONNX; B is left open.

    Args:
        path: The .onnx file.
        views: The model as its test asked it, in evaluation mode on the CPU.
        num_stored: N.
        image_size: I.
    """
    graph = Graph(views).eval()
    # Of two clips: an axis of one would be taken for a constant.
    example = torch.zeros(2, num_stored, image_size, image_size, 3, dtype=torch.uint8)
    with torch.no_grad():
        num_outputs = len(graph(example))
    num_bytes = sum(parameter.nbytes for parameter in graph.parameters())
    with quiet():
        torch.onnx.export(
            graph,
            (example,),
            path,
            input_names=[FRAMES],
            output_names=OUTPUTS[:num_outputs],
            dynamic_shapes={"frames": {0: torch.export.Dim("batch")}},
            external_data=num_bytes > _LARGEST_FILE,
            verbose=False,
        )


def write_int8(path: Path, source: Path) -> None:
    """Write a copy of an ONNX model whose matrices are of 8-bit integers.

    What the matrices are multiplied with is rounded while it runs (dynamic quantisation).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(source, path, weight_type=QuantType.QInt8)


def difference(one: Said, other: Said) -> float:
    """The largest difference of two answers, among all numbers in them."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def random_frames(
    num_clips: int, *, num_stored: int, image_size: int, seed: int
) -> npt.NDArray[np.uint8]:
    """Frames (B, N, I, I, 3) of noise over a brightness of their own, to compare models on."""
    rng = np.random.default_rng(seed)
    shape = (num_clips, num_stored, image_size, image_size, 3)
    levels = rng.integers(40, 216, (num_clips, num_stored, 1, 1, 3))
    # From 0 to 255, without clipping.
    return np.asarray(levels + rng.integers(-40, 40, shape), np.uint8)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch and onnxruntime say about their own insides."""
    loggers = [logging.getLogger(), logging.getLogger("torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
