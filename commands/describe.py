"""The data card of a labelled data set: who, what, how long, and a sheet of labelled frames.

    python -m commands.describe ravdess [--shards https://host/shards/ravdess]

writes data/cards/ravdess/card.md and, with faces in it and so never into git or MLflow,
data/cards/ravdess/contact_sheet.png.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from pipeline.common.clips import StoredClip, group_words
from pipeline.common.files import atomic_path
from pipeline.evaluation.markdown import markdown_table
from pipeline.folds.folds import Fold, read_folds
from pipeline.store.contents import ClipContent
from pipeline.store.folders import Shards, open_shards, read_clips, read_contents
from pipeline.store.strips import decode_strip, strip_size

NUM_EXAMPLES = 16
NEVER = "never tested"
_COLUMNS = 4
_CAPTION = 20  # pixels below a frame


def main(dataset: str, shards: Shards, data: Path) -> None:
    """Write the card of the data set with these shards, whose folds are below `data`."""
    clips = read_clips(shards)
    folds = read_folds(data / "folds" / f"{dataset}.csv")
    detected = {
        clip.clip: float(content.track.mask.mean())
        for clip, content in zip(clips, read_contents(shards, clips), strict=True)
    }
    chosen = examples(clips)
    pictures = list(map(draw_example, read_contents(shards, chosen), chosen))
    out = data / "cards" / dataset
    with atomic_path(out / "card.md") as temporary:
        temporary.write_text(card(dataset, clips, folds, detected), encoding="utf-8")
    with atomic_path(out / "contact_sheet.png") as temporary:
        contact_sheet(pictures).save(temporary)
    print(f"{out / 'card.md'} and {out / 'contact_sheet.png'} (with faces: keep it to yourself)")


def examples(clips: Sequence[StoredClip]) -> list[StoredClip]:
    """Up to 16 clips: as many of each class as of any other, spread evenly over its subjects."""
    by_class: dict[str, list[StoredClip]] = {}
    for clip in sorted(clips, key=lambda clip: (clip.label, clip.group, clip.clip)):
        by_class.setdefault(clip.label, []).append(clip)
    places: Counter[str] = Counter()
    # Places are dealt one class after the other, until they or the clips are used up.
    for taken, label in product(range(NUM_EXAMPLES), by_class):
        if places.total() < NUM_EXAMPLES and taken < len(by_class[label]):
            places[label] += 1
    # Each class begins a little later among its subjects than the one before: other people.
    return [
        of_class[int((i + (c + 0.5) / len(by_class)) * len(of_class) / places[label])]
        for c, (label, of_class) in enumerate(by_class.items())
        for i in range(places[label])
    ]


def card(
    dataset: str, clips: Sequence[StoredClip], folds: Sequence[Fold], detected: dict[str, float]
) -> str:
    """The data set in Markdown tables.

    Args:
        dataset: Its name.
        clips: The clips in the shards.
        folds: Counted by their test clips.
        detected: Of each clip, the fraction of its frames in which the face was found.
    """
    tested_in = {
        clip: fold.number for fold in folds for clip, part in fold.parts.items() if part == "test"
    }
    table = pd.DataFrame(
        {
            "class": [clip.label for clip in clips],
            "sex": [clip.sex or "unknown" for clip in clips],
            "subject": [clip.group for clip in clips],
            "fold": pd.Categorical(
                [str(tested_in.get(clip.clip, NEVER)) for clip in clips],
                [*(str(fold.number) for fold in folds), NEVER],
            ),
            "seconds": [clip.seconds for clip in clips],
            "frames": [clip.num_frames for clip in clips],
            "detected": [detected[clip.clip] for clip in clips],
        }
    )
    groups = group_words(clips)
    lengths = table[["seconds", "frames"]].replace(0, np.nan).agg(["min", "median", "max"])
    lengths = lengths.rename_axis("length").round(2).reset_index()
    parts = [
        f"# {dataset}: {len(table)} clips of {table['subject'].nunique()} {groups}",
        f"MTCNN found the face in {table['detected'].mean():.1%} of the frames; in all frames of "
        f"{(table['detected'] == 1).mean():.1%} of the clips. Clips that were refused are in "
        "metrics/data_quality.json, not here.",
        "## Clips of each class, by the fold that tests them",
        _counts(table, "class", "fold"),
        "## Lengths",
        markdown_table(lengths),
        f"Files that declare no length, left out of the seconds: {(table['seconds'] == 0).sum()}.",
    ]
    if groups == "subjects":
        people = table.drop_duplicates("subject")
        parts += ["## Subjects by the fold that tests them", _counts(people, "sex", "fold")]
    if groups != "clips":
        one = "subject" if groups == "subjects" else "group"
        parts += [f"## Clips of each {one}", _counts(table, "subject", "class")]
    return "\n\n".join(parts) + "\n"


def _counts(table: pd.DataFrame, rows: str, columns: str) -> str:
    counts = pd.crosstab(table[rows], table[columns], margins=True, margins_name="all")
    return markdown_table(counts.reset_index())


def draw_example(content: ClipContent, clip: StoredClip) -> Image.Image:
    """The middle one of the clip's frames with a face, its box and landmarks drawn, and a caption.

    Green is the box; the points are red on the left of the picture and blue on the right.
    """
    size = strip_size(content.strip)
    known = np.flatnonzero(content.track.mask)
    frame = int(known[len(known) // 2])
    picture = Image.new("RGB", (size, size + _CAPTION), "white")
    picture.paste(Image.fromarray(decode_strip(content.strip, size)[frame]))
    draw = ImageDraw.Draw(picture)
    draw.rectangle(tuple(content.track.boxes[frame].tolist()), outline="lime", width=2)
    colours = ("red", "blue", "yellow", "red", "blue")
    for (x, y), colour in zip(content.track.points[frame].tolist(), colours, strict=True):
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
    caption = f"{clip.label}, {clip.group}, {clip.times[frame]:.2f} s"
    draw.text((4, size + 3), caption, "black", ImageFont.load_default(13))
    return picture


def contact_sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """The pictures in rows of four."""
    width, height = pictures[0].size
    num_rows = -(-len(pictures) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width, num_rows * height), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % _COLUMNS * width, i // _COLUMNS * height))
    return sheet


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", help="a data set whose shards and folds exist")
    parser.add_argument("--shards", help="in place of <data>/shards/<dataset>; may be an address")
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="folder of the data (%(default)s)"
    )
    arguments = parser.parse_args()
    default = str(arguments.data / "shards" / arguments.dataset)
    main(arguments.dataset, open_shards(arguments.shards or default), arguments.data)
