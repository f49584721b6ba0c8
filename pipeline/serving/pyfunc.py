"""What MLflow loads: a model that answers for a table of videos.

Packed into every model that MLflow keeps (pipeline/tracking/packaging.py), with the modules that it
imports, and run there without the rest of the project.
"""

from pathlib import Path

import pandas as pd

from pipeline.serving.predictor import Predictor
from pipeline.video.container import UnusableVideo


class VideoModel:
    """A trained model as MLflow calls it.

    Args:
        weights: What `save_model` wrote, model.safetensors with model.json beside it.
    """

    def __init__(self, weights: Path) -> None:
        self.predictor = Predictor([weights], "cpu")

    def predict(self, videos: pd.DataFrame) -> pd.DataFrame:
        """The tables of all paths in the column `video`, one after the other.

        Beside the columns of `Predictor.predict` a row has its `video` and a `problem`: a video
        that cannot be used has a row with nothing but these two.
        """
        tables = [self._predict(path) for path in videos["video"]]
        columns = ["video", *self.predictor.columns(), "problem"]
        whole = pd.concat(tables, ignore_index=True).reindex(columns=columns)
        return whole.astype({"person": "Int64", "num_windows": "Int64"})

    def _predict(self, path: str) -> pd.DataFrame:
        try:
            table = self.predictor.predict(path).table
        except UnusableVideo as error:
            return pd.DataFrame({"video": [path], "problem": [str(error)]})
        return table.assign(video=path)


def _load_pyfunc(data_path: str) -> VideoModel:
    """What MLflow calls to load the model."""
    return VideoModel(Path(data_path))
