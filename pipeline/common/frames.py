"""What the stages after `sample` share about a clip's frames: their settings, their arrays.

Shape letters: T frames, S side of a square frame in pixels.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt

from pipeline.common.params import Section

Sampling = Literal["uniform", "stride"]
Crop = Literal["square", "none"]

Frames = npt.NDArray[np.uint8]
"""RGB frames (T, S, S, 3)."""


class FrameSettings(Section):
    """How a video becomes the frames of a clip; saved with every model that was trained on them.

    Attributes:
        num_frames: T.
        size: S, in pixels.
        sampling: Which T frames of the video; see `pipeline.video.decode.sample_indices`.
        crop: `square` keeps the centre square of the displayed picture; `none` stretches it.
        jpeg_quality: Of the stored frames.
    """

    num_frames: PositiveInt
    size: Annotated[int, Field(gt=0, multiple_of=8)]
    sampling: Sampling
    crop: Crop
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]


@dataclass(frozen=True)
class FaceTrack:
    """One person over a clip.

    Attributes:
        boxes: (T, 4) pixel x1, y1, x2, y2, origin at the top left; zero where `mask` is false.
        points: (T, 5, 2) pixel x, y of left eye, right eye, nose, left and right mouth corner (as
            seen in the picture); zero where `mask` is false.
        mask: (T,) whether the face was found in the frame.
    """

    boxes: npt.NDArray[np.float32]
    points: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
