"""Everybody in a film, told apart from one window to the next.

Shape letters: P points of a window.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.common.frames import FaceSettings, FaceTrack
from pipeline.video.tracks import Detections, main_face

_Sighting = tuple[int, int]
"""A point of the film, and the row of a face among its detections."""


class Person(NamedTuple):
    """Somebody in a window.

    Attributes:
        number: From 1 in the order of appearance.
        track: Where the face is.
        own: (P,) at which points the face is this person's, and not one of somebody else with whom
            it was mixed up here, as windows before have it.
    """

    number: int
    track: FaceTrack
    own: npt.NDArray[np.bool_]


class People:
    """Follows people through a film.

    In a window the most prominent person is found as in training; then, without that face, the
    next, and so on. A person of the window before is who has most faces in common with it. So
    somebody who is out of sight for about a window comes back under a new number: faces are
    followed here, and not recognised.

    Args:
        settings: How a face is followed, and in how much of a window it must be seen.
    """

    def __init__(self, settings: FaceSettings) -> None:
        self.settings = settings
        self._number = 0
        self._seen: dict[_Sighting, int] = {}

    def follow(
        self, first: int, window: Sequence[Detections], shots: Sequence[int]
    ) -> list[Person]:
        """The people of a window, the most prominent one first.

        Args:
            first: The window's first point in the film; the windows come in order.
            window: Detections of its P points.
            shots: Which shot each point is of; nobody is followed from one into another.
        """
        found: list[tuple[FaceTrack, list[_Sighting]]] = []
        remaining = list(window)
        while True:
            track = main_face(
                remaining, shots, max_jump=self.settings.max_jump, max_gap=self.settings.max_gap
            )
            if not track.mask.any():
                break
            sightings = []
            for i in map(int, np.flatnonzero(track.mask)):
                # Rows of the whole window, where the same face has the same box.
                sightings.append((first + i, _row(window[i], track.boxes[i])))
                remaining[i] = _without(remaining[i], _row(remaining[i], track.boxes[i]))
            if self.settings.enough(track):
                found.append((track, sightings))
        numbers = self._numbers([sightings for _, sightings in found])
        self._seen = {at: who for at, who in self._seen.items() if at[0] >= first}
        people = []
        for number, (track, sightings) in zip(numbers, found, strict=True):
            own = np.zeros_like(track.mask)
            for sighting in sightings:
                owner = self._seen.setdefault(sighting, number)
                own[sighting[0] - first] = owner == number
            people.append(Person(number, track, own))
        return people

    def _numbers(self, found: Sequence[Sequence[_Sighting]]) -> list[int]:
        """Of the people with these sightings; who has most in common with one is that one."""
        shared = Counter(
            (i, self._seen[sighting])
            for i, sightings in enumerate(found)
            for sighting in sightings
            if sighting in self._seen
        )
        numbers: dict[int, int] = {}
        for (i, number), _ in shared.most_common():
            if i not in numbers and number not in numbers.values():
                numbers[i] = number
        for i in range(len(found)):
            if i not in numbers:
                self._number += 1
                numbers[i] = self._number
        return [numbers[i] for i in range(len(found))]


def _row(found: Detections, box: npt.NDArray[np.float32]) -> int:
    return int(np.flatnonzero((found.boxes == box).all(axis=1))[0])


def _without(found: Detections, row: int) -> Detections:
    return Detections(*(np.delete(values, row, axis=0) for values in found))
