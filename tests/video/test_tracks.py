import numpy as np

from pipeline.common.frames import FaceTrack
from pipeline.video.tracks import Detections, main_face


def faces(*centres_and_sizes: tuple[float, float, float], score: float = 0.99) -> Detections:
    """Square faces given as centre x, centre y, side; the five points all lie in the centre."""
    found = np.array(centres_and_sizes, np.float32).reshape(-1, 3)
    centres, half = found[:, :2], found[:, 2:] / 2
    return Detections(
        np.hstack([centres - half, centres + half]),
        np.repeat(centres[:, None], 5, axis=1),
        np.full(len(found), score, np.float32),
    )


def follow(*frames: Detections, shots: list[int] | None = None) -> FaceTrack:
    return main_face(frames, shots or [0] * len(frames), max_jump=1.5, max_gap=2)


def test_the_larger_face_is_followed_though_the_order_of_detections_changes() -> None:
    large, small = (60.0, 60.0, 40.0), (150.0, 60.0, 25.0)
    track = follow(faces(large, small), faces(small, large), faces(large, small))
    assert track.mask.all()
    assert (track.boxes == [40, 40, 80, 80]).all()
    assert (track.points == 60).all()


def test_a_person_who_leaves_is_not_replaced_by_somebody_else() -> None:
    track = follow(*[faces((60, 60, 40), (150, 60, 40))] * 3, *[faces((150, 60, 40))] * 2)
    assert track.mask.tolist() == [True] * 5
    assert (track.boxes[:, 0] == 130).all()
    gone = follow(*[faces((60, 60, 60), (150, 60, 30))] * 4, *[faces((150, 60, 30))] * 2)
    assert gone.mask.tolist() == [True] * 4 + [False] * 2
    assert not gone.boxes[4:].any()


def test_a_short_loss_is_bridged_and_a_long_one_is_not() -> None:
    face, nobody = faces((60, 60, 40)), faces()
    assert follow(face, face, nobody, nobody, face).mask.tolist() == [
        True,
        True,
        False,
        False,
        True,
    ]
    long = follow(face, face, nobody, nobody, nobody, face)
    assert long.mask.tolist() == [True, True, False, False, False, False]


def test_people_who_cross_keep_their_identity() -> None:
    right = [faces((40 + 10 * t, 60, 40), (120 - 10 * t, 90, 30)) for t in range(8)]
    track = follow(*right)
    assert track.mask.all()
    assert track.boxes[:, 0].tolist() == [20.0 + 10 * t for t in range(8)]


def test_a_face_never_becomes_one_of_twice_its_size() -> None:
    track = follow(faces((60, 60, 30)), faces((60, 60, 70)), faces((60, 60, 70)))
    assert track.mask.tolist() == [False, True, True]


def test_certain_faces_outweigh_doubtful_ones() -> None:
    sure, doubtful = faces((60, 60, 40)), faces((150, 60, 44), score=0.5)
    both = Detections(*(np.concatenate(pair) for pair in zip(sure, doubtful, strict=True)))
    assert (follow(both, both).boxes[:, 0] == 40).all()


def test_nobody_is_followed_over_a_cut_however_near_the_next_face_is() -> None:
    face, larger = faces((60, 60, 40)), faces((60, 60, 50))
    track = follow(face, face, face, face, face, larger, larger, shots=[0, 0, 0, 0, 0, 1, 1])
    assert track.mask.tolist() == [True] * 5 + [False] * 2
    # Nor when nobody is seen next to it.
    track = follow(face, faces(), larger, larger, shots=[0, 0, 1, 1])
    assert track.mask.tolist() == [False, False, True, True]


def test_a_face_of_another_shot_than_the_clips_is_passed_over() -> None:
    small, large = faces((60, 60, 40)), faces((60, 60, 60))
    track = follow(small, large, large, large, shots=[2, -1, -1, -1])
    assert track.mask.tolist() == [True, False, False, False]


def test_a_clip_without_faces_has_an_empty_mask() -> None:
    track = follow(faces(), faces())
    assert not track.mask.any()
    assert track.boxes.shape == (2, 4)
    assert track.points.shape == (2, 5, 2)
