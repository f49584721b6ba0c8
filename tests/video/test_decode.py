import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import FRAMES
from small_videos import FFMPEG, frame_numbers, numbered_video, read, refusal, render, sample

from pipeline.common.frames import FrameSettings
from pipeline.video.sampling import frames_on_screen, sample_indices
from pipeline.video.streams import Timeline


def test_indices_are_the_centres_of_equal_segments() -> None:
    assert sample_indices(32) == list(range(1, 32, 2))
    assert sample_indices(16) == list(range(16))
    assert sample_indices(4, num_samples=8) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_stride_drops_the_tail_as_the_notebook_does() -> None:
    assert sample_indices(47, sampling="stride") == list(range(0, 31, 2))


@given(st.integers(1, 5000), st.integers(1, 32), st.sampled_from(["uniform", "stride"]))
def test_indices_are_ordered_and_inside_the_video(
    num_frames: int, num_samples: int, sampling: str
) -> None:
    indices = sample_indices(num_frames, num_samples, sampling)  # type: ignore[arg-type]
    assert len(indices) == num_samples
    assert indices == sorted(indices)
    assert indices[0] >= 0
    assert indices[-1] < num_frames


@given(
    st.integers(1, 500), st.integers(1, 32), st.integers(-900, 900), st.sampled_from([1, 40, 512])
)
def test_at_an_even_rate_time_and_frames_agree(
    num_frames: int, num_samples: int, first: int, step: int
) -> None:
    points = range(first, first + num_frames * step, step)
    timeline = Timeline(Fraction(1, 1000), points, first + num_frames * step)
    assert frames_on_screen(timeline, num_samples) == sample_indices(num_frames, num_samples)


def test_a_stride_of_time_is_refused() -> None:
    with pytest.raises(ValueError, match=r"frames\.clock: time goes with uniform"):
        FrameSettings.model_validate(FRAMES.model_dump() | {"sampling": "stride", "clock": "time"})


def test_several_samplings_of_a_video_are_stored_in_the_order_of_time(tmp_path: Path) -> None:
    video = numbered_video(tmp_path / "v.mp4", 64)
    assert frame_numbers(read(video, num_frames=8)) == list(range(4, 64, 8))
    stored = read(video, num_frames=8, segments=2)
    assert frame_numbers(stored) == list(range(2, 64, 4))
    # Each of the two is spread over the whole video.
    assert frame_numbers(stored[0::2]) == list(range(2, 64, 8))
    assert frame_numbers(stored[1::2]) == list(range(6, 64, 8))


def test_a_video_without_frames_cannot_be_sampled() -> None:
    with pytest.raises(ValueError, match="without frames"):
        sample_indices(0)


@pytest.mark.parametrize("num_frames", [1, 5, 16, 33, 100])
def test_exactly_the_sampled_frames_come_out(tmp_path: Path, num_frames: int) -> None:
    frames = read(numbered_video(tmp_path / "numbered.mp4", num_frames))
    assert frames.shape == (16, 32, 32, 3)
    assert frame_numbers(frames) == sample_indices(num_frames)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv"])
@pytest.mark.parametrize("num_frames", [1, 20, 100])
def test_a_video_tells_its_frames_and_its_length(
    tmp_path: Path, num_frames: int, suffix: str
) -> None:
    video = sample(numbered_video(tmp_path / f"numbered.{suffix}", num_frames))
    assert video.num_frames == num_frames
    # 25 frames a second; ffmpeg rounds to hundredths.
    assert video.seconds == pytest.approx(num_frames / 25, abs=0.011)


def test_a_length_of_minutes_is_given_in_seconds(tmp_path: Path) -> None:
    source = "color=gray:s=16x16:r=1:d=75"
    video = sample(render(tmp_path / "long.mp4", "-f", "lavfi", "-i", source))
    assert (video.num_frames, video.seconds) == (75, 75.0)


def test_a_length_that_the_file_does_not_declare_is_0(tmp_path: Path) -> None:
    # Matroska that is written to a pipe cannot go back to fill in its length.
    arguments = ["-f", "lavfi", "-i", "testsrc=s=64x64:r=25:d=2", "-f", "matroska", "pipe:"]
    done = subprocess.run([FFMPEG, "-v", "error", *arguments], capture_output=True, check=True)
    (tmp_path / "piped.mkv").write_bytes(done.stdout)
    video = sample(tmp_path / "piped.mkv")
    assert (video.num_frames, video.seconds) == (50, 0.0)


def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path: Path) -> None:
    whole = numbered_video(tmp_path / "whole.mp4", 60, "-g", "60")
    # Cut at frame 30 without decoding: the packets before it stay in the file, hidden by an edit
    # list.
    cut = render(tmp_path / "cut.mp4", "-ss", "1.2", "-i", str(whole), "-c", "copy")
    video = sample(cut)
    assert frame_numbers(video.pictures) == [30 + i for i in sample_indices(30)]
    assert video.num_frames == 30
    assert video.seconds == pytest.approx(30 / 25, abs=0.05)


