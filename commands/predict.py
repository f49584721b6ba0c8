"""Expressions of everybody in videos and pictures, over time, by trained models.

    python -m commands.predict interview.mp4 --model runs/fold1 --out results
    python -m commands.predict videos/ "more/*.mov" --model runs/fold* --out results --film
    python -m commands.predict a.mp4 --model runs/fold1 --affect data/affect/runs/* --out results

Every person is followed through the video. A window as long as the training clips slides over it,
and the model says of each window what everybody shows; several models (the folds of an experiment)
answer as their mean. With --affect, models of `make affect` say valence, arousal and action units
of each moment as well. For each video the folder gets a table as .parquet and .csv, with a row for
each person and moment, a summary as .json and, with --film, an .mp4 with all of it drawn in; and
all.videos.csv lists the videos, with what is wrong with those that cannot be used. docs/predict.md
says more.

The exit code is 1 where a video could not be used; the others are done all the same.
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    # Before torch is imported; see stages/finetune.py.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import pandas as pd

from pipeline.common.files import atomic_path, write_json
from pipeline.common.workers import Folders, map_in_processes, num_cores
from pipeline.serving.annotated_film import write_annotated_film
from pipeline.serving.drawing import Drawing, Layers
from pipeline.serving.model_files import ModelFiles
from pipeline.serving.predictor import Predictor
from pipeline.serving.video_files import find_videos, names_of
from pipeline.serving.windows import WindowChoice
from pipeline.video.container import UnusableVideo
from pipeline.video.picture_file import is_picture

LIST = "all.videos.csv"  # The names of the other files hold no dot.


class Wishes(NamedTuple):
    """What is to be done with a video.

    Attributes:
        windows: Of it that the models look at.
        film: What is drawn into a copy of it; None: no film.
    """

    windows: WindowChoice
    film: Layers | None


class Task(NamedTuple):
    """A video, and the name of its files in the folder of results."""

    video: Path
    name: str


def main() -> None:
    args = _arguments()
    files = ModelFiles(args.model, args.affect, args.affect_cnn)
    try:
        videos = find_videos(args.videos)
        predictor = files.open(args.device)
        windows = predictor.windows(args.length, args.hop)
    except (OSError, ValueError) as error:
        raise SystemExit(f"predict: {error}") from error
    layers = {
        "detector": Layers(detector=True, model=False),
        "model": Layers(detector=False, model=True),
        "both": Layers(detector=True, model=True),
    }
    wishes = Wishes(windows, layers[args.draw] if args.film else None)
    args.out.mkdir(parents=True, exist_ok=True)
    tasks = [Task(video, name) for video, name in zip(videos, names_of(videos), strict=True)]
    if len(tasks) == 1 or args.device != "cpu":
        rows = [
            predict(task, predictor, args.out, wishes, num_threads=num_cores(), progress=True)
            for task in tasks
        ]
    else:
        rows = list(
            map_in_processes(
                partial(_predict_in_worker, out=args.out.absolute(), wishes=wishes),
                [Task(task.video.absolute(), task.name) for task in tasks],
                "predicting",
                initializer=_start_worker,
                initargs=(files.absolute(),),
                on_crash=_crashed,
                folders=Folders(read=files.absolute().paths(), written=[args.out]),
            )
        )
    table = pd.DataFrame(rows)
    with atomic_path(args.out / LIST) as temporary:
        table.to_csv(temporary, index=False)
    for row in rows:
        print(_in_words(row))
    if predictor.untested:
        print(f"a model that answered is {predictor.untested}")
    if table["problem"].ne("").any():
        raise SystemExit(1)


def predict(
    task: Task,
    predictor: Predictor,
    out: Path,
    wishes: Wishes,
    *,
    num_threads: int,
    progress: bool,
) -> dict[str, Any]:
    """Write what is said of one video; its row of the list comes back."""
    try:
        prediction = predictor.predict(
            task.video, wishes.windows, num_threads=num_threads, progress=progress
        )
        table, summary = prediction
        with atomic_path(out / f"{task.name}.parquet") as temporary:
            table.to_parquet(temporary, index=False)
        with atomic_path(out / f"{task.name}.csv") as temporary:
            table.to_csv(temporary, index=False)
        write_json(out / f"{task.name}.json", summary)
        if wishes.film and not is_picture(task.video):
            drawing = Drawing(
                table,
                predictor.classes,
                seconds=summary["seconds"],
                step=summary["step_seconds"],
                layers=wishes.film,
            )
            write_annotated_film(
                task.video,
                out / f"{task.name}.mp4",
                drawing,
                predictor.frames,
                num_threads=num_threads,
                progress=progress,
            )
    except UnusableVideo as error:
        return _row(task, problem=str(error))
    people = summary["people"]
    main_person = max(people, key=lambda person: person["moments"], default=None)
    return _row(
        task,
        seconds=summary["seconds"],
        people=len(people),
        label=main_person["label"] if main_person else "",
    )


def _row(
    task: Task, *, seconds: float = 0.0, people: int = 0, label: str = "", problem: str = ""
) -> dict[str, Any]:
    return {
        "video": str(task.video),
        "name": task.name,
        "seconds": seconds,
        "people": people,
        "label": label,
        "problem": problem,
    }


_predictor: Predictor


def _start_worker(files: ModelFiles) -> None:
    global _predictor
    _predictor = files.open("cpu", num_threads=1)


def _predict_in_worker(task: Task, out: Path, wishes: Wishes) -> dict[str, Any]:
    return predict(task, _predictor, out, wishes, num_threads=1, progress=False)


def _crashed(task: Task) -> dict[str, Any]:
    return _row(
        task,
        problem=f"{task.video.name}: the decoder crashed or ran out of memory; convert the video "
        "with ffmpeg",
    )


def _in_words(row: dict[str, Any]) -> str:
    if row["problem"]:
        return f"not used: {row['problem']}"
    if not row["people"]:
        return f"{row['name']}: nobody's face was followed in {row['seconds']:.1f} s"
    people = "1 person" if row["people"] == 1 else f"{row['people']} people"
    return f"{row['name']}: {people} in {row['seconds']:.1f} s, mostly {row['label']}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="+", help="files, folders, patterns")
    parser.add_argument(
        "--model",
        nargs="+",
        type=Path,
        required=True,
        help="runs/fold1 and the like, or model.safetensors files; several answer as their mean",
    )
    parser.add_argument(
        "--affect",
        nargs="+",
        type=Path,
        default=[],
        help="data/affect/runs/fold1-seed1 and the like: they add valence, arousal, action units; "
        "several answer as their mean",
    )
    parser.add_argument(
        "--affect-cnn",
        type=Path,
        default=Path("data/affect/cnn"),
        help="folder of the CNN that these were trained with (default: data/affect/cnn)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--length", type=float, help="of a window, in seconds (default: of the training clips)"
    )
    parser.add_argument(
        "--hop",
        type=float,
        help="from one window to the next, in seconds (default: a quarter of the length)",
    )
    parser.add_argument("--film", action="store_true", help="write an annotated film, too")
    parser.add_argument(
        "--draw",
        choices=["detector", "model", "both"],
        default="detector",
        help="whose boxes and landmarks the film shows (default: the detector's)",
    )
    parser.add_argument("--device", default="cpu", help="where the models run: cpu, cuda")
    return parser.parse_args()


if __name__ == "__main__":
    main()
