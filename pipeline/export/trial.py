"""What an exported model says beside the saved one: on its test clips, else on noise.

Shape letters: B clips, N stored frames of a clip, I side of a frame in pixels, C classes.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.export.graph import difference, random_frames
from pipeline.feed.loader import load_in_order
from pipeline.scores.metrics import recalls
from pipeline.serving.models import ServedModel
from pipeline.store.folders import open_shards, read_clips
from pipeline.store.stored_frames import StoredFrames

_BATCH = 8
_NUM_RANDOM, _SEED = 5, 1


class Frames(NamedTuple):
    """B clips: uint8 RGB frames (B, N, I, I, 3), and where known the classes' numbers (B,)."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64] | None


class Comparison(NamedTuple):
    """An exported model beside the saved one.

    Attributes:
        clips: How many both have seen.
        of_test: Whether these were the test clips of the fold, or noise.
        difference: The largest one in probabilities, and in places as fractions of the frame.
        answered_otherwise: Clips with another most probable class.
        uar: Of the saved and of the exported model; None on noise.
    """

    clips: int
    of_test: bool
    difference: float
    answered_otherwise: int
    uar: tuple[float, float] | None

    def in_words(self, name: str) -> str:
        """A sentence for the terminal and the card."""
        kind = "test clips of the fold" if self.of_test else "clips of noise"
        text = (
            f"{name} and the saved model differ by up to {self.difference:.2g} (probabilities, and "
            f"places as fractions of the frame) on {self.clips} {kind}"
        )
        if self.uar is None:
            return f"{text}."
        saved, exported = self.uar
        return (
            f"{text}, answer {self.answered_otherwise} of them otherwise, and have a UAR of "
            f"{exported:.2%} and {saved:.2%}."
        )


def tested_clips(weights: Path, shards: str, image_size: int) -> Iterator[Frames] | None:
    """The clips that a fold's model was tested on, out of the shards; None where they are absent.

    Args:
        weights: With predictions.parquet beside it, which names the clips.
        shards: Folder or address.
        image_size: I.

    Raises:
        ValueError: The shards lack a clip that was tested.
    """
    predictions = weights.with_name("predictions.parquet")
    folder = open_shards(shards)
    if not predictions.is_file():
        return None
    try:
        clips = read_clips(folder)
    except FileNotFoundError:
        return None
    table = pd.read_parquet(predictions, columns=["clip", "actual"])
    tested = set(table["clip"])
    chosen = [clip for clip in clips if clip.clip in tested]
    if len(chosen) < len(tested):
        raise ValueError(
            f"{folder} lacks {len(tested) - len(chosen)} of the {len(tested)} clips that {weights} "
            "was tested on; name the shards of its training with --shards"
        )
    prefix = "probability_"
    names = pd.read_parquet(predictions).columns
    classes = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    frames = StoredFrames(folder, chosen, classes=classes, image_size=image_size)
    return (
        Frames(
            batch.inputs.permute(0, 1, 3, 4, 2).numpy(),
            batch.targets["expression"].values.numpy(),
        )
        for batch in load_in_order(frames, batch_size=_BATCH)
    )


def noise(num_stored: int, image_size: int) -> Iterator[Frames]:
    """One clip alone, and several at once."""
    for count in (1, _NUM_RANDOM - 1):
        pixels = random_frames(count, num_stored=num_stored, image_size=image_size, seed=_SEED)
        yield Frames(pixels, None)


def compare(
    saved: ServedModel, exported: Mapping[str, ServedModel], batches: Iterator[Frames]
) -> dict[str, Comparison]:
    """Ask the saved model and exported ones about the same clips, which are read once."""
    labels: list[npt.NDArray[np.int64]] = []
    expected: list[npt.NDArray[np.int64]] = []
    answers: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in exported}
    largest = dict.fromkeys(exported, 0.0)
    num_classes = 0
    for batch in batches:
        right = saved.ask(batch.pixels)
        num_classes = right.probabilities.shape[1]
        expected.append(right.probabilities.argmax(axis=1))
        if batch.labels is not None:
            labels.append(batch.labels)
        for name, model in exported.items():
            said = model.ask(batch.pixels)
            answers[name].append(said.probabilities.argmax(axis=1))
            largest[name] = max(largest[name], difference(right, said))
    truth = np.concatenate(labels) if labels else None
    by_saved = np.concatenate(expected)

    def uar(predicted: npt.NDArray[np.int64]) -> float:
        assert truth is not None
        return recalls(truth, predicted, num_classes).uar

    compared = {}
    for name, parts in answers.items():
        found = np.concatenate(parts)
        compared[name] = Comparison(
            len(found),
            truth is not None,
            largest[name],
            int((found != by_saved).sum()),
            None if truth is None else (uar(by_saved), uar(found)),
        )
    return compared
