"""People who walk along lines; the points of a window are a second apart."""

import numpy as np
from small import FACES

from pipeline.serving.people import People
from pipeline.video.tracks import Detections


def detections(*centres: tuple[float, float], side: float = 40) -> Detections:
    boxes = [(x - side / 2, y - side / 2, x + side / 2, y + side / 2) for x, y in centres]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.zeros((len(boxes), 5, 2), np.float32),
        np.ones(len(boxes), np.float32),
    )


def numbers(people: People, points: list[Detections], size: int, hop: int) -> list[list[int]]:
    """Of the people of each window, sorted."""
    return [
        sorted(
            person.number
            for person in people.follow(start, points[start : start + size], [0] * size)
        )
        for start in range(0, len(points) - size + 1, hop)
    ]


def test_two_people_who_pass_one_another_keep_their_numbers() -> None:
    # One walks to the right, the other, 60 pixels below, to the left.
    points = [detections((20 * t, 100), (600 - 20 * t, 160)) for t in range(30)]
    people = People(FACES)
    assert numbers(people, points, 8, 2) == [[1, 2]] * 12
    last = people.follow(22, points[22:], [0] * 8)
    (right,) = [person for person in last if person.track.boxes[0, 1] < 100]
    assert right.number == 1
    assert all(person.own.all() for person in last)


def test_somebody_who_comes_back_soon_is_the_same_and_later_a_new_one() -> None:
    here, nobody = detections((100, 100)), detections()
    soon = [here] * 8 + [nobody] * 4 + [here] * 8
    assert numbers(People(FACES), soon, 8, 2) == [[1]] * 7
    late = [here] * 8 + [nobody] * 12 + [here] * 8
    found = numbers(People(FACES), late, 8, 2)
    assert found == [[1]] * 3 + [[]] * 5 + [[2]] * 3


def test_a_person_who_is_seen_too_seldom_in_a_window_is_left_out() -> None:
    # FACES asks for 30 %: two points of eight are too few, three are enough.
    window = [detections((100, 100))] * 2 + [detections()] * 6
    assert People(FACES).follow(0, window, [0] * 8) == []
    window = [detections((100, 100))] * 3 + [detections()] * 5
    (person,) = People(FACES).follow(0, window, [0] * 8)
    assert person.own.tolist() == [True] * 3 + [False] * 5


def test_the_most_prominent_person_comes_first() -> None:
    small, large = detections((50, 50)), detections((300, 90), side=90)
    both = Detections(*(np.concatenate(pair) for pair in zip(small, large, strict=True)))
    window = [both] * 8
    first, second = People(FACES).follow(0, window, [0] * 8)
    assert (first.number, second.number) == (1, 2)
    assert np.ptp(first.track.boxes[0, [0, 2]]) == 90


def test_a_face_belongs_to_one_person_only() -> None:
    # A second face appears late where the first one was; in the second window it is nearer.
    points = [detections((100, 100))] * 4 + [detections((100, 100), (400, 100))] * 8
    people = People(FACES)
    owners: dict[tuple[int, float], set[int]] = {}
    for start in range(0, 5, 2):
        for person in people.follow(start, points[start : start + 8], [0] * 8):
            for i in np.flatnonzero(person.own):
                key = (start + int(i), float(person.track.boxes[i, 0]))
                owners.setdefault(key, set()).add(person.number)
    assert owners
    assert all(len(of_face) == 1 for of_face in owners.values())


def test_nobody_is_followed_over_a_cut() -> None:
    # The face is at the same place, but the picture is another one from point 8 on.
    points, shots = [detections((100, 100))] * 16, [0] * 8 + [1] * 8
    people = People(FACES)
    found = [
        people.follow(start, points[start : start + 8], shots[start : start + 8])
        for start in (0, 4, 8)
    ]
    assert [[person.number for person in window] for window in found] == [[1], [1, 2], [2]]
    assert found[1][0].track.mask.tolist() == [True] * 4 + [False] * 4
