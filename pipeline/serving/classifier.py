"""A saved model on its own: from the paths of videos to predictions.

Packed into every model that MLflow keeps (pipeline/tracking/packaging.py), and run there without
the rest of the project.
"""

from pathlib import Path

import pandas as pd
import torch

from pipeline.common.frames import FaceSettings, FrameSettings
from pipeline.mtcae.saved import load_model
from pipeline.mtcae.view_mean import ViewMean
from pipeline.store.strips import decode_strip, encode_strip
from pipeline.video.container import UnusableVideo
from pipeline.video.reader import FrameReader


class VideoClassifier:
    """A model that reads a video as the clips were read that it was trained on.

    Args:
        weights: What `save_model` wrote, model.safetensors with model.json beside it.
    """

    def __init__(self, weights: Path) -> None:
        model, metadata = load_model(weights)
        self.image_size = model.encoder.size.image_size
        # As its test asked it.
        self.model = ViewMean(
            model,
            num_frames=model.encoder.num_frames,
            num_crops=metadata["recipes"]["evaluation"]["crops"],
        ).eval()
        self.classes: list[str] = metadata["classes"]
        self.reader = FrameReader(
            FrameSettings.model_validate(metadata["frames"]),
            FaceSettings.model_validate(metadata["faces"]),
        )

    def predict(self, videos: pd.DataFrame) -> pd.DataFrame:
        """A row for each path in the column `video`: `label`, `probability_<class>`, `problem`.

        A video that cannot be used has a `problem` and nothing else.
        """
        rows: list[dict[str, str | float]] = []
        for path in videos["video"]:
            try:
                probabilities = self._probabilities(Path(path))
            except UnusableVideo as error:
                rows.append({"problem": str(error)})
                continue
            label = self.classes[int(probabilities.argmax())]
            named = zip(self.classes, probabilities.tolist(), strict=True)
            rows.append({"label": label, **{f"probability_{name}": p for name, p in named}})
        columns = ["label", *(f"probability_{name}" for name in self.classes), "problem"]
        return pd.DataFrame(rows, columns=columns, index=videos.index)

    @torch.no_grad()
    def _probabilities(self, path: Path) -> torch.Tensor:
        """(C,) of one video."""
        video = self.reader.read(path)
        # In training every clip has been a JPEG, which leaves its traces.
        strip = encode_strip(video.pictures, self.reader.frames.jpeg_quality)
        frames = torch.from_numpy(decode_strip(strip, self.image_size))
        logits: torch.Tensor = self.model(frames.permute(0, 3, 1, 2)[None]).logits
        return logits[0].softmax(dim=0)


def _load_pyfunc(data_path: str) -> VideoClassifier:
    """What MLflow calls to load the model."""
    return VideoClassifier(Path(data_path))
