"""What models of single faces add to the table of a video: a picture of each person and moment.

The predictor knows such models by this alone, so that a packed model needs none of their code.

Shape letters: B faces, K numbers of a face, H x W pixels of a picture.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


class FaceColumns(NamedTuple):
    """Of the table.

    Attributes:
        names: K columns, none of which the table has otherwise.
        classes: What the number in the first of them, a class, stands for.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]


class Sighting(NamedTuple):
    """A face in a picture.

    Attributes:
        picture: (H, W, 3), RGB.
        points: (5, 2) eyes, nose and mouth corners by the detector, in pixels.
    """

    picture: npt.NDArray[np.uint8]
    points: npt.NDArray[np.floating]


class FaceModels(Protocol):
    """Models that answer together about single faces.

    Attributes:
        columns: K of them.
    """

    @property
    def columns(self) -> FaceColumns: ...

    def ask(self, sightings: Sequence[Sighting], /) -> Array:
        """What is said of B faces, (B, K)."""
        ...


class NoFaceModels:
    """Nothing is said of single faces."""

    columns = FaceColumns((), ())

    def ask(self, sightings: Sequence[Sighting], /) -> Array:
        return np.zeros((len(sightings), 0), np.float32)


NO_FACE_MODELS = NoFaceModels()
