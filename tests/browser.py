"""A real headless Chromium for tests, and MLflow's pages in it."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from project import ROOT

# Milliseconds; a busy machine takes its time.
TIMEOUT = 60_000


@contextmanager
def browser_page() -> Iterator[Page]:
    """An empty page in a Chromium of its own; the test is skipped where none is installed."""
    executable = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if executable is None:
        pytest.skip("no chromium or google-chrome on PATH: the pages are not opened in a browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=[
                "--no-sandbox",
                "--disable-background-networking",
                "--disable-component-update",
                # A camera that shows a moving pattern, and is given to a page that asks.
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        # MLflow leaves columns out that do not fit.
        page = browser.new_page(viewport={"width": 2200, "height": 1800})
        page.set_default_timeout(TIMEOUT)
        yield page
        browser.close()


@contextmanager
def mlflow_server(store: Path, artifacts: Path) -> Iterator[str]:
    """Address of MLflow's pages over a store, mlflow.db, on this machine only."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{store}"),
        *("--artifacts-destination", str(artifacts), "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1"),
    ]
    switches = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = store.with_name("server.log")
    with log.open("w") as output:
        # A group of its own: the server starts workers, which have to end with it.
        server = subprocess.Popen(
            command,
            env={**os.environ, **switches},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + TIMEOUT / 1000
        while not _answers(f"{address}/health"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)


@contextmanager
def pages_of_the_project(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """What `python -m commands.ui` prints in a folder, while its pages are there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "commands.ui", "--port", str(port)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdout
        lines = list(iter(server.stdout.readline, "Ctrl-C ends the pages.\n"))
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + TIMEOUT / 1000
        while not _answers(f"{address}/health"):
            assert server.poll() is None, lines
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield address, [line.strip() for line in lines]
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)


def compare_runs(page: Page, base_url: str, experiment_id: str, run_names: list[str]) -> str:
    """Select the runs in MLflow's table and press Compare; the text of the page that opens.

    Numbers are shown with three decimals, without zeros at the end: str(round(x, 3)).
    """
    page.goto(f"{base_url}/#/experiments/{experiment_id}/runs")
    for name in run_names:
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))
        row.get_by_role("checkbox", name="toggle row selection").check()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.wait_for_url("**/compare-runs*")
    page.get_by_role("heading", name=f"Comparing {len(run_names)} Runs").wait_for()
    # The numbers come a moment after the headings.
    expect(page.get_by_role("grid").last).to_contain_text(re.compile(r"\d"), timeout=TIMEOUT)
    return page.locator("body").inner_text()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False
