"""Why does a model score lower than it should? Each step changed alone, with the score it gives.

    python -m commands.verify runs/fold1 sample
    python -m commands.verify s4d_dfew.pt dfew --size 160 --fold 1 \\
      --classes happy sad neutral angry surprised disgust fear
    python -m commands.verify videomae_ravdess.pth ravdess --out why.md \\
      --classes neutral calm happy sad angry fear disgust surprised

MODEL is a model of this project, or a checkpoint of a VideoMAE ViT that others fine-tuned, in any
layout of docs/checkpoints.md. DATASET is your copy of the data set, as the stage label stored it
(data/shards/<dataset>). Tried are input size, scaling, sampling, crop, colour order, normalisation,
pooling and label order; the table says which of them, changed alone, would give what UAR and WAR.

Clips: those on which a model of this project was tested, by predictions.parquet beside it; else
the test part of --fold; else all labelled clips. docs/export.md says how to read the table.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from commands.pages import shards_of, show_page
from pipeline.common.clips import StoredClip, group_words
from pipeline.evaluation.classes import class_mapping
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.statistics import holm
from pipeline.folds.folds import read_fold
from pipeline.mtcae.saved import load_model
from pipeline.store.folders import Shards, read_clips
from pipeline.verify.classifiers import load_classifier
from pipeline.verify.comparison import Subject, Trial, largest_gain, trial_table, verify

_PREDICTIONS = "predictions.parquet"


def main(argv: Sequence[str] | None = None) -> None:
    args = _arguments(argv)
    weights = args.model / "model.safetensors" if args.model.is_dir() else args.model
    shards = shards_of("verify", args.dataset, args.data, args.shards)
    try:
        page = report(args, weights, shards, read_clips(shards))
    except (OSError, ValueError) as error:
        raise SystemExit(f"verify: {error}") from error
    show_page(page, args.out)


def report(
    args: argparse.Namespace, weights: Path, shards: Shards, clips: Sequence[StoredClip]
) -> str:
    """The table and what it says, in Markdown.

    Raises:
        ValueError: The model, its classes or the clips do not fit; the message says how.
    """
    subject, trained_on = _open_model(args, weights)
    chosen, whose = _choose_clips(args, weights, clips, trained_on)
    mapping = class_mapping(subject.classes, (clip.label for clip in chosen))
    known = [clip for clip in chosen if clip.label in mapping.labels]
    if args.clips and args.clips < len(known):
        known = [known[i * len(known) // args.clips] for i in range(args.clips)]
    trials = verify(subject, shards, known, mapping)
    people = len({clip.group for clip in known})
    lines = [
        f"# {weights} on {args.dataset}",
        f"{len(known)} clips of {people} {group_words(known)}: {whose}. Classes of the outputs, in "
        f"order: {', '.join(subject.classes)}. UAR is over {', '.join(mapping.common)}.",
        markdown_table(trial_table(trials)),
        _in_words(trials, group_words(known)),
    ]
    if stored := _stored_score(weights, known):
        lines.insert(2, f"Its training wrote a UAR of {stored:.1%} for these clips.")
    return "\n\n".join(lines) + "\n"


def _open_model(args: argparse.Namespace, weights: Path) -> tuple[Subject, str | None]:
    """The model, and the data set that it was trained on where its file tells."""
    if weights.with_suffix(".json").is_file():
        if args.classes or args.size or args.head:
            raise ValueError(
                f"{weights.with_suffix('.json')} tells classes, size and head; --classes, --size "
                "and --head are for models of others"
            )
        model, metadata = load_model(weights)
        crops = metadata["recipes"]["evaluation"]["crops"]
        return Subject(model, crops, metadata["classes"]), metadata["dataset"]
    classifier = load_classifier(
        weights, image_size=args.size or 224, num_frames=args.frames, head=args.head
    )
    count = classifier.head.out_features
    if args.classes is None or len(args.classes) != count:
        raise ValueError(
            f"{weights} has {count} outputs and no names for them: name {count} classes in the "
            "order that you believe to be right, --classes angry disgust ..."
        )
    return Subject(classifier, 1, args.classes), None


def _choose_clips(
    args: argparse.Namespace,
    weights: Path,
    clips: Sequence[StoredClip],
    trained_on: str | None,
) -> tuple[list[StoredClip], str]:
    """Clips to test, and which they are, in words."""
    predictions = weights.with_name(_PREDICTIONS)
    if args.fold is not None:
        path = args.data / "folds" / f"{args.dataset}.csv"
        rows = read_fold(path, args.fold).rows(clips, "test")
        return [clips[i] for i in rows], f"the test of fold {args.fold} in {path}"
    if trained_on != args.dataset:
        return list(clips), "all that are stored"
    if not predictions.is_file():
        raise ValueError(
            f"{weights} was trained on {args.dataset} itself, and there is no {_PREDICTIONS} "
            "beside it that tells the clips it never saw: name its fold with --fold"
        )
    tested = set(pd.read_parquet(predictions, columns=["clip"])["clip"])
    chosen = [clip for clip in clips if clip.clip in tested]
    if not chosen:
        raise ValueError(f"none of the clips in {predictions} is in the shards of {args.dataset}")
    return chosen, f"those of {predictions}"


def _stored_score(weights: Path, clips: Sequence[StoredClip]) -> float | None:
    """The UAR of what stage finetune wrote of the clips; None where it wrote nothing of them."""
    path = weights.with_name(_PREDICTIONS)
    if not path.is_file():
        return None
    table = pd.read_parquet(path).set_index("clip")
    names = [clip.clip for clip in clips if clip.clip in table.index]
    if not names:
        return None
    rows = table.loc[names]
    return float((rows["actual"] == rows["predicted"]).groupby(rows["actual"]).mean().mean())


def _in_words(trials: Sequence[Trial], groups: str) -> str:
    best = largest_gain(trials)
    if best is None or best.gain is None:
        return "No change of a single step gives a higher UAR."
    gains = [trial.gain for trial in trials if trial.gain is not None]
    corrected = holm([gain.uar_p_value for gain in gains])
    p_value = corrected[gains.index(best.gain)]
    doubt = "" if p_value < 0.05 else ": it may be luck"
    gain = f"{best.step}, {best.name}: {best.gain.uar.value:+.1%}"
    return (
        f"The largest gain: {gain} (p = {p_value:.2g} over {groups}, corrected for {len(gains)} "
        f"changes{doubt}). It is a reason to look at that step of the two codes, and no score to "
        "publish."
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="runs/fold1 and the like, or a checkpoint")
    parser.add_argument("dataset", help="whose shards are predicted")
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="folder of the data (%(default)s)"
    )
    parser.add_argument("--shards", help="in place of <data>/shards/<dataset>; may be an address")
    parser.add_argument("--fold", type=int, help="test its part of <data>/folds/<dataset>.csv")
    parser.add_argument("--clips", type=int, help="at most so many, evenly chosen; default: all")
    parser.add_argument("--out", type=Path, help="also write the page to this file")
    foreign = parser.add_argument_group("models of others")
    foreign.add_argument("--classes", nargs="+", help="in the order of the outputs")
    foreign.add_argument("--size", type=int, help="side of a frame in pixels (default: 224)")
    foreign.add_argument("--frames", type=int, default=16, help="of a clip (default: 16)")
    foreign.add_argument("--head", help="of several: the name of the one that is meant")
    args = parser.parse_args(argv)
    if args.clips is not None and args.clips < 1:
        parser.error("--clips takes a number from 1 on")
    return args


if __name__ == "__main__":
    main()
