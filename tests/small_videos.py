"""Small videos whose frames tell their number."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest
from small import FRAMES

from pipeline.common.frames import Frames
from pipeline.video.container import UnusableVideo
from pipeline.video.decode import SampledVideo, read_pictures

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def render(path: Path, *arguments: str) -> Path:
    subprocess.run([FFMPEG, "-v", "error", "-y", *arguments, str(path)], check=True)
    return path


def numbered_video(path: Path, num_frames: int, *arguments: str) -> Path:
    """A grey video, 96 x 64, whose frame i has luminance 16 + 2 i."""
    source = f"nullsrc=s=96x64:r=25,geq=lum='16+2*N':cb=128:cr=128,trim=end_frame={num_frames}"
    return render(path, "-f", "lavfi", "-i", source, "-c:v", "libx264", "-qp", "0", *arguments)


def frame_numbers(frames: Frames) -> list[int]:
    # Luminance 16 .. 235 is stretched to 0 .. 255 in RGB.
    return [round((frame.mean() * 219 / 255) / 2) for frame in frames]


def sample(path: Path, **changes: object) -> SampledVideo:
    settings = FRAMES.model_copy(update={"size": 32, "crop": "square"} | changes)
    return read_pictures(path, settings)


def read(path: Path, **changes: object) -> Frames:
    return sample(path, **changes).pictures


def refusal(path: Path) -> str:
    with pytest.raises(UnusableVideo) as error:
        read(path)
    assert path.name in error.value.refusal.message
    return error.value.refusal.reason
