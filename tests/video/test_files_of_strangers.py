"""Kinds of files that are not taken, files that are cut off or damaged, and bounds."""

import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from small import FRAMES
from small_videos import FFMPEG, frame_numbers, numbered_video, read, refusal, render, sample

from pipeline.video import container, decode, streams
from pipeline.video.container import UnusableVideo
from pipeline.video.declared import num_declared
from pipeline.video.sampling import sample_indices

SOURCE = ["-f", "lavfi", "-i", "testsrc2=s=192x128:r=25:d=2.4"]
OTHER_KINDS = {
    "a.gif": [],
    "a.apng": [],
    "a.webp": ["-c:v", "libwebp_anim"],
    "a.y4m": ["-pix_fmt", "yuv420p"],
    "a.ivf": ["-c:v", "libvpx"],
    "a.nut": ["-c:v", "mpeg4"],
    "a.mxf": ["-c:v", "mpeg2video"],
    "a.rm": ["-c:v", "rv20", "-s", "352x288"],
    "a.h264": ["-c:v", "libx264"],
    "a.hevc": ["-c:v", "libx265", "-x265-params", "log-level=error"],
    "a.mjpeg": ["-c:v", "mjpeg"],
    "a.dv": ["-s", "720x576", "-r", "25", "-c:v", "dvvideo", "-pix_fmt", "yuv420p"],
}
KINDS = {
    "a.mp4": ["-c:v", "libx264", "-movflags", "faststart"],
    "fragments.mp4": ["-c:v", "libx264", "-movflags", "frag_keyframe+empty_moov", "-g", "10"],
    "a.mov": ["-c:v", "mjpeg", "-movflags", "faststart"],
    "a.3gp": ["-c:v", "h263", "-s", "176x144", "-movflags", "faststart"],
    "a.mkv": ["-c:v", "libx264"],
    "a.webm": ["-c:v", "libvpx"],
    "a.avi": ["-c:v", "mpeg4"],
    "a.flv": ["-c:v", "flv"],
    "a.ts": ["-c:v", "libx264"],
    "a.m2ts": ["-c:v", "libx264"],
    "mpeg1.mpg": ["-c:v", "mpeg1video"],
    "mpeg2.vob": ["-c:v", "mpeg2video"],
    "a.ogv": ["-c:v", "libtheora"],
    "a.wmv": ["-c:v", "wmv2"],
}
# As programs write them that cannot go back to say how long the file became.
LIVE = {
    "flv": ["-c:v", "flv"],
    "matroska": ["-c:v", "libx264"],
    "mpegts": ["-c:v", "libx264"],
    "avi": ["-c:v", "mpeg4"],
    "asf": ["-c:v", "wmv2"],
    "ogg": ["-c:v", "libtheora"],
    "mp4": ["-c:v", "libx264", "-movflags", "frag_keyframe+empty_moov"],
}


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_a_kind_that_is_not_taken_says_so_and_how_to_convert_it(name: str, tmp_path: Path) -> None:
    path = render(tmp_path / name, *SOURCE, *OTHER_KINDS[name])
    with pytest.raises(UnusableVideo, match=r"not taken; convert it: ffmpeg -i FILE") as error:
        read(path)
    assert error.value.refusal.reason == "container"


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_which_the_end_is_missing_is_refused(name: str, tmp_path: Path) -> None:
    whole = render(tmp_path / name, *SOURCE, *KINDS[name])
    assert sample(whole).num_frames == 60
    data = whole.read_bytes()
    for share in (0.61, 0.83, 0.97):
        whole.write_bytes(data[: int(len(data) * share)])
        assert refusal(whole) == "truncated"


@pytest.mark.parametrize("kind", LIVE)
def test_a_recording_that_does_not_say_its_length_is_taken(kind: str, tmp_path: Path) -> None:
    command = [FFMPEG, "-v", "error", *SOURCE, *LIVE[kind], "-f", kind, "pipe:"]
    done = subprocess.run(command, capture_output=True, check=True)
    (tmp_path / "live").write_bytes(done.stdout)
    assert sample(tmp_path / "live").num_frames == 60


def test_frames_that_are_damaged_are_counted_and_the_others_used(tmp_path: Path) -> None:
    # Every frame of MJPEG is a picture of its own: what is lost is what is overwritten.
    path = render(tmp_path / "holes.mov", *SOURCE, "-c:v", "mjpeg")
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data)) if data.startswith(b"\xff\xd8\xff", i)]
    assert len(starts) == 60
    for number in (20, 21, 40):
        data[starts[number] : starts[number + 1]] = bytes(starts[number + 1] - starts[number])
    path.write_bytes(data)
    video = sample(path)
    assert (video.num_frames, video.notes.holes) == (57, 3)
    left = [i for i in range(60) if i not in (20, 21, 40)]
    assert [round(25 * time) for time in video.times] == [left[i] for i in sample_indices(57)]


def test_packets_that_a_broadcast_lost_are_holes(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "lost.ts", 60, "-g", "10", "-bf", "0")
    assert sample(path).notes.holes == 0
    data = path.read_bytes()
    middle = len(data) // 188 // 2 * 188
    path.write_bytes(data[:middle] + data[middle + 3 * 188 :])
    assert 1 <= sample(path).notes.holes <= 4


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    path = numbered_video(tmp_path / "film.mp4", 20, "-metadata", "title=caf#")
    path.write_bytes(path.read_bytes().replace(b"caf#", b"caf\xe9"))
    assert frame_numbers(read(path)) == sample_indices(20)


