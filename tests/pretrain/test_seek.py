"""Random access gives the frames that a pass from the beginning gives."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from small_videos import frame_numbers, numbered_video

from pipeline.pretrain.seek import VideoTrack, read_moments
from pipeline.video.container import Deadline, UnusableVideo
from pipeline.video.pictures import Picture
from pipeline.video.streams import find_stream

NUM_FRAMES = 100
# Key frames every 30 frames and B-frames between; with open groups a key frame is followed by
# frames that are shown before it and refer to the group before.
KINDS = {
    "closed.mp4": ["-g", "30", "-bf", "3"],
    "open.mp4": ["-g", "30", "-bf", "3", "-x264-params", "open-gop=1:scenecut=0"],
    "one_key_frame.mp4": ["-g", "1000"],
    "matroska.mkv": ["-g", "30", "-bf", "3"],
    "transport.ts": ["-g", "30", "-bf", "3"],
    "program.mpg": ["-c:v", "mpeg2video", "-q:v", "2", "-g", "15", "-bf", "2"],
    "no_times.avi": ["-g", "30", "-bf", "2"],
}


def track_and_points(path: Path) -> tuple[VideoTrack, list[int]]:
    stream = find_stream(path, Deadline(path))
    track = VideoTrack(stream.number, stream.is_timed, stream.pixel_aspect)
    return track, list(stream.timeline.points)


def numbers(pictures: list[Picture]) -> list[int]:
    return frame_numbers(np.stack(pictures))


@pytest.mark.parametrize("name", KINDS)
def test_frames_from_anywhere_are_those_that_are_asked_for(name: str, tmp_path: Path) -> None:
    path = numbered_video(tmp_path / name, NUM_FRAMES, *KINDS[name])
    track, points = track_and_points(path)
    assert len(points) == NUM_FRAMES
    for wanted in ([0, 1], [29, 30, 31], [28, 33, 61], [59, 60], [97, 98, 99], [42, 42]):
        pictures = read_moments(path, track, [points[i] for i in wanted])
        assert {picture.shape for picture in pictures} == {(64, 96, 3)}
        assert numbers(pictures) == wanted


def test_a_file_that_says_no_times_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "clip.avi", 20, *KINDS["no_times.avi"])
    track, points = track_and_points(path)
    assert not track.is_timed
    assert points == list(range(20))


def test_what_is_damaged_in_the_middle_is_refused_and_the_rest_is_read(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "clip.mp4", NUM_FRAMES, "-g", "10", "-bf", "0")
    track, points = track_and_points(path)
    content = bytearray(path.read_bytes())
    # Somewhere in the frames 40 to 49; equal frames are few bytes each.
    start = content.index(b"mdat") + 4
    before = read_moments(path, track, points[5:7])
    middle = start + (len(content) - start) // 2
    content[middle - 400 : middle + 400] = bytes(800)
    path.write_bytes(content)
    refused = []
    for i in range(0, NUM_FRAMES, 10):
        try:
            assert numbers(read_moments(path, track, points[i : i + 2])) == [i, i + 1]
        except UnusableVideo as error:
            refused.append(str(error))
    assert 1 <= len(refused) <= 5
    assert all(path.name in message for message in refused)
    assert np.array_equal(read_moments(path, track, points[5:7]), before)


def test_pixels_that_are_not_square_are_shown_as_they_are_meant(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "wide.mp4", 4, "-aspect", "3:1")
    track, points = track_and_points(path)
    assert track.pixel_aspect == Fraction(2)
    (picture,) = read_moments(path, track, points[:1])
    assert picture.shape == (64, 192, 3)
