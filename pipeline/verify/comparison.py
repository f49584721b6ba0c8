"""Why a model scores otherwise than it should: each step changed alone, with the score it gives.

Shape letters: B clips at once, N clips, A answers, C classes of the model.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.common.clips import StoredClip
from pipeline.evaluation.classes import ClassMapping
from pipeline.evaluation.statistics import (
    Comparison,
    Counts,
    paired_difference,
    subject_confusions,
)
from pipeline.models.video_encoders import VideoEncoder, new_video_encoder
from pipeline.mtcae.model import MTCAE, Predictions
from pipeline.mtcae.view_mean import ViewMean
from pipeline.scores.metrics import Labels, recalls
from pipeline.store.folders import Shards, read_contents
from pipeline.verify.classifiers import VideoClassifier
from pipeline.verify.label_orders import best_order, known_orders, renumber
from pipeline.verify.readings import Change, Reading, read_strip, single_changes

_BATCH = 16
_NUM_RESAMPLES, _SEED = 2000, 1


@dataclass(frozen=True)
class Subject:
    """What is verified.

    Attributes:
        model: In evaluation mode.
        num_crops: Windows of a frame that its test averages over.
        classes: C names in the order of its outputs.
    """

    model: MTCAE | VideoClassifier
    num_crops: int
    classes: list[str]

    @property
    def usual(self) -> Reading:
        """How it is read."""
        encoder = self.model.encoder
        pooling = self.model.pooling if isinstance(self.model, VideoClassifier) else None
        mean, std = (tuple(values.flatten().tolist()) for values in (encoder.mean, encoder.std))
        return Reading(encoder.size.image_size, (mean, std), pooling)


class Trial(NamedTuple):
    """A step that was changed, and what came of it; the first trial changes nothing.

    Attributes:
        uar: Of the clips.
        war: Likewise.
        gain: Over the first trial; None of that one.
    """

    step: str
    name: str
    uar: float
    war: float
    gain: Comparison | None


def verify(
    subject: Subject, shards: Shards, clips: Sequence[StoredClip], mapping: ClassMapping
) -> list[Trial]:
    """Test a model as it is, and with each step changed.

    Args:
        subject: The model.
        shards: Where the clips are.
        clips: N, whose labels the mapping knows.
        mapping: Of the model's classes and the clips' labels.

    Raises:
        ValueError: The clips have no whole number of samplings of the model's frames.
    """
    labels = np.array([mapping.answers.index(mapping.labels[clip.label]) for clip in clips])
    people = [clip.group for clip in clips]
    usual = subject.usual
    changes = [
        Change("", "as it is", usual),
        *single_changes(usual, subject.model.encoder.size.patch_size),
    ]
    predicted: dict[tuple[str, str], Labels] = {}
    for change in tqdm(changes, desc="verifying", unit="change", leave=False, disable=None):
        outputs = _outputs(subject, change.reading, shards, clips)
        joined = [outputs[:, columns].sum(axis=1) for columns in mapping.columns]
        predicted[change.step, change.name] = np.stack(joined, axis=1).argmax(axis=1)
    # Where two outputs speak for one answer, an order of answers is none of outputs.
    if len(mapping.answers) == len(subject.classes):
        said = predicted["", "as it is"]
        for order in [*known_orders(mapping.answers), best_order(mapping.answers, labels, said)]:
            if order.classes != mapping.answers:
                predicted["label order", order.name] = renumber(said, mapping.answers, order)
    num_answers = len(mapping.answers)
    first: Counts | None = None
    trials = []
    for (step, name), answers in predicted.items():
        scores = recalls(labels, answers, num_answers)
        counts = subject_confusions(labels, answers, people, num_answers)[None]
        gain = None
        if first is None:
            first = counts
        else:
            gain = paired_difference(counts, first, num_resamples=_NUM_RESAMPLES, seed=_SEED)
        trials.append(Trial(step, name, scores.uar, scores.war, gain))
    return trials


def trial_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """A row per trial, in words."""
    rows = []
    for trial in trials:
        gain = ""
        if trial.gain is not None:
            uar = trial.gain.uar
            interval = "" if np.isnan(uar.low) else f" ({uar.low:+.1%} to {uar.high:+.1%})"
            gain = f"{uar.value:+.1%}{interval}"
        rows.append(
            {
                "step": trial.step or "-",
                "changed to": trial.name,
                "UAR": f"{trial.uar:.1%}",
                "WAR": f"{trial.war:.1%}",
                "gain in UAR": gain,
            }
        )
    return pd.DataFrame(rows)


def largest_gain(trials: Sequence[Trial]) -> Trial | None:
    """The change that helps most; None where none helps.

    An order of labels that was chosen on these clips cannot lose, so it counts only where nothing
    else gives as much.
    """
    changed = [trial for trial in trials if trial.gain is not None and trial.uar > trials[0].uar]
    return max(
        changed, key=lambda trial: (trial.uar, not trial.name.startswith("best of")), default=None
    )


@torch.no_grad()
def _outputs(
    subject: Subject, reading: Reading, shards: Shards, clips: Sequence[StoredClip]
) -> npt.NDArray[np.float32]:
    """Probabilities (N, C)."""
    module = _module(subject, reading)
    parts = []
    for frames in _batches(reading, shards, clips):
        pixels = torch.from_numpy(frames).permute(0, 1, 4, 2, 3)
        parts.append(module(pixels).logits.float().softmax(dim=1).numpy())
    return np.concatenate(parts)


def _batches(
    reading: Reading, shards: Shards, clips: Sequence[StoredClip]
) -> Iterator[npt.NDArray[np.uint8]]:
    for start in range(0, len(clips), _BATCH):
        contents = read_contents(shards, clips[start : start + _BATCH])
        yield np.stack([read_strip(content.strip, reading) for content in contents])


def _module(subject: Subject, reading: Reading) -> ViewMean:
    """The model as a reading has it."""
    model = copy.deepcopy(subject.model)
    encoder = model.encoder
    mean, std = reading.normalisation
    encoder.mean.copy_(torch.tensor(mean).view(3, 1, 1))
    encoder.std.copy_(torch.tensor(std).view(3, 1, 1))
    if reading.size != encoder.size.image_size:
        model.encoder = _resized(encoder, reading.size)
    if isinstance(model, VideoClassifier):
        assert reading.pooling is not None
        model.pooling = reading.pooling
        views: nn.Module = _AsPredictions(model)
    else:
        views = model
    return ViewMean(views, num_frames=encoder.num_frames, num_crops=subject.num_crops).eval()


def _resized(encoder: VideoEncoder, image_size: int) -> VideoEncoder:
    """The same encoder for frames of another size, with positions for their grid."""
    size = encoder.size.model_copy(update={"image_size": image_size})
    resized = new_video_encoder(size, num_frames=encoder.num_frames)
    resized.load_state_dict(encoder.state_dict())
    return resized


class _AsPredictions(nn.Module):
    def __init__(self, classifier: VideoClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, frames: Tensor) -> Predictions:
        return Predictions(None, None, self.classifier(frames))
