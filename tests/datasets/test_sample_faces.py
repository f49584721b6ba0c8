import hashlib
import multiprocessing
import re
import subprocess
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import pytest
import torch
from facenet_pytorch import MTCNN

from pipeline.datasets.sample_faces import SampleClip, render_frames, sample_clips, write_video

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
# As numbered in RAVDESS; the sample has no "calm" (02).
RAVDESS_CODES = {
    "neutral": 1,
    "happy": 3,
    "sad": 4,
    "angry": 5,
    "fearful": 6,
    "disgust": 7,
    "surprised": 8,
}
EXPRESSIVE = [emotion for emotion in RAVDESS_CODES if emotion != "neutral"]
# Rows and columns of a frame, generous enough for every subject's pose.
BROWS_AND_EYES = np.s_[50:112, 90:230]
MOUTH = np.s_[145:205, 110:210]
NOSE = np.s_[115:140, 90:230]
HAIR = np.s_[0:40, 60:260]
FACE = np.s_[50:220, 90:230]


def clip_of(subject: int, emotion: str, take: int = 0) -> SampleClip:
    clips = sample_clips(num_subjects=subject, clips_per_emotion=2)
    return [clip for clip in clips if clip.subject == subject and clip.emotion == emotion][take]


def video_bytes(clip: SampleClip, seed: int, path: Path) -> bytes:
    write_video(render_frames(clip, seed), path, FFMPEG)
    return path.read_bytes()


def distance(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def test_fifteen_subjects_acting_seven_emotions_twice_make_210_clips() -> None:
    clips = sample_clips(num_subjects=15, clips_per_emotion=2)

    assert len({clip.name for clip in clips}) == len(clips) == 210
    assert Counter(clip.emotion for clip in clips) == dict.fromkeys(RAVDESS_CODES, 30)
    assert Counter(clip.subject for clip in clips) == dict.fromkeys(range(1, 16), 14)


def test_a_name_is_seven_two_digit_numbers_that_describe_the_clip() -> None:
    for clip in sample_clips(num_subjects=12, clips_per_emotion=4):
        assert re.fullmatch(r"\d\d(-\d\d){6}\.mp4", clip.name)
        assert [int(number) for number in clip.name.removesuffix(".mp4").split("-")] == [
            *(2, 1, RAVDESS_CODES[clip.emotion], clip.intensity),
            *(clip.statement, clip.repetition, clip.subject),
        ]


def test_clips_are_in_the_order_of_their_files() -> None:
    clips = sample_clips(num_subjects=12, clips_per_emotion=4)
    paths = [f"Actor_{clip.subject:02}/{clip.name}" for clip in clips]
    assert paths == sorted(paths)


def test_half_of_the_clips_are_strong_but_none_of_the_neutral_ones() -> None:
    clips = sample_clips(num_subjects=15, clips_per_emotion=2)
    strong = Counter(clip.emotion for clip in clips if clip.intensity == 2)
    assert strong == dict.fromkeys(EXPRESSIVE, 15)


@pytest.mark.parametrize(
    ("num_subjects", "clips_per_emotion", "message"),
    [
        (0, 2, "num_subjects is 0"),
        (100, 2, "num_subjects is 100"),
        (15, 0, "clips_per_emotion is 0"),
        (15, 5, "clips_per_emotion is 5"),
    ],
)
def test_numbers_that_names_cannot_hold_are_refused(
    num_subjects: int, clips_per_emotion: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sample_clips(num_subjects, clips_per_emotion)


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    clip = clip_of(subject=2, emotion="disgust")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        elsewhere = pool.submit(video_bytes, clip, 1, tmp_path / "elsewhere.mp4")
        assert video_bytes(clip, 1, tmp_path / "here.mp4") == elsewhere.result()


def test_a_video_shows_the_frames_it_was_made_of(tmp_path: Path) -> None:
    frames = render_frames(clip_of(subject=1, emotion="happy"), seed=1)
    write_video(frames, tmp_path / "clip.mp4", FFMPEG)

    to_rgb = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    command = [FFMPEG, "-i", str(tmp_path / "clip.mp4"), *to_rgb]
    decoded = subprocess.run(command, capture_output=True, check=True).stdout
    shown = np.frombuffer(decoded, np.uint8).reshape(40, 256, 320, 3)
    mean_squared_error = np.square(frames.astype(float) - shown).mean(axis=(1, 2, 3))
    assert 10 * np.log10(255**2 / mean_squared_error.max()) > 35


def test_a_video_that_cannot_be_encoded_leaves_no_file(tmp_path: Path) -> None:
    odd = np.zeros((2, 31, 32, 3), np.uint8)
    with pytest.raises(RuntimeError, match=r"clip\.mp4.*\n(.*\n)*.*height not divisible by 2"):
        write_video(odd, tmp_path / "clip.mp4", FFMPEG)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("emotion", EXPRESSIVE)
def test_an_expression_changes_brows_eyes_and_mouth_most(emotion: str) -> None:
    neutral = render_frames(clip_of(subject=1, emotion="neutral"), seed=1)[0]
    apex = render_frames(clip_of(subject=1, emotion=emotion, take=1), seed=1)[32]

    for part in (BROWS_AND_EYES, MOUTH):
        assert distance(apex[part], neutral[part]) > distance(apex[NOSE], neutral[NOSE])
        assert distance(apex[part], neutral[part]) > 3 * distance(apex[HAIR], neutral[HAIR])


@pytest.mark.parametrize("emotion", EXPRESSIVE)
def test_a_clip_begins_with_the_face_at_rest(emotion: str) -> None:
    neutral = render_frames(clip_of(subject=1, emotion="neutral"), seed=1)
    frames = render_frames(clip_of(subject=1, emotion=emotion, take=1), seed=1)

    # The head moves in both clips: compare with the neutral frame of the most similar pose.
    first, apex = (
        min(distance(frame[FACE], other[FACE]) for other in neutral) for frame in frames[[0, 32]]
    )
    assert apex > 1.5 * first


def test_a_subject_looks_alike_in_all_clips_and_unlike_others() -> None:
    clips = [clip_of(1, "sad"), clip_of(1, "angry", take=1), clip_of(2, "sad")]
    here, there, other = (render_frames(clip, seed=1)[:, :8, :8].mean((0, 1, 2)) for clip in clips)

    np.testing.assert_allclose(here, there, atol=1)
    assert np.abs(here - other).max() > 20


def test_another_seed_is_another_cast() -> None:
    clip = clip_of(subject=1, emotion="neutral")
    assert distance(render_frames(clip, seed=1)[0], render_frames(clip, seed=2)[0]) > 10


def test_a_face_detector_finds_one_face_in_every_frame() -> None:
    torch.set_num_threads(1)
    frames = render_frames(clip_of(subject=3, emotion="surprised"), seed=1)
    centre_squares = frames[[(2 * i + 1) * 40 // 32 for i in range(16)], :, 32:288]

    boxes, _ = MTCNN(keep_all=True, min_face_size=40, device="cpu").detect(centre_squares)

    assert [len(found) for found in boxes] == [1] * 16


def test_the_pictures_are_those_that_were_always_drawn() -> None:
    """The first stages of everybody's default run depend on their bytes."""
    frames = render_frames(clip_of(subject=1, emotion="neutral"), seed=1)
    digest = "87c02df70e33a3711efab7974cba4684b1d7d845b2b8ef6c37fe6f7b15163013"
    assert hashlib.sha256(frames.tobytes()).hexdigest() == digest
