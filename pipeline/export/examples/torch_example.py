"""What does this face show? Answers by the model in this file's folder, as a torch module.

    python example.py face1.jpg face2.jpg ...

Takes pictures of one face in the order of time, square and cut close around the face (model.json,
`metadata.frames`, says how the training clips were cut). requirements.txt says what it needs.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.mtcae.saved import load_model
from pipeline.mtcae.view_mean import ViewMean

FOLDER = Path(__file__).parent


def read_frames(names: list[str], num_frames: int, side: int) -> Tensor:
    """Evenly spread pictures as a batch of one clip: (1, num_frames, 3, side, side), uint8 RGB."""
    chosen = [names[(2 * i + 1) * len(names) // (2 * num_frames)] for i in range(num_frames)]
    frames = [
        np.asarray(Image.open(name).convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
        for name in chosen
    ]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None]


@torch.no_grad()
def main() -> None:
    model, metadata = load_model(FOLDER / "model.safetensors")
    # As the model was tested: the mean over its views of a clip.
    views = ViewMean(
        model,
        num_frames=model.encoder.num_frames,
        num_crops=metadata["recipes"]["evaluation"]["crops"],
    ).eval()
    num_frames = metadata["frames"]["num_frames"] * metadata["frames"]["segments"]
    frames = read_frames(sys.argv[1:], num_frames, model.encoder.size.image_size)
    probabilities = views(frames).logits.softmax(dim=1)[0]
    for i in probabilities.argsort(descending=True):
        print(f"{metadata['classes'][i]} {probabilities[i]:.4f}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main()
