"""A small model on disk, and a film with two people whose places are known."""

import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import torch
from PIL import Image
from small import FACES, FRAMES, NEW, task_model, video_encoder

from pipeline.common.frames import Frames
from pipeline.datasets.sample_faces import render_frames, sample_clips
from pipeline.mtcae.saved import save_model

CLASSES = ["happy", "neutral", "sad"]
WIDTH, HEIGHT, RATE, SECONDS = 640, 360, 10, 24
_PORTRAIT = (200, 160)  # pixels, with a face of about 100 in the middle


def save_small_model(folder: Path, *, seed: int = 0, **metadata: Any) -> Path:
    """A cascade with random weights, for four frames at once."""
    torch.manual_seed(seed)
    encoder = video_encoder(
        dim=24, depth=1, num_heads=2, image_size=32, patch_size=16, num_frames=4
    )
    model = task_model(encoder, arch="cascaded", decoder="vit", num_classes=len(CLASSES))
    described = {
        "classes": CLASSES,
        "frames": FRAMES.model_copy(update={"num_frames": 4, "size": 64}).model_dump(),
        "faces": FACES.model_dump(),
        "recipes": {"evaluation": {"crops": 1}},
        "clip_seconds": 1.6,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / "model.safetensors", model, metadata=described | metadata, history=NEW)
    return folder


def places(seconds: float) -> list[tuple[float, float]]:
    """Where the two people's portraits have their middle, in pixels; nothing for who is away.

    They pass one another until second 12, when the second one leaves; the first one leaves at
    second 16, and the second one comes back at second 20.
    """
    share = min(seconds, 12) / 12
    first = [(100 + 440 * share, 90.0)] if seconds < 16 else []
    second = [(540 - 440 * share, 270.0)] if seconds < 12 or seconds >= 20 else []
    return first + second


def render_film(path: Path) -> Path:
    """24 seconds at 10 frames a second."""
    clips = sample_clips(num_subjects=2, clips_per_emotion=1)
    portraits = [_portrait(render_frames(clip, seed=1)[20]) for clip in (clips[0], clips[-1])]
    raw = bytearray()
    for number in range(SECONDS * RATE):
        seconds = number / RATE
        canvas = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        here = places(seconds)
        # Who is alone after the pause is the second one.
        shown = portraits[1:] if seconds >= 20 else portraits
        for (x, y), portrait in zip(here, shown, strict=False):
            width, height = _PORTRAIT
            left, top = round(x) - width // 2, round(y) - height // 2
            canvas[top : top + height, left : left + width] = portrait
        raw += canvas.tobytes()
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo"]
    command += ["-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(RATE), "-i", "-"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], input=bytes(raw), check=True)
    return path


def _portrait(frame: Frames) -> Frames:
    return np.asarray(Image.fromarray(frame).resize(_PORTRAIT))
