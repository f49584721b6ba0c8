import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def predictions() -> pd.DataFrame:
    """Fold 1: recalls 2/3 and 1, accuracy 3/4. Fold 2: recalls 0 and 1, accuracy 1/2.

    Every answer is given with a probability of 0.75.
    """
    return pd.DataFrame(
        {
            "fold": [1, 1, 1, 1, 2, 2],
            "clip": ["a0", "a1", "b0", "b1", "z0", "z1"],
            "subject": ["Ann", "Ann", "Bob", "Bob", "Zoë", "Zoë"],
            "actual": ["angry", "angry", "angry", "sad", "angry", "sad"],
            "predicted": ["angry", "angry", "sad", "sad", "sad", "sad"],
            "box_iou": [0.5, 0.6, 0.7, np.nan, 0.8, 0.9],
            "landmark_error": [0.1, 0.2, 0.3, np.nan, 0.1, 0.3],
            "interocular_error": [0.2, 0.4, 0.6, np.nan, np.nan, 0.8],
            "probability_angry": [0.75, 0.75, 0.25, 0.25, 0.25, 0.25],
            "probability_sad": [0.25, 0.25, 0.75, 0.75, 0.75, 0.75],
        }
    )


@pytest.fixture
def with_best_epochs(predictions: pd.DataFrame) -> pd.DataFrame:
    """Fold 1: the best epoch on test is right of all. Fold 2: it is right of the angry clip only.

    Pooled, all four angry clips are right and one of two sad ones: UAR 3/4, WAR 5/6.
    """
    best = ["angry", "angry", "angry", "sad", "angry", "angry"]
    return predictions.assign(predicted_optimistic=best)


@pytest.fixture
def without_boxes(predictions: pd.DataFrame) -> pd.DataFrame:
    """What stl predicts."""
    return predictions.assign(box_iou=np.nan, landmark_error=np.nan, interocular_error=np.nan)
