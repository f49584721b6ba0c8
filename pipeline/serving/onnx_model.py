"""A model that `commands.export --to onnx` wrote, run by onnxruntime; it needs no torch.

Shape letters: B people, N stored frames of a window, I side of a frame in pixels, C classes.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.common.strangers import check_regular, read_json, refusing, words_of

MODEL, CONFIG = "model.onnx", "config.json"
# The names in the graph.
FRAMES = "frames"
OUTPUTS = ("probabilities", "boxes", "points")

Array = npt.NDArray[np.float32]


class Said(NamedTuple):
    """What a model says of B people: places are fractions of the frame, None of structure stl.

    Attributes:
        probabilities: (B, C).
        boxes: (B, N, 4) x, y of the top left corner, width, height.
        points: (B, N, 5, 2).
    """

    probabilities: Array
    boxes: Array | None
    points: Array | None


class OnnxModel:
    """An exported model on the CPU; what it says is what the saved model says, but for rounding.

    Args:
        folder: Holds model.onnx and config.json.
        num_threads: That it takes; 0: as many as there are cores.

    Attributes:
        metadata: As of the saved model.
        image_size: I.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: config.json is not that of an exported model.
        ModuleNotFoundError: onnxruntime is not installed.
    """

    def __init__(self, folder: Path, num_threads: int = 0) -> None:
        config = read_json(folder / CONFIG)
        if not isinstance(config, dict) or not {"metadata", "image_size"} <= config.keys():
            raise ValueError(f"{folder / CONFIG} does not describe an exported model")
        self.metadata: dict[str, Any] = config["metadata"]
        self.image_size: int = config["image_size"]
        self.folder, self.num_threads = folder, num_threads
        self._session = open_session(folder / MODEL, num_threads)

    def ask(self, frames: npt.NDArray[np.uint8], /) -> Said:
        """What is said of RGB frames (B, N, I, I, 3)."""
        values = self._session.run(None, {FRAMES: np.ascontiguousarray(frames)})
        said = dict(zip((one.name for one in self._session.get_outputs()), values, strict=True))
        return Said(said["probabilities"], said.get("boxes"), said.get("points"))


def open_session(path: Path, num_threads: int) -> Any:
    """A graph in onnxruntime, on the CPU; 0 threads: as many as there are cores.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
    """
    try:
        import onnxruntime  # An extra: few people need it.
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path} takes onnxruntime: python -m pip install -r requirements-export.txt "
            "-c constraints.txt"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    check_regular(path)
    with refusing(
        lambda error: ValueError(f"{path} cannot be read as an ONNX file: {words_of(error)}")
    ):
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
