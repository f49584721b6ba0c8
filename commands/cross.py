"""Trained models on another data set: the tables of the aggregate stage, with a row per model.

    python -m commands.cross --model runs/fold1/model.safetensors --dataset cremad

predicts every clip in data/shards/cremad, or where `--shards` says, whose class the model knows. A
class that the data set lacks stays an answer, a wrong one, unless `--restrict` renormalises over
the common classes: an easier task, whose scores compare only with one another.

    python -m commands.cross --matrix --model ravdess/fold*/*.safetensors cremad/fold*/*.safetensors

tests the models of every data set on every data set that has shards here: a table and a heat map.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from commands.cross_matrix import cross_matrix
from commands.cross_testing import Reading, answer_elsewhere, encoders_in_words, read_models
from commands.pages import shards_of, show_page
from pipeline.common.clips import group_words
from pipeline.evaluation.cross_tables import coverage, tables
from pipeline.store.folders import Shards, read_clips


def cross_evaluate(paths: Sequence[Path], dataset: str, shards: Shards, reading: Reading) -> str:
    """Predict the labelled clips of a data set with models of another one: a page of Markdown.

    Args:
        paths: Weights that `save_model` wrote; several are the folds of one experiment.
        dataset: Whose clips are predicted.
        shards: Its clips.
        reading: How.

    Raises:
        ValueError: A model was trained on this data set; or see `answer_elsewhere`.
    """
    models = read_models(paths)
    for path, one in models.items():
        if one.metadata["dataset"] == dataset:
            raise ValueError(
                f"{path} was trained on {dataset} itself and has seen most of its subjects; name "
                "another data set, and see metrics/table.md for the subjects each fold never saw"
            )
    counts, mapping, answers = answer_elsewhere(models, shards, reading)
    classes = next(iter(models.values())).metadata["classes"]
    subjects = next(iter(answers.values())).subjects
    trained_on = ", ".join(sorted({one.metadata["dataset"] for one in models.values()}))
    kept_apart = ", classes restricted to the common ones" if reading.restrict else ""
    covered = coverage(counts, classes, mapping, restrict=reading.restrict)
    encoders = [f"- {line}" for line in encoders_in_words(models, dataset, subjects)]
    return "\n\n".join(
        [
            f"# Trained on {trained_on}, tested on {dataset}{kept_apart}",
            "\n".join([covered, *encoders]),
            *tables(
                {str(path): one for path, one in answers.items()},
                mapping,
                group_words(read_clips(shards)),
            ),
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="folders of runs/, or model.safetensors",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--dataset", help="whose shards are predicted")
    where.add_argument(
        "--matrix",
        type=Path,
        nargs="?",
        const=Path("reports/cross"),
        metavar="FOLDER",
        help="test on all data sets; the folder gets matrix.md, .csv and .png (%(const)s)",
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="folder of the data (%(default)s)"
    )
    parser.add_argument("--shards", help="in place of <data>/shards/<dataset>; may be an address")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    parser.add_argument("--restrict", action="store_true", help="answer common classes only")
    parser.add_argument("--batch-size", type=int, default=16, help="clips at once (%(default)s)")
    parser.add_argument(
        "--num-workers", type=int, default=0, help="processes that read clips (%(default)s)"
    )
    args = parser.parse_args(argv)
    reading = Reading(args.restrict, args.batch_size, args.num_workers)
    try:
        if args.matrix:
            page = cross_matrix(read_models(args.model), args.data, args.matrix, reading)
        else:
            shards = shards_of("cross", args.dataset, args.data, args.shards)
            page = cross_evaluate(args.model, args.dataset, shards, reading)
    except (ConnectionError, FileNotFoundError, ValueError) as error:
        raise SystemExit(f"cross: {error}") from error
    show_page(page, args.out)


if __name__ == "__main__":
    main()
