"""What the stages after `sample` share about a clip's frames: their settings, their arrays.

Shape letters: T frames, S side of a square frame in pixels.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pipeline.common.params import Section

Sampling = Literal["uniform", "stride"]
Clock = Literal["frame", "time"]
Crop = Literal["face", "square", "none"]

Frames = npt.NDArray[np.uint8]
"""RGB frames (T, S, S, 3)."""


class FrameSettings(Section):
    """How a video becomes the frames of a clip; saved with every model that was trained on them.

    Attributes:
        num_frames: T, of the frames that the model reads at once.
        segments: How many samplings of T frames are stored, each from moments between those of the
            others: a training takes one of them at random, a test all of them.
        size: S, in pixels.
        sampling: Which T frames of the video; see `pipeline.video.sampling.sample_indices`.
        clock: Whether the frames are evenly spread over the number of frames or over the time. They
            are the same but for videos of a variable frame rate.
        crop: `face` keeps a square around the face that the clip is about, `square` the centre
            square of the displayed picture; `none` stretches it.
        margin: With crop `face`: side of the square over the longer side of the face's box.
        level: With crop `face`: turn the square with the line between the eyes.
        jpeg_quality: Of the stored frames.
    """

    num_frames: PositiveInt
    # A strip of them is one JPEG, which has at most 65,500 rows.
    segments: Annotated[int, Field(ge=1, le=8)]
    size: Annotated[int, Field(gt=0, multiple_of=8)]
    sampling: Sampling
    clock: Clock
    crop: Crop
    margin: Annotated[float, Field(ge=1, le=4)]
    level: bool
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]

    @model_validator(mode="after")
    def _strides_count_frames(self) -> Self:
        if self.sampling == "stride" and self.clock == "time":
            raise ValueError(
                "frames.sampling: stride counts frames; frames.clock: time goes with uniform"
            )
        return self

    @property
    def num_stored(self) -> int:
        """Frames of a clip on disk, in temporal order."""
        return self.num_frames * self.segments


OTHER_SHOT = -1
"""The number of a shot in which the person that a clip is about is not to be looked for."""


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


class FaceSettings(Section):
    """How faces are found and followed; saved with every model beside `FrameSettings`.

    Attributes:
        min_face_size: Smallest face, in pixels of the picture in which it is looked for: of a
            stored frame or, before cropping, of a copy with a longer side of 480.
        max_jump: Largest movement of a face between two sightings, in face sizes.
        max_gap: Most frames without a sighting after which a face is still the same.
        min_detected: Smallest share of the frames with a face in a clip that can be used.
    """

    min_face_size: PositiveInt
    max_jump: PositiveFloat
    max_gap: NonNegativeInt
    min_detected: Annotated[float, Field(ge=0, le=1)]

    def enough(self, track: FaceTrack) -> bool:
        """Whether the face is seen in enough of the frames."""
        return bool(track.mask.any() and track.mask.mean() >= self.min_detected)
