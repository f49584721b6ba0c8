import os
import signal
from pathlib import Path

import pytest
from small import FACES, FRAMES
from small_videos import numbered_video, render

import stages.sample
from pipeline.common.clips import Clip, read_manifest, write_manifest
from stages.sample import Params, main, sample_clip


def sample_or_crash(clip: Clip, folders: list[Path], out: Path) -> Clip:
    """As a decoder may do to its process."""
    if clip.clip == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    return sample_clip(clip, folders, out)


def test_every_clip_is_sampled_or_refused_and_a_crash_costs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "frames"
    raw.mkdir()
    film = numbered_video(raw / "film.mkv", 20)
    render(raw / "two.mkv", "-i", str(film), "-map", "0", "-map", "0", "-c", "copy")
    names = ["crash", "film", "text", "two"]
    (raw / "text.mkv").write_text("not a video")
    (raw / "crash.mkv").write_bytes(film.read_bytes())
    clips = [Clip(name, f"{name}.mkv", "Ann", "sad") for name in names]
    write_manifest(tmp_path / "raw.parquet", clips)
    monkeypatch.setattr(stages.sample, "sample_clip", sample_or_crash)
    frames = FRAMES.model_copy(update={"crop": "square", "size": 32})
    params = Params(dataset="custom", source=None, frames=frames, faces=FACES)
    main(params, raw, tmp_path / "raw.parquet", out)

    sampled = {clip.clip: clip for clip in read_manifest(out / "clips.parquet")}
    assert list(sampled) == names
    reasons = {name: clip.reason for name, clip in sampled.items()}
    assert reasons == {"crash": "crashed", "film": "", "text": "unreadable", "two": ""}
    assert sampled["two"].stream == "stream 0 of 2 (frames of each: 0: 20, 1: 20)"
    assert [sampled[name].num_frames for name in ("film", "two")] == [20, 20]
    assert (out / "film.jpg").read_bytes() == (out / "two.jpg").read_bytes()
    assert not (out / "crash.jpg").exists()
