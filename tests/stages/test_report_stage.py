import io
import re
import shutil
from base64 import b64decode
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from browser import browser_page
from PIL import Image
from small import baselines, setting

from pipeline.common.clips import Clip, write_stored
from pipeline.common.files import write_json
from pipeline.common.frames import FaceTrack
from pipeline.store.contents import CLIPS
from pipeline.store.folders import LocalShards
from pipeline.store.shards import write_shards
from pipeline.store.strips import encode_strip
from stages.report import Params, main

NUM_FRAMES, SIZE = 16, 224
CYAN, MAGENTA = (0, 229, 255), (255, 43, 214)
# In the stored frame; a small picture is half of that. MTCNN lost the face in frame 3.
BOX, POINT = (56, 28, 168, 196), (80, 100)
LOST = 3
# As fractions: x, y, width, height, and x, y.
PREDICTED_BOX, PREDICTED_POINT = (0.125, 0.25, 0.5, 0.5), (0.5, 0.375)
CLASSES = ["happy", "sad"]
HOSTILE = "<script>alert(1)</script>"


def stored(name: str, subject: str) -> tuple[Clip, bytes, FaceTrack]:
    """Frame t is grey of brightness 60 + 10 t."""
    greys = np.arange(60, 60 + 10 * NUM_FRAMES, 10).astype(np.uint8)
    frames = np.broadcast_to(greys[:, None, None, None], (NUM_FRAMES, SIZE, SIZE, 3))
    mask = np.arange(NUM_FRAMES) != LOST
    boxes = np.where(mask[:, None], BOX, 0).astype(np.float32)
    points = np.where(mask[:, None, None], [POINT] * 5, 0).astype(np.float32)
    track = FaceTrack(boxes, points, mask)
    return Clip(name, f"{name}.mp4", subject, "sad"), encode_strip(frames, quality=95), track


