"""A page to try a trained model on, at http://127.0.0.1:7860.

    python -m commands.demo --model runs/final
    python -m commands.demo --model runs/fold* --port 8000

Drop a video or record one with the camera; the page shows everybody in it, curves of what each
shows, and the film with all of it drawn in. `make demo` installs what it needs, Gradio.

Only this machine can open the page, which loads nothing from elsewhere and reports to nobody.
Videos and films lie in a temporary folder, and are deleted when the program ends (Ctrl-C).
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import pandas as pd

from pipeline.common.workers import num_cores
from pipeline.serving.annotated_film import write_annotated_film
from pipeline.serving.drawing import Drawing, Layers
from pipeline.serving.predictor import Predictor
from pipeline.video.container import UnusableVideo
from pipeline.video.film import Film

if TYPE_CHECKING:
    import fastapi
    import gradio

# Of a video: in bytes, and in seconds.
MAX_BYTES, MAX_SECONDS = 500 * 10**6, 600
# What the browser may load, whatever Gradio asks for.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'"
)
_PEOPLE = ["person", "seen from (s)", "to (s)", "mostly", "probability"]


class Shown(NamedTuple):
    """What the page shows of a video.

    Attributes:
        status: A sentence.
        people: A row for each person.
        table: Everybody over time, as `Predictor.predict` gives it.
        film: With all of it drawn in; None where there is none.
    """

    status: str
    people: pd.DataFrame
    table: pd.DataFrame
    film: Path | None


def look(video: Path | None, predictor: Predictor, folder: Path) -> Shown:
    """Everybody in a video, and a film in a folder; or why there is nothing to see."""
    nothing = partial(Shown, people=pd.DataFrame(columns=_PEOPLE), table=pd.DataFrame(), film=None)
    if video is None:
        return nothing("Drop a video first, or record one.")
    try:
        film = Film(video, predictor.frames)
        if film.seconds > MAX_SECONDS:
            return nothing(
                f"{video.name} is {film.seconds / 60:.0f} minutes long, and this page takes "
                f"{MAX_SECONDS // 60}; `python -m commands.predict` takes any length."
            )
        table, summary = predictor.predict(video, num_threads=num_cores())
        drawing = Drawing(
            table,
            predictor.classes,
            seconds=summary["seconds"],
            step=summary["step_seconds"],
            layers=Layers(detector=True, model=False),
        )
        out = folder / uuid4().hex / "film.mp4"
        write_annotated_film(
            video, out, drawing, predictor.frames, num_threads=num_cores(), progress=False
        )
    except UnusableVideo as error:
        return nothing(f"Not used: {error}")
    people = summary["people"]
    rows = [
        [
            person["person"],
            round(person["first"], 1),
            round(person["last"], 1),
            person["label"],
            round(person["probabilities"][person["label"]], 2),
        ]
        for person in people
    ]
    count = "1 person" if len(people) == 1 else f"{len(people)} people"
    seen = count if people else "nobody's face was followed"
    return Shown(
        f"{video.name}: {seen} in {summary['seconds']:.1f} s.",
        pd.DataFrame(rows, columns=_PEOPLE),
        table,
        out,
    )


def curves(table: pd.DataFrame, person: int | None, classes: Sequence[str]) -> pd.DataFrame | None:
    """What a person shows, as a row for each moment and class; None for nobody."""
    if person is None:
        return None
    rows = table[table["person"] == person]
    long = rows.melt(
        "seconds", [f"probability_{name}" for name in classes], "expression", "probability"
    )
    long["expression"] = long["expression"].str.removeprefix("probability_")
    return long


def build_page(predictor: Predictor, folder: Path) -> "gradio.Blocks":
    """The page; videos are taken from this folder only, and films go there."""
    import gradio as gr

    def answer(value: dict[str, Any] | None) -> list[Any]:
        # The browser says where the video lies: only what was uploaded is opened.
        path = Path(value["path"]).resolve() if value else None
        if path and not path.is_relative_to(folder.resolve()):
            raise gr.Error("That file was not uploaded.")
        shown = look(path, predictor, folder)
        numbers = shown.people["person"].tolist()
        first = numbers[0] if numbers else None
        return [
            shown.status,
            shown.people,
            gr.Dropdown(choices=numbers, value=first),
            curves(shown.table, first, predictor.classes),
            str(shown.film) if shown.film else None,
            shown.table,
        ]

    page: gr.Blocks
    with gr.Blocks(title="Expressions over time", analytics_enabled=False) as page:
        gr.Markdown(
            "# Expressions over time\nWhat faces look like to those who labelled the training "
            "clips; not what people feel. Nothing leaves this machine."
            + (f"\n\nThe model is {predictor.untested}." if predictor.untested else "")
        )
        table = gr.State(pd.DataFrame())
        with gr.Row():
            with gr.Column():
                # Without the microphone; Gradio would cut the sound out by a program of its own.
                video = gr.Video(label="video", sources=["upload", "webcam"], include_audio=False)
                button = gr.Button("Look", variant="primary")
            film = gr.Video(label="film", interactive=False)
        status = gr.Markdown(elem_id="status")
        people = gr.Dataframe(label="people", headers=_PEOPLE, interactive=False)
        person = gr.Dropdown(label="curves of person", choices=[])
        lines = gr.LinePlot(
            x="seconds",
            y="probability",
            color="expression",
            y_lim=[0, 1],
            label="probabilities",
        )
        button.click(answer, video, [status, people, person, lines, film, table], preprocess=False)
        person.input(partial(curves, classes=predictor.classes), [table, person], lines)
    page.queue(max_size=8, default_concurrency_limit=1)
    return page


class OnlyHere:
    """Tells the browser to load nothing from other hosts.

    Args:
        app: An ASGI application.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", _POLICY.encode())
                message["headers"] = [*message["headers"], policy]
            await send(message)

        await self.app(scope, receive, send_with_policy)


def application(predictor: Predictor, folder: Path) -> "fastapi.FastAPI":
    """The page as an application that answers to this machine's own names only."""
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    plain = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    app: FastAPI = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        build_page(predictor, folder),
        path="/",
        max_file_size=MAX_BYTES,
        theme=plain,
        footer_links=[],
        ssr_mode=False,
    )
    app.add_middleware(OnlyHere)
    # A page from elsewhere that calls itself by this address does not get in.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    return app


def main() -> None:
    args = _arguments()
    try:
        predictor = Predictor(args.model, args.device)
    except (OSError, ValueError) as error:
        raise SystemExit(f"demo: {error}") from error
    # Otherwise the folder would be left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="demo-") as folder, suppress(KeyboardInterrupt):
        # Read by Gradio when it is imported.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}
        os.environ["HF_HUB_OFFLINE"] = "1"
        try:
            import gradio  # noqa: F401
            import uvicorn
        except ImportError as error:
            raise SystemExit(f"demo: {error}; `make demo` installs what the page needs") from error
        print(f"the page is at http://127.0.0.1:{args.port}; Ctrl-C ends it", flush=True)
        uvicorn.run(
            application(predictor, Path(folder)),
            host="127.0.0.1",
            port=args.port,
            log_level="warning",
            timeout_graceful_shutdown=2,
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", nargs="+", type=Path, required=True, help="several answer as their mean"
    )
    parser.add_argument("--port", type=int, default=7860, help="on this machine (%(default)s)")
    parser.add_argument("--device", default="cpu", help="where the models run: cpu, cuda")
    return parser.parse_args()


if __name__ == "__main__":
    main()
