import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from project import ROOT
from small_predictor import render_film, save_small_model

from commands.predict import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models; a film, and beside it files that cannot be used."""
    folder: Path = tmp_path_factory.mktemp("predict")
    for seed in (1, 2):
        save_small_model(folder / f"fold{seed}", seed=seed)
    (folder / "videos").mkdir()
    render_film(folder / "videos/film.mp4")
    (folder / "videos/broken.mp4").write_text("not a video")
    return folder


def predict(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "commands.predict", *arguments]
    models = ["--model", str(folder / "fold1"), str(folder / "fold2")]
    return subprocess.run(
        [*command, *models, "--out", str(folder / "results"), "--length", "8"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_cannot_be_used_is_named_and_the_rest_is_done(folder: Path) -> None:
    done = predict(folder, str(folder / "videos"), str(folder / "absent.mp4"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("not used: broken.mp4: not a readable video")
    assert lines[1].startswith("videos_film: 3 people in 24.0 s, mostly ")
    assert lines[2] == "not used: absent.mp4: no such file; check the path in the table"
    listed = pd.read_csv(folder / "results/all.videos.csv", keep_default_na=False)
    assert list(listed["name"]) == ["videos_broken", "videos_film", "absent"]
    assert list(listed["people"]) == [0, 3, 0]
    results = folder / "results"
    table = pd.read_parquet(results / "videos_film.parquet")
    text = pd.read_csv(results / "videos_film.csv")
    pd.testing.assert_frame_equal(table, text, rtol=1e-5, check_dtype=False)
    summary = json.loads((results / "videos_film.json").read_text())
    assert (summary["models"], len(summary["people"])) == (2, 3)
    assert not list(results.glob("*.mp4"))


def test_a_single_video_gets_a_film_on_request(folder: Path) -> None:
    done = predict(folder, str(folder / "videos/film.mp4"), "--film", "--draw", "both")
    assert done.returncode == 0, done.stderr
    assert (folder / "results/film.mp4").stat().st_size > 10_000
    # The same as with other videos, in processes of their own.
    assert (folder / "results/film.csv").read_text() == (
        folder / "results/videos_film.csv"
    ).read_text()


@pytest.mark.parametrize(
    ("video", "options", "words"),
    [
        ("videos/film.mp4", ["--hop", "9"], "predict: windows of 8 s .* do not overlap"),
        ("*.avi", [], r"predict: no file fits .*/\*\.avi"),
        (
            "videos/film.mp4",
            ["--affect", "nowhere"],
            "predict: there is no file nowhere/model.json",
        ),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, video: str, options: list[str], words: str
) -> None:
    arguments = [str(folder / video), "--model", str(folder / "fold1"), "--out", str(folder / "x")]
    monkeypatch.setattr(sys, "argv", ["predict", *arguments, "--length", "8", *options])
    with pytest.raises(SystemExit, match=words):
        main()
