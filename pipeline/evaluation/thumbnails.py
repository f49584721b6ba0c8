"""Small pictures of a clip with the face that was found and the face that was predicted.

Shape letters: T frames, P side of a small picture in pixels.
"""

import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

NUM_PICTURES = 8
PICTURE_SIZE = 112  # pixels; half a stored frame, which a JPEG decodes to at no cost
# Neither is a colour of skin, and few people take one for the other.
FOUND_COLOUR = "#00e5ff"
PREDICTED_COLOUR = "#ff2bd6"
_QUALITY = 85

Array = npt.NDArray[np.floating]


class Marks(NamedTuple):
    """One face over a clip.

    Attributes:
        boxes: (T, 4) x1, y1, x2, y2 as fractions of the frame; what has no area is not drawn.
        points: (T, 5, 2) x, y as fractions of the frame.
        mask: (T,) frames in which there is something to draw.
    """

    boxes: Array
    points: Array
    mask: npt.NDArray[np.bool_]


def predicted_marks(boxes: Array, points: Array) -> Marks:
    """The marks in a row of the predictions' table.

    Args:
        boxes: (T * 4,) x, y, width, height as fractions of the frame; empty without a box head.
        points: (T * 10,) x, y as fractions of the frame; empty likewise.
    """
    rectangles = boxes.reshape(-1, 4)
    corners = np.hstack([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]])
    return Marks(corners, points.reshape(-1, 5, 2), np.ones(len(corners), bool))


def clip_pictures(frames: npt.NDArray[np.uint8], found: Marks, predicted: Marks) -> list[bytes]:
    """Up to 8 of a clip's frames in temporal order, as JPEG, with both faces drawn.

    The found face has filled points, the predicted one crosses; either may be empty.

    Args:
        frames: (T, P, P, 3) RGB.
        found: Drawn below.
        predicted: Drawn on top.
    """
    count = min(NUM_PICTURES, len(frames))
    pictures = []
    for i in range(count):
        t = (2 * i + 1) * len(frames) // (2 * count)
        picture = Image.fromarray(frames[t])
        _draw(picture, found, t, FOUND_COLOUR, crosses=False)
        _draw(picture, predicted, t, PREDICTED_COLOUR, crosses=True)
        stream = io.BytesIO()
        # Coloured lines one pixel wide would not survive chroma subsampling.
        picture.save(stream, format="JPEG", quality=_QUALITY, subsampling=0)
        pictures.append(stream.getvalue())
    return pictures


def _draw(picture: Image.Image, marks: Marks, t: int, colour: str, *, crosses: bool) -> None:
    if t >= len(marks.mask) or not marks.mask[t]:
        return
    draw = ImageDraw.Draw(picture)
    x1, y1, x2, y2 = (float(edge) * picture.width for edge in marks.boxes[t])
    if x1 < x2 and y1 < y2:
        draw.rectangle((x1, y1, x2, y2), outline=colour)
    for x, y in (marks.points[t] * picture.width).tolist():
        if crosses:
            draw.line((x - 3, y, x + 3, y), fill=colour)
            draw.line((x, y - 3, x, y + 3), fill=colour)
        else:
            draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=colour)
