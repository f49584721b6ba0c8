"""The frames that are picked are those of a full decode by another program."""

import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from small_videos import FFMPEG, frame_numbers, numbered_video, read, refusal, render, sample

from pipeline.common.frames import Frames
from pipeline.video.container import Deadline
from pipeline.video.sampling import sample_indices
from pipeline.video.streams import Stream, find_stream

SOURCE = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=25,trim=end_frame=60"]
X264 = ["-c:v", "libx264", "-bf", "3", "-g", "30", "-pix_fmt", "yuv420p"]
OPEN_GOPS = [*X264, "-g", "20", "-x264-params", "open-gop=1:b-pyramid=normal"]
X265 = ["-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params"]
OPEN_X265 = [*X265, "log-level=error:bframes=4:keyint=20:open-gop=1"]
LAYERS_X265 = [*X265, "log-level=error:bframes=4:keyint=40:temporal-layers=2"]
FILES = {
    "h264.mp4": X264,
    "h264.mkv": X264,
    "h264.ts": X264,
    "h264.flv": X264,
    "h264.avi": X264,
    "h264_fragments.mp4": [*X264, "-movflags", "frag_keyframe+empty_moov"],
    "h264_pyramid_and_open_gops.mp4": OPEN_GOPS,
    "h264_intra_refresh.ts": [*X264, "-x264-params", "intra-refresh=1"],
    "h264_interlaced.ts": [*X264, "-flags", "+ilme+ildct"],
    "hevc_open_gops.mp4": OPEN_X265,
    "hevc_open_gops.ts": OPEN_X265,
    "hevc_layers.mp4": LAYERS_X265,
    "vp8.webm": ["-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16"],
    "vp9.webm": ["-c:v", "libvpx-vp9", "-auto-alt-ref", "1", "-lag-in-frames", "16"],
    "mpeg4.mp4": ["-c:v", "mpeg4", "-bf", "2"],
    "mpeg4_packed.avi": ["-c:v", "libxvid", "-bf", "2"],
    "mpeg2.mpg": ["-c:v", "mpeg2video", "-bf", "2"],
    "mpeg2.ts": ["-c:v", "mpeg2video", "-bf", "2"],
    "flv1.flv": ["-c:v", "flv"],
    "mjpeg.avi": ["-c:v", "mjpeg"],
    "theora.ogv": ["-c:v", "libtheora"],
    "wmv2.wmv": ["-c:v", "wmv2"],
}
# Cut without decoding: what is before the place, or hidden by an edit list, is not shown.
CUTS = {
    "cut.mp4": X264,
    "cut_open_gops.mp4": OPEN_GOPS,
    "cut_open_gops.mkv": OPEN_GOPS,
    "cut_hevc.mp4": OPEN_X265,
    "cut_hevc.mkv": OPEN_X265,
}


