"""The faces of pictures by MTCNN, with its three networks in onnxruntime: no torch is needed.

What `pipeline.video.faces` finds with facenet-pytorch, by the same weights and thresholds. The
pictures of all scales and faces are means over whole pixels, taken out of sums over rectangles.

Shape letters: T pictures, H x W pixels, K boxes, S side of a network's input.

Source: Zhang et al., Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
Networks (arXiv 1604.02878); steps, roundings and thresholds are those of facenet-pytorch 2.6.0.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.common.frames import Frames
from pipeline.serving.onnx_model import open_session
from pipeline.video.mtcnn import Pyramid, detections
from pipeline.video.tracks import Detections

NETWORKS = ("pnet", "rnet", "onet")
# The name of their input.
PIXELS = "pixels"
# The networks' thresholds of a face's probability.
_THRESHOLDS = (0.6, 0.7, 0.7)
# Side of what the first network looks at, and its step, in pixels of a scaled picture.
_WINDOW, _STRIDE = 12, 2
# Overlaps above which the less probable box goes: within a scale, and within a picture.
_WITHIN_SCALE, _WITHIN_PICTURE = 0.5, 0.7
# Faces that a network takes at once.
_BATCH = 512

Array = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Sums = npt.NDArray[np.int32]


class _Found(NamedTuple):
    """K boxes of several pictures.

    Attributes:
        boxes: (K, 4) x1, y1, x2, y2 in pixels.
        scores: (K,) probabilities.
        pictures: (K,) numbers of the pictures.
    """

    boxes: Array
    scores: Array
    pictures: Integers

    def chosen(self, rows: npt.NDArray[Any]) -> "_Found":
        return _Found(*(values[rows] for values in self))


class OnnxFaceDetector:
    """See `pipeline.video.faces.FaceDetector`.

    Args:
        folder: Holds the three networks.
        min_face_size: In pixels.
        num_threads: Of each network; 0: as many as there are cores.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
    """

    def __init__(self, folder: Path, min_face_size: int, num_threads: int) -> None:
        self.pyramid = Pyramid.of(min_face_size)
        self.pnet, self.rnet, self.onet = (
            open_session(folder / f"{name}.onnx", num_threads) for name in NETWORKS
        )

    def detect(self, pictures: Frames) -> list[Detections]:
        """Every face in pictures (T, H, W, 3), the largest first.

        Raises:
            ValueError: No face of that size fits into a picture.
        """
        self.pyramid.check(pictures.shape[1])
        sums = _sums(pictures)
        found = self._proposals(sums)
        height, width = pictures.shape[1:3]
        for network in (self.rnet, self.onet):
            found, points = _refine(network, sums, found, height, width)
        areas = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(axis=1)
        faces = []
        for number in range(len(pictures)):
            rows = np.flatnonzero(found.pictures == number)
            rows = rows[np.argsort(areas[rows])[::-1]]
            faces.append(detections(found.boxes[rows], points[rows], found.scores[rows]))
        return faces

    def _proposals(self, sums: Sums) -> _Found:
        """Boxes by the first network, at all scales, made square."""
        height, width = sums.shape[1] - 1, sums.shape[2] - 1
        scale = _WINDOW / self.pyramid.smallest
        parts: list[_Found] = []
        shifts: list[Array] = []
        side = min(height, width) * scale
        while side >= _WINDOW:
            size = int(height * scale + 1), int(width * scale + 1)
            shift, scores = self.pnet.run(None, {PIXELS: _scaled(sums, size)})
            at = np.argwhere(scores[:, 1] >= _THRESHOLDS[0])
            rows = tuple(at.T)
            corner = _STRIDE * at[:, :0:-1].astype(np.float32)
            first = np.floor((corner + 1) / np.float32(scale))
            last = np.floor((corner + _WINDOW) / np.float32(scale))
            found = _Found(np.concatenate([first, last], axis=1), scores[:, 1][rows], at[:, 0])
            kept = _keep(found, _WITHIN_SCALE)
            parts.append(found.chosen(kept))
            shifts.append(shift.transpose(0, 2, 3, 1)[rows][kept])
            scale, side = scale * self.pyramid.step, side * self.pyramid.step
        if not parts:
            nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
            return _Found(*nothing)
        found = _Found(*(np.concatenate(values) for values in zip(*parts, strict=True)))
        kept = _keep(found, _WITHIN_PICTURE)
        found, shift = found.chosen(kept), np.concatenate(shifts)[kept]
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        return found._replace(boxes=_square(found.boxes + shift * np.tile(sides, 2)))


def _refine(
    network: Any, sums: Sums, found: _Found, height: int, width: int
) -> tuple[_Found, Array]:
    """What the second or third network makes of boxes; (K, 5, 2) points of the third one."""
    last = len(network.get_outputs()) == 3
    side, threshold = (48, _THRESHOLDS[2]) if last else (24, _THRESHOLDS[1])
    points = np.zeros((0, 5, 2), np.float32)
    whole = np.trunc(found.boxes).astype(np.int64)
    # The first pixel is number 1.
    whole[:, :2] = np.maximum(whole[:, :2], 1) - 1
    whole[:, 2:] = np.minimum(whole[:, 2:], [width, height])
    inside = np.flatnonzero((whole[:, 2:] > whole[:, :2]).all(axis=1))
    found, whole = found.chosen(inside), whole[inside]
    if not len(whole):
        return found, points
    faces = _cut(sums, found.pictures, whole, side)
    parts = [
        network.run(None, {PIXELS: faces[start : start + _BATCH]})
        for start in range(0, len(faces), _BATCH)
    ]
    said = [np.concatenate(values) for values in zip(*parts, strict=True)]
    scores = said[-1][:, 1]
    sure = scores > threshold
    found = found._replace(scores=scores).chosen(sure)
    shift = said[0][sure]
    if not last:
        kept = _keep(found, _WITHIN_PICTURE)
        found = found.chosen(kept)
        return found._replace(boxes=_square(_moved(found.boxes, shift[kept]))), points
    sides = found.boxes[:, 2:] - found.boxes[:, :2] + 1
    offsets = said[1][sure].reshape(-1, 2, 5).transpose(0, 2, 1)
    points = sides[:, None] * offsets + found.boxes[:, None, :2] - 1
    found = found._replace(boxes=_moved(found.boxes, shift))
    kept = _keep(found, _WITHIN_PICTURE, of_the_smaller=True)
    return found.chosen(kept), points[kept]


def _sums(pictures: Frames) -> Sums:
    """(T, H + 1, W + 1, 3): the sum of all pixels above and to the left of each corner."""
    count, height, width, channels = pictures.shape
    # Enough for 8 million pixels of 255.
    sums = np.zeros((count, height + 1, width + 1, channels), np.int32)
    np.cumsum(pictures, axis=1, out=sums[:, 1:, 1:])
    np.cumsum(sums[:, 1:, 1:], axis=2, out=sums[:, 1:, 1:])
    return sums


def _scaled(sums: Sums, size: tuple[int, int]) -> Array:
    """Whole pictures in that height and width, as a network takes them."""
    (top, bottom), (left, right) = (
        _cells(np.zeros(1, np.int64), np.array([length - 1]), count)
        for length, count in zip(sums.shape[1:3], size, strict=True)
    )
    rows = sums[:, bottom[0]] - sums[:, top[0]]
    cells = rows[:, :, right[0]] - rows[:, :, left[0]]
    return _normalised(cells, (bottom - top)[0][:, None] * (right - left)[0])


def _cut(sums: Sums, pictures: Integers, boxes: Integers, side: int) -> Array:
    """Boxes (K, 4) of whole pixels in that side, as a network takes them."""
    left, right = _cells(boxes[:, 0], boxes[:, 2], side)
    top, bottom = _cells(boxes[:, 1], boxes[:, 3], side)
    number = pictures[:, None, None]
    top, bottom = top[:, :, None], bottom[:, :, None]
    left, right = left[:, None, :], right[:, None, :]
    cells = (
        sums[number, bottom, right]
        - sums[number, top, right]
        - sums[number, bottom, left]
        + sums[number, top, left]
    )
    return _normalised(cells, (bottom - top) * (right - left))


def _cells(first: Integers, end: Integers, count: int) -> tuple[Integers, Integers]:
    """First pixels and ends (K, count) of as many cells of each length, which may share pixels."""
    number, length = np.arange(count), (end - first)[:, None]
    starts = number * length // count
    ends = -(-(number + 1) * length // count)
    return first[:, None] + starts, first[:, None] + ends


def _normalised(cells: Sums, num_pixels: Integers) -> Array:
    """Means of the cells (..., rows, columns, 3) as (..., 3, rows, columns), about -1 to 1."""
    means = (cells / num_pixels[..., None]).astype(np.float32)
    return np.moveaxis((means - np.float32(127.5)) * np.float32(0.0078125), -1, -3)


def _moved(boxes: Array, shift: Array) -> Array:
    return boxes + shift * np.tile(boxes[:, 2:] - boxes[:, :2] + 1, 2)


def _square(boxes: Array) -> Array:
    """Squares of the longer sides about the same centres."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longest = sides.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + sides * np.float32(0.5) - longest * np.float32(0.5)
    return np.concatenate([corner, corner + longest], axis=1)


def _keep(found: _Found, overlap: float, *, of_the_smaller: bool = False) -> Integers:
    """Rows in falling order of their scores, without those that overlap with a better one.

    Args:
        found: Boxes; those of different pictures do not overlap.
        overlap: The most that is allowed: intersection over union.
        of_the_smaller: Over the smaller box in place of the union, in whole pixels.
    """
    boxes = found.boxes.astype(np.float64)
    more = 1 if of_the_smaller else 0
    areas = (boxes[:, 2:] - boxes[:, :2] + more).prod(axis=1)
    order = np.argsort(-found.scores, kind="stable")
    kept = []
    while len(order):
        best, others = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[others, :2])
        high = np.minimum(boxes[best, 2:], boxes[others, 2:])
        shared = np.maximum(high - low + more, 0).prod(axis=1)
        smaller = np.minimum(areas[best], areas[others])
        whole = smaller if of_the_smaller else areas[best] + areas[others] - shared
        elsewhere = found.pictures[others] != found.pictures[best]
        order = others[elsewhere | (shared <= overlap * whole)]
    return np.array(kept, np.int64)