def test_the_centre_square_is_kept(tmp_path: Path) -> None:
    # Left third black, middle third white, right third black: the square is almost all white.
    source = "color=black:s=192x64:r=5:d=1,drawbox=x=64:y=0:w=64:h=64:color=white:t=fill"
    path = render(tmp_path / "bars.mp4", "-f", "lavfi", "-i", source, "-qp", "0")
    assert read(path)[:, 8:24, 4:28].min() > 240
    assert read(path, crop="none")[:, 8:24, :8].max() < 15


def test_pixels_that_are_not_square_are_made_square(tmp_path: Path) -> None:
    # 64 x 64 samples shown twice as wide; a box of 16 x 32 samples is displayed as a square.
    source = "color=black:s=64x64:r=5:d=1,drawbox=x=24:y=16:w=16:h=32:color=white:t=fill,setsar=2"
    path = render(tmp_path / "wide.mp4", "-f", "lavfi", "-i", source, "-qp", "0")
    white = read(path, size=64)[0, :, :, 0] > 127
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    assert len(rows) == pytest.approx(len(columns), abs=2)


def test_unusable_files_are_refused_with_their_reason(tmp_path: Path) -> None:
    good = numbered_video(tmp_path / "good.mp4", 60, "-movflags", "faststart")
    data = good.read_bytes()
    contents = {
        "empty.mp4": b"",
        "text.mp4": b"this is a text\n" * 20,
        "pointer.mp4": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
        "half.mp4": data[: len(data) * 6 // 10],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    render(tmp_path / "sound.mp4", "-f", "lavfi", "-i", "sine=d=0.2")
    reasons = ["empty", "unreadable", "lfs_pointer", "truncated", "no_video_stream", "missing"]
    names = [*contents, "sound.mp4", "absent.mp4"]
    assert [refusal(tmp_path / name) for name in names] == reasons


@pytest.mark.parametrize(
    "title",
    ["600 frames decoded", "30 packets read", "Duration: 10:00:00.00", "A partial file"],
)
def test_what_a_file_says_of_itself_is_not_what_ffmpeg_says(tmp_path: Path, title: str) -> None:
    folder = tmp_path / f"{title.replace(':', '')} 0x1: partial file"
    folder.mkdir()
    tags = ["-metadata", f"title={title}", "-metadata", f"comment=a\n[in#0/x] : {title}\n  {title}"]
    video = sample(numbered_video(folder / "matches no streams.mp4", 60, *tags))
    assert (video.num_frames, video.seconds) == (60, 2.4)
    assert frame_numbers(video.pictures) == sample_indices(60)


def test_a_cut_off_webm_is_refused_and_one_without_lengths_is_not(tmp_path: Path) -> None:
    # As a browser records it: nothing in it says how long it is.
    live = numbered_video(tmp_path / "live.webm", 60, "-c:v", "libvpx", "-live", "1")
    assert sample(live).num_frames == 60
    data = numbered_video(tmp_path / "whole.webm", 60, "-c:v", "libvpx").read_bytes()
    (tmp_path / "cut.webm").write_bytes(data[: len(data) * 6 // 10])
    assert refusal(tmp_path / "cut.webm") == "truncated"


def test_a_file_without_its_index_is_refused(tmp_path: Path) -> None:
    data = numbered_video(tmp_path / "good.mp4", 60).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(data[: len(data) // 2])
    assert refusal(tmp_path / "headless.mp4") == "unreadable"


def test_a_playlist_cannot_open_other_files(tmp_path: Path) -> None:
    secret = numbered_video(tmp_path / "secret.mp4", 20)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n"
    (tmp_path / "playlist.mp4").write_text(playlist)
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {secret.name}\n")
    assert refusal(tmp_path / "playlist.mp4") == "unreadable"
    assert refusal(tmp_path / "list.mp4") == "unreadable"


def test_names_that_look_like_options_or_addresses_are_files(tmp_path: Path) -> None:
    for name in ("-i.mp4", "http:x.mp4", "a b%03d'\"[1].mp4"):
        video = numbered_video(tmp_path / "plain.mp4", 20)
        video.rename(tmp_path / name)
        assert read(tmp_path / name).shape == (16, 32, 32, 3)


def test_a_video_stream_without_a_frame_is_refused(tmp_path: Path) -> None:
    source = "testsrc=s=64x64:d=1"
    path = render(tmp_path / "hollow.mkv", "-f", "lavfi", "-i", source, "-frames:v", "0")
    assert refusal(path) in ("no_frames", "unreadable", "no_video_stream")
