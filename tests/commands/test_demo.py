import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from browser import TIMEOUT, browser_page
from playwright.sync_api import expect
from project import ROOT
from small_predictor import CLASSES, render_film, save_small_model

from commands import demo
from pipeline.serving.predictor import Predictor, load_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("runs") / "final"
    return save_small_model(folder, untested="trained on everybody")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("films") / "film.mp4"
    return render_film(path)


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return load_model(model)


def test_the_page_says_why_there_is_nothing_to_see(
    predictor: Predictor, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    monkeypatch.setattr(demo, "MAX_SECONDS", 20)
    for video, words in (
        (None, "Drop a video first"),
        (tmp_path / "text.mp4", r"Not used: text.mp4: not a readable video"),
        (film, "film.mp4 is 0 minutes long, and this page takes 0"),
    ):
        shown = demo.look(video, predictor, tmp_path)
        assert shown.status.startswith(words)
        assert (len(shown.people), shown.film) == (0, None)


def test_curves_are_the_probabilities_of_one_person(predictor: Predictor, film: Path) -> None:
    table = predictor.predict(film).table
    rows = demo.curves(table, 2, CLASSES)
    assert rows is not None
    own = table[table["person"] == 2]
    wide = rows.pivot_table(index="seconds", columns="expression", values="probability")
    np.testing.assert_array_equal(wide.index, own["seconds"])
    np.testing.assert_allclose(wide[CLASSES], own[[f"probability_{name}" for name in CLASSES]])
    assert demo.curves(table, None, CLASSES) is None


@contextmanager
def page_of(model: Path, folder: Path) -> Iterator[str]:
    """Address of the page, whose program has its temporary files in the folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "commands.demo", "--model", str(model), "--port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"TMPDIR": str(folder)})
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 5 * TIMEOUT / 1000
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
        yield address
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)


@pytest.mark.slow
def test_a_dropped_and_a_recorded_video_are_looked_at_and_deleted_in_the_end(
    model: Path, film: Path, tmp_path: Path
) -> None:
    pytest.importorskip("gradio", reason="the page needs requirements-demo.txt")
    folder = tmp_path / "temporary"
    folder.mkdir()
    no_video = tmp_path / "text.mp4"
    no_video.write_text("not a video")
    with page_of(model, folder) as address, browser_page() as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        look, status = page.get_by_role("button", name="Look"), page.locator("#status")
        expect(page.locator("body")).to_contain_text(
            "The model is trained on everybody.", timeout=TIMEOUT
        )
        look.click()
        expect(status).to_contain_text("Drop a video first", timeout=TIMEOUT)
        page.locator("input[type=file]").first.set_input_files(no_video)
        page.get_by_label("Remove").or_(page.get_by_label("Clear")).first.wait_for()
        look.click()
        expect(status).to_contain_text("Not used: text.mp4: not a readable video", timeout=TIMEOUT)
        page.get_by_label("Remove").or_(page.get_by_label("Clear")).first.click()
        page.locator("input[type=file]").first.set_input_files(film)
        page.locator("video").first.wait_for()
        look.click()
        expect(status).to_contain_text("film.mp4: 3 people in 24.0 s", timeout=TIMEOUT * 3)
        expect(page.get_by_role("row")).to_have_count(4, timeout=TIMEOUT)
        expect(page.locator("video")).to_have_count(2, timeout=TIMEOUT)
        # Both can be played, and one has been drawn into.
        lengths = "[...document.querySelectorAll('video')].map(video => video.duration)"
        page.wait_for_function(f"{lengths}.every(length => length > 0)")
        assert page.evaluate(lengths) == pytest.approx([24, 24], abs=0.1)
        sources = page.evaluate("[...document.querySelectorAll('video')].map(video => video.src)")
        assert len(set(sources)) == 2
        expect(page.locator("canvas, svg.marks").first).to_be_visible(timeout=TIMEOUT)
        assert len(list(folder.rglob("film.mp4"))) == 2
        pictures = Path(os.environ.get("TEST_ARTIFACTS", tmp_path))
        pictures.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=pictures / "demo.png", full_page=True)
        page.get_by_label("Remove").or_(page.get_by_label("Clear")).first.click()
        page.get_by_label("Capture from camera").click()
        page.get_by_text("Click to Access Webcam").click()
        page.get_by_label("start recording").click()
        page.wait_for_timeout(2000)
        page.get_by_text("Stop", exact=True).click()
        page.get_by_label("Remove").or_(page.get_by_label("Clear")).first.wait_for()
        look.click()
        expect(status).to_contain_text("sample.webm: nobody's face was", timeout=TIMEOUT * 3)
        hosts = {urlparse(url).hostname for url in asked if url.startswith(("http", "ws"))}
        assert hosts == {"127.0.0.1"}
        # A page from elsewhere does not get in, and this one loads nothing from there.
        strange = urllib.request.Request(address, headers={"Host": "example.org"})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(strange, timeout=5)
        policy = "fetch('https://example.org').then(() => 'loaded', () => 'refused')"
        assert page.evaluate(policy) == "refused"
    assert not [*folder.rglob("*.mp4"), *folder.rglob("*.webm")]