def test_large_pictures_are_refused_by_what_the_file_says(tmp_path: Path) -> None:
    source = ["-f", "lavfi", "-i", "color=gray:s=8192x4352", "-frames:v", "1"]
    path = render(tmp_path / "large.mp4", *source, "-c:v", "libx264", "-preset", "ultrafast")
    assert refusal(path) == "too_large"


def patched(path: Path, kind: bytes, place: int, numbers: bytes) -> Path:
    """A copy of an MP4 with other bytes at a place of the first box of that kind."""
    content = bytearray(path.read_bytes())
    start = content.index(kind) + len(kind) + place
    content[start : start + len(numbers)] = numbers
    changed = path.with_stem(f"{path.stem}-{kind.decode()}")
    changed.write_bytes(content)
    return changed


# Places after the kind, version and flags: of count, or of width and height.
TABLES = {b"stsz": (4, [1, 10**7]), b"stts": (8, [10**7, 512]), b"elst": (4, [10**7])}


@pytest.mark.parametrize("kind", TABLES)
def test_frames_that_a_header_only_declares_are_not_made_room_for(
    kind: bytes, tmp_path: Path
) -> None:
    plain = numbered_video(tmp_path / "film.mp4", 20)
    assert num_declared(plain) == 20
    place, numbers = TABLES[kind]
    path = patched(plain, kind, place, struct.pack(f">{len(numbers)}I", *numbers))
    assert num_declared(path) >= 10**7
    with pytest.raises(
        UnusableVideo, match=r"film.*: its header declares [\d,]{10,} frames"
    ) as error:
        sample(path)
    assert error.value.refusal.reason == "too_long"


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def with_compressed_header(path: Path, header: bytes | None = None) -> Path:
    """A copy of a MOV, with its own header or another one as QuickTime compressed it."""
    content = path.read_bytes()
    start = content.index(b"moov") - 4
    end = start + int.from_bytes(content[start : start + 4], "big")
    header = header or content[start:end]
    data = struct.pack(">I", len(header)) + zlib.compress(header)
    moov = box(b"moov", box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", data)))
    changed = path.with_stem(f"{path.stem}-compressed")
    changed.write_bytes(content[:start] + moov + content[end:])
    return changed


def test_frames_are_counted_in_a_compressed_header(tmp_path: Path) -> None:
    plain = numbered_video(tmp_path / "film.mov", 20)
    path = with_compressed_header(plain)
    assert num_declared(path) == sample(path).num_frames == 20
    path = with_compressed_header(patched(plain, b"stsz", 4, struct.pack(">2I", 1, 10**7)))
    assert path.stat().st_size < 3000
    assert num_declared(path) == 10**7
    assert refusal(path) == "too_long"
    # Nothing is inflated without end, nor again and again.
    assert num_declared(with_compressed_header(plain, bytes(2**27))) == 2**32
    inner = path.read_bytes()
    twice = with_compressed_header(plain, inner[inner.index(b"moov") - 4 :])
    assert num_declared(twice) == 2**32


def test_samples_are_counted_in_fragments_and_raw_sound_is_not(tmp_path: Path) -> None:
    arguments = ["-c:v", "libx264", "-movflags", "frag_keyframe+empty_moov", "-g", "10"]
    assert num_declared(render(tmp_path / "a.mp4", *SOURCE, *arguments)) == 60
    sound = ["-f", "lavfi", "-i", "sine=d=2.4:r=48000", "-c:v", "libx264", "-c:a", "pcm_s16le"]
    assert num_declared(render(tmp_path / "a.mov", *SOURCE, *sound)) == 60
    assert num_declared(render(tmp_path / "a.mkv", *SOURCE, "-c:v", "libx264")) == 0


@pytest.mark.parametrize(("place", "size"), [(76, 65535), (80, 65535), (76, 1), (76, 960)])
def test_an_absurd_declared_size_does_not_change_the_picture(
    place: int, size: int, tmp_path: Path
) -> None:
    plain = numbered_video(tmp_path / "film.mp4", 20)
    path = patched(plain, b"tkhd", 4 + place, struct.pack(">I", size << 16))
    np.testing.assert_array_equal(read(path, crop="none"), read(plain, crop="none"))


def test_pixels_that_are_absurdly_wide_are_taken_as_square(tmp_path: Path) -> None:
    wide = numbered_video(tmp_path / "wide.mp4", 20, "-vf", "setsar=20/1")
    assert frame_numbers(read(wide)) == sample_indices(20)
    assert sample(wide).notes.stream == "pixels 20 times as wide as high are taken as square"


def test_frames_and_time_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = numbered_video(tmp_path / "film.mp4", 60)
    with monkeypatch.context() as patch:
        patch.setattr(streams, "_MAX_FRAMES", 59)
        assert refusal(path) == "too_long"
    with monkeypatch.context() as patch:
        patch.setattr(container, "_TIMEOUT_S", 0)
        assert refusal(path) == "timeout"

    class Late(container.Deadline):
        """Over when decoding has begun."""

        def left(self) -> float:
            self.end -= 20
            return super().left()

    with monkeypatch.context() as patch:
        patch.setattr(decode, "Deadline", Late)
        assert refusal(path) == "timeout"
    assert decode.read_pictures(path, FRAMES).num_frames == 60
