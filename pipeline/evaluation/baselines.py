"""What a structure has to beat: the majority class, and a linear model on aligned faces.

Shape letters: N clips, T frames, S side of a frame and A of an aligned face in pixels, C classes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from skimage.transform import SimilarityTransform
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.common.frames import FaceTrack, Frames
from pipeline.scores.metrics import Labels

LINEAR, MAJORITY, CHANCE = "linear model", "majority class", "chance"

ALIGNED_SIDE = 24
# Where an aligned face has its eyes, nose and mouth corners, as fractions of its side.
_PLACES = np.array([[0.31, 0.46], [0.69, 0.46], [0.5, 0.64], [0.35, 0.82], [0.65, 0.82]])
# Pixels that are averaged to one, across and down.
_FINER = 4

Floats = npt.NDArray[np.float64]


def aligned_face(frames: Frames, track: FaceTrack) -> npt.NDArray[np.float32]:
    """The grey pixels (T, A, A), in [0, 1], of a face whose five landmarks are moved into place.

    By the similarity that fits the landmarks best. A frame without a known face repeats the nearest
    one that has one.

    Args:
        frames: (T, S, S, 3)
        track: A face that is known in a frame at least, in pixels.
    """
    known = np.flatnonzero(track.mask)
    nearest = known[np.abs(np.arange(len(frames))[:, None] - known).argmin(axis=1)]
    faces = {int(t): _align(frames[t], track.points[t].astype(np.float64)) for t in known}
    return np.stack([faces[int(t)] for t in nearest])


def _align(
    frame: npt.NDArray[np.uint8], points: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    side = ALIGNED_SIDE * _FINER
    to_frame = SimilarityTransform.from_estimate(_PLACES * side, points)
    picture = Image.fromarray(frame).convert("L")
    # Pillow counts from corners of pixels, as the landmarks do.
    fine = picture.transform(
        (side, side),
        Image.Transform.AFFINE,
        to_frame.params[:2].ravel().tolist(),
        Image.Resampling.BILINEAR,
    )
    blocks = np.asarray(fine, np.float32).reshape(ALIGNED_SIDE, _FINER, ALIGNED_SIDE, _FINER)
    return np.asarray(blocks.mean(axis=(1, 3)) / 255, np.float32)


def linear_probabilities(
    faces: npt.NDArray[np.float32],
    labels: Labels,
    test_faces: npt.NDArray[np.float32],
    num_classes: int,
) -> Floats:
    """(M, C) probabilities of M test clips, by logistic regression on all pixels of all frames.

    Pixels are standardised over the training clips; all else is as scikit-learn has it, and nothing
    is chosen on validation or test subjects.

    Args:
        faces: (N, T, A, A) of the training clips.
        labels: (N,) class indices, of two classes at least.
        test_faces: (M, T, A, A)
        num_classes: C; one without a training clip has the probability 0.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(faces.reshape(len(faces), -1), labels)
    probabilities = np.zeros((len(test_faces), num_classes))
    probabilities[:, model.classes_] = model.predict_proba(test_faces.reshape(len(test_faces), -1))
    return probabilities


def majority_probabilities(labels: Labels, num_test: int, num_classes: int) -> Floats:
    """(M, C) the classes' shares of the training clips, the same for every test clip."""
    shares = np.bincount(labels, minlength=num_classes) / len(labels)
    return np.tile(shares, (num_test, 1))


def predictions_of(
    baseline: str,
    fold: int,
    test: pd.DataFrame,
    probabilities: Floats,
    classes: Sequence[str],
) -> pd.DataFrame:
    """A row per test clip, with the columns of a structure's predictions that there are.

    Args:
        baseline: Its name.
        fold: Its number.
        test: Columns `clip`, `subject` and `actual` of M clips.
        probabilities: (M, C)
        classes: C names.
    """
    table = test.assign(
        baseline=baseline,
        fold=fold,
        predicted=[classes[i] for i in probabilities.argmax(axis=1)],
        box_iou=np.nan,
        landmark_error=np.nan,
        interocular_error=np.nan,
    )
    table[[f"probability_{name}" for name in classes]] = probabilities
    return table.sort_values("clip", ignore_index=True)
