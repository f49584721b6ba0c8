import pytest

from pipeline.serving.windows import WindowChoice, Windows, place_windows


def test_a_video_of_up_to_one_and_a_half_windows_is_one_window() -> None:
    for seconds in (0.0, 0.4, 3.0, 4.4):
        assert place_windows(seconds, WindowChoice(3, 0.75), 16) == Windows(16, 16, [0])


def test_windows_are_as_long_as_asked_for_and_the_last_one_ends_with_the_film() -> None:
    # 30 s in windows of 3 s of 16 points: 160 points, every fourth of them begins a window.
    windows = place_windows(30, WindowChoice(3, 0.75), 16)
    assert windows.num_points == 160
    assert windows.starts == list(range(0, 145, 4))
    # 10 s: 53.3 points are 53, so that a window has 3.02 s; the last hop is shorter.
    windows = place_windows(10, WindowChoice(3, 0.75), 16)
    assert windows.num_points == 53
    assert windows.starts == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 37]


def test_a_hop_is_at_least_a_point_and_leaves_one_in_common() -> None:
    assert place_windows(6, WindowChoice(3, 0.01), 4).starts == [0, 1, 2, 3, 4]
    assert place_windows(6, WindowChoice(3, 2.99), 4).starts == [0, 3, 4]


@pytest.mark.parametrize("hop", [0.0, 3.0, 5.0, float("nan")])
def test_windows_that_do_not_overlap_are_refused(hop: float) -> None:
    with pytest.raises(ValueError, match="do not overlap"):
        WindowChoice(3, hop)
