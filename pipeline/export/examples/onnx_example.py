"""What does this face show? Answers by the ONNX model in this file's folder.

    python example.py face1.jpg face2.jpg ...

Takes pictures of one face in the order of time, square and cut close around the face (config.json,
`metadata.frames`, says how the training clips were cut). Needs numpy, pillow and onnxruntime.
"""

import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

FOLDER = Path(__file__).parent


def read_frames(names: list[str], num_frames: int, side: int) -> npt.NDArray[np.uint8]:
    """Evenly spread pictures as a batch of one clip: (1, num_frames, side, side, 3), RGB."""
    chosen = [names[(2 * i + 1) * len(names) // (2 * num_frames)] for i in range(num_frames)]
    frames = [
        np.asarray(Image.open(name).convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
        for name in chosen
    ]
    return np.stack(frames)[None]


def main() -> None:
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(
        str(FOLDER / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    frames = read_frames(sys.argv[1:], config["num_frames"], config["image_size"])
    probabilities = session.run(["probabilities"], {"frames": frames})[0][0]
    for i in np.argsort(-probabilities):
        print(f"{config['classes'][i]} {probabilities[i]:.4f}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main()