def parameters(*, frames: bool, arch: str = "cascaded") -> Params:
    report = {"frames": frames, "worst_clips": 1}
    return Params.model_validate({"arch": arch, "decoder": "vit", "report": report})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Three subjects; a clip of the first is missed, and the shard of the last is damaged."""
    clips = [stored("a0", HOSTILE), stored("a1", HOSTILE), stored("b0", "Bob"), stored("z0", "Zoë")]
    # A shard per clip.
    manifest = write_shards(tmp_path / "shards", clips, shard_bytes=1)
    write_stored(tmp_path / "shards" / CLIPS, manifest)
    (tmp_path / "shards" / manifest[-1].shard).write_bytes(b"no tar file")
    curves = ["train_expression_loss", "validation_expression_loss", "validation_uar"]
    history = pd.DataFrame({"fold": [1, 1, 2, 2], "epoch": [1, 2, 1, 2]})
    history[curves] = [[0.7] * 3, [0.5] * 3] * 2
    (tmp_path / "metrics").mkdir()
    history.to_csv(tmp_path / "metrics/history.csv", index=False)
    write_predictions(tmp_path, [*PREDICTED_BOX] * NUM_FRAMES, [*PREDICTED_POINT] * 5 * NUM_FRAMES)
    return tmp_path


def write_predictions(project: Path, boxes: list[float], points: list[float]) -> None:
    table = pd.DataFrame(
        {
            "fold": [1, 1, 2, 2],
            "clip": ["a0", "a1", "b0", "z0"],
            "subject": [HOSTILE, HOSTILE, "Bob", "Zoë"],
            "actual": ["sad", "happy", "sad", "happy"],
            "predicted": ["happy", "happy", "sad", "happy"],
            "box_iou": 0.5,
            "landmark_error": 0.1,
            "interocular_error": 0.2,
            "boxes": [np.array(boxes, np.float32)] * 4,
            "points": [np.array(points, np.float32)] * 4,
            "probability_happy": np.array([0.9, 0.8, 0.3, 0.7], np.float32),
            "probability_sad": np.array([0.1, 0.2, 0.7, 0.3], np.float32),
        }
    )
    table.to_parquet(project / "predictions.parquet", index=False)
    baselines(table, CLASSES).to_parquet(project / "baselines.parquet", index=False)
    write_json(project / "metrics/setting.json", setting(table, CLASSES).model_dump())


def run(project: Path, params: Params) -> Path:
    out = project / "reports/tiny.html"
    predictions, metrics = project / "predictions.parquet", project / "metrics"
    main(
        params,
        LocalShards(project / "shards"),
        project / "baselines.parquet",
        predictions,
        metrics,
        out,
    )
    return out


def pictures(page: Path) -> list[npt.NDArray[np.int16]]:
    """The (112, 112, 3) pictures of the page, as numbers with a sign."""
    found = re.findall(r'"data:image/jpeg;base64,([^"]+)"', page.read_text(encoding="utf-8"))
    return [np.asarray(Image.open(io.BytesIO(b64decode(data)))).astype(np.int16) for data in found]


def shows(picture: npt.NDArray[np.int16], colour: tuple[int, int, int], x: int, y: int) -> bool:
    """Whether a pixel has the colour, as far as JPEG keeps it."""
    return bool(np.abs(picture[y, x] - colour).max() < 70)


def test_eight_frames_of_a_missed_clip_are_shown_in_order(project: Path) -> None:
    shown = pictures(run(project, parameters(frames=True)))
    assert [picture.shape for picture in shown] == [(112, 112, 3)] * 8
    # Between the boxes and the border the frames are as they were: 1, 3, ..., 15.
    corners = [picture[2:8, 2:8].mean() for picture in shown]
    assert corners == pytest.approx([60 + 10 * t for t in range(1, 16, 2)], abs=3)


def test_both_boxes_and_points_are_drawn_at_their_places(project: Path) -> None:
    picture = pictures(run(project, parameters(frames=True)))[3]
    # Middles of the left, upper, right and lower edge, off the crossings with the other box.
    for x, y in ((28, 60), (40, 14), (84, 40), (75, 98)):
        assert shows(picture, CYAN, x, y)
    for x, y in ((14, 50), (50, 28), (70, 60), (20, 84)):
        assert shows(picture, MAGENTA, x, y)
    assert shows(picture, CYAN, 40, 50)
    assert shows(picture, MAGENTA, 56, 42)
    # Nothing is drawn elsewhere: within both boxes the frame is grey.
    assert np.ptp(picture[62:80, 34:64], axis=2).max() < 30


def test_only_the_prediction_is_drawn_where_no_face_was_found(project: Path) -> None:
    picture = pictures(run(project, parameters(frames=True)))[LOST // 2]
    assert shows(picture, MAGENTA, 14, 50)
    assert not shows(picture, CYAN, 28, 60)
    assert np.ptp(picture[0:8, 0:8], axis=2).max() < 30


def test_a_structure_without_boxes_shows_those_of_mtcnn_only(project: Path) -> None:
    write_predictions(project, [], [])
    picture = pictures(run(project, parameters(frames=True, arch="stl")))[3]
    assert shows(picture, CYAN, 28, 60)
    assert not shows(picture, MAGENTA, 14, 50)
    assert np.ptp(picture[35:60, 10:20], axis=2).max() < 30


def test_a_page_without_frames_needs_no_shard_and_holds_no_picture(project: Path) -> None:
    shutil.rmtree(project / "shards")
    page = run(project, parameters(frames=False))
    assert "data:" not in page.read_text(encoding="utf-8").replace("img-src data:;", "")
    assert page.stat().st_size < 200_000


def test_two_runs_give_the_same_bytes(project: Path) -> None:
    first = run(project, parameters(frames=True)).read_bytes()
    assert run(project, parameters(frames=True)).read_bytes() == first


def test_a_browser_shows_the_page_without_errors_or_a_network(project: Path) -> None:
    address = run(project, parameters(frames=True)).as_uri()
    messages: list[str] = []
    requests: list[str] = []
    with browser_page() as page:
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(error.message))
        page.on("dialog", lambda dialog: messages.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.context.set_offline(True)
        page.set_viewport_size({"width": 375, "height": 700})
        page.goto(address)
        assert [url for url in requests if not url.startswith("data:")] == [address]
        assert page.evaluate("document.scripts.length") == 0
        pictures = "[...document.images].map(image => image.complete && image.naturalWidth)"
        assert page.evaluate(pictures) == [112] * 8
        assert page.locator("#wrong").get_by_text(HOSTILE).is_visible()
        for name in ("confusion", "learning", "calibration", "classes"):
            box = page.locator(f"#{name} svg").first.bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) > 100
        # On a phone, only tables scroll sideways.
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        background = "getComputedStyle(document.body).backgroundColor"
        word = "getComputedStyle(document.querySelector('#confusion text')).fill"
        page.emulate_media(color_scheme="light")
        light = page.evaluate(f"[{background}, {word}]")
        page.emulate_media(color_scheme="dark")
        dark = page.evaluate(f"[{background}, {word}]")
        assert light == ["rgb(255, 255, 255)", "rgb(28, 31, 36)"]
        assert dark == ["rgb(20, 22, 26)", "rgb(230, 232, 236)"]
        assert messages == []
        # Should text ever become an element: the page's policy keeps it from running.
        attack = "<img src='x:' onerror='document.title = 1'>"
        page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", attack)
        page.wait_for_function("[...document.images].every(image => image.complete)")
        assert page.title() == "cascaded vit on tiny: error analysis"
        assert any("Content Security Policy" in message for message in messages)