def full_decode(path: Path) -> Frames:
    """Every frame (N, 32, 32, 3), by ffmpeg."""
    scale = "scale=32:32:flags=bicubic+accurate_rnd+full_chroma_int+bitexact"
    command = [FFMPEG, "-v", "error", "-i", path, "-vf", scale, "-fps_mode", "passthrough"]
    command += ["-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, 32, 32, 3)


def assert_exact(path: Path) -> None:
    frames = full_decode(path)
    video = sample(path, crop="none")
    assert video.num_frames == len(frames)
    picked = frames[sample_indices(len(frames))].astype(int)
    # Frames differ from their neighbours by far more than two versions of a library round.
    assert np.abs(np.diff(picked, axis=0)).max(axis=(1, 2, 3)).min() > 20
    assert np.abs(video.pictures - picked).max() <= 2


def stream_of(path: Path) -> Stream:
    return find_stream(path, Deadline(path))


@pytest.mark.parametrize("name", FILES)
def test_the_pictures_are_those_of_a_full_decode(name: str, tmp_path: Path) -> None:
    assert_exact(render(tmp_path / name, *SOURCE, *FILES[name]))


@pytest.mark.parametrize("name", CUTS)
def test_frames_that_a_cut_hides_do_not_count(name: str, tmp_path: Path) -> None:
    whole = render(tmp_path / f"whole{Path(name).suffix}", *SOURCE, *CUTS[name])
    assert_exact(render(tmp_path / name, "-ss", "1.3", "-i", str(whole), "-c", "copy"))


@pytest.mark.parametrize("suffix", ["mp4", "ts", "flv", "mkv"])
def test_frames_that_nothing_refers_to_are_known_before_decoding(
    suffix: str, tmp_path: Path
) -> None:
    # Without a pyramid these are the B frames, here of closed groups of pictures.
    arguments = [*X264, "-x264-params", "b-pyramid=none:scenecut=0"]
    path = render(tmp_path / f"video.{suffix}", *SOURCE, *arguments)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    b_frames = {frame.pts for frame in frames if frame.pict_type == av.video.frame.PictureType.B}
    assert len(b_frames) > 20
    assert stream_of(path).spare == b_frames


def test_a_file_that_calls_its_frames_disposable_loses_none(tmp_path: Path) -> None:
    path = render(tmp_path / "lie.mp4", *SOURCE, *OPEN_X265)
    data = bytearray(path.read_bytes())
    flags = data.index(b"sdtp") + 8  # A byte for each frame; 8: no other depends on it.
    for i in range(1, 60):
        data[flags + i] = 8 | data[flags + i] & 0xF3
    path.write_bytes(data)
    assert len(stream_of(path).spare) > 40
    assert_exact(path)


def test_the_times_are_seconds_after_the_first_frame_that_is_shown(tmp_path: Path) -> None:
    whole = numbered_video(tmp_path / "whole.mp4", 60, "-g", "60")
    cut = render(tmp_path / "cut.mp4", "-ss", "1.2", "-i", str(whole), "-c", "copy")
    for path, num_frames in ((whole, 60), (cut, 30)):
        expected = [i / 25 for i in sample_indices(num_frames)]
        np.testing.assert_allclose(sample(path).times, expected, atol=1e-6)
    # AVI says no times; the rate does.
    avi = render(tmp_path / "video.avi", *SOURCE, *X264)
    np.testing.assert_allclose(sample(avi).times, [i / 25 for i in sample_indices(60)])


def test_a_clock_of_time_shows_what_is_on_screen(tmp_path: Path) -> None:
    # Frames 0 to 9 for 0.04 s each, 10, 20 and 30 for 0.4 s, and 40 for 0.04 s: 1.64 s in all.
    select = ["-vf", "select='lt(n,10)+not(mod(n,10))'", "-fps_mode", "vfr"]
    path = numbered_video(tmp_path / "vfr.mkv", 50, *select)
    assert sample(path).num_frames == 14
    by_frame = sample(path, num_frames=4, clock="frame")
    assert frame_numbers(by_frame.pictures) == [1, 5, 8, 30]
    # The centres of four quarters are 0.205, 0.615, 1.025 and 1.435 s.
    by_time = sample(path, num_frames=4, clock="time")
    assert frame_numbers(by_time.pictures) == [5, 10, 20, 30]
    np.testing.assert_allclose(by_time.times, [0.2, 0.4, 0.8, 1.2], atol=1e-3)


def test_frames_that_change_their_size_on_the_way_are_all_found(tmp_path: Path) -> None:
    sizes = ["96x64", "128x96", "160x120"]
    parts = []
    for i, size in enumerate(sizes):
        source = f"nullsrc=s={size}:r=25,geq=lum='16+2*(N+{20 * i})':cb=128:cr=128"
        source += ",trim=end_frame=20"
        parts.append(tmp_path / f"{i}.ts")
        render(parts[-1], "-f", "lavfi", "-i", source, "-c:v", "libx264", "-qp", "0")
    path = tmp_path / "call.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for crop in ("square", "none"):
        video = sample(path, crop=crop)
        assert video.num_frames == 60
        assert frame_numbers(video.pictures) == sample_indices(60)
    pictures = read(path, crop="face")
    assert pictures.shape == (16, 120, 160, 3)
    # 96 x 64 fits into 160 x 120 as 160 x 107, with black above and below.
    assert frame_numbers(pictures[:, 20:100]) == sample_indices(60)
    assert pictures[4, :6].max() == 0
    assert pictures[-1, :6].min() > 100


def test_the_stream_with_most_frames_is_taken_and_said(tmp_path: Path) -> None:
    cover = render(tmp_path / "cover.mkv", "-f", "lavfi", "-i", "color=red:s=64x64", *MJPEG_STILL)
    film = numbered_video(tmp_path / "film.mkv", 60)
    both = [
        *("-i", str(cover), "-i", str(film), "-map", "0:v", "-map", "1:v", "-c", "copy"),
        *("-disposition:v:0", "default"),
    ]
    video = sample(render(tmp_path / "both.mkv", *both))
    assert frame_numbers(video.pictures) == sample_indices(60)
    assert video.notes.stream == "stream 1 of 2 (frames of each: 0: 1, 1: 60)"
    assert sample(film).notes.stream == ""


MJPEG_STILL = ["-frames:v", "1", "-c:v", "mjpeg"]


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    cover = render(tmp_path / "cover.jpg", "-f", "lavfi", "-i", "color=red:s=64x64", *MJPEG_STILL)
    sound = ["-f", "lavfi", "-i", "sine=d=0.2", "-i", str(cover), "-map", "0", "-map", "1"]
    path = render(tmp_path / "song.mp4", *sound, "-c:v", "copy", "-disposition:v", "attached_pic")
    assert refusal(path) == "no_video_stream"


def test_an_animated_avif_is_its_film_and_not_its_still(tmp_path: Path) -> None:
    path = render(tmp_path / "a.avif", *SOURCE, "-c:v", "libsvtav1", "-preset", "12")
    assert sample(path).num_frames == 60
