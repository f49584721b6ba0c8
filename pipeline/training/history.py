"""The learning curve of a training, and how far the training is."""

from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.mtcae.predictions import Evaluation
from pipeline.scores.metrics import recalls
from pipeline.training.step import Taken


class Epoch(NamedTuple):
    """One line of the learning curve; training losses are means over batches, by clips."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_box_loss: float
    train_point_loss: float
    train_expression_loss: float
    validation_loss: float
    validation_expression_loss: float
    validation_uar: float
    validation_war: float
    clips_per_second: float
    data_wait: float
    """Share of the training time, from 0 to 1, in which the device waited for clips."""
    peak_memory: float
    """Largest so far, in GB: of tensors on a GPU, of the process on a CPU."""
    seconds: float


# Of an epoch, what the clock or the machine says: not the same in every run.
MEASURED = ("clips_per_second", "data_wait", "peak_memory", "seconds")


@dataclass
class Progress:
    """How far a training is, in plain numbers."""

    epoch: int = 1
    """The one that is at work; all before it are in the history."""
    step: int = 0
    """Steps taken in it."""
    loss_sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    """Losses of its steps, times their clips."""
    num_clips: int = 0
    seconds: float = 0.0
    seconds_waiting: float = 0.0
    history: list[tuple[float, ...]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: tuple[float, float] = (-1.0, 0.0)

    def add(self, taken: Taken, seconds: float, waiting: float) -> None:
        """Count a step."""
        self.step += 1
        self.num_clips += taken.num_clips
        self.loss_sums = [
            before + taken.num_clips * loss
            for before, loss in zip(self.loss_sums, taken.losses, strict=True)
        ]
        self.seconds += seconds
        self.seconds_waiting += waiting

    def finish_epoch(self, line: Epoch) -> None:
        """Close the epoch, whose line this is, and begin the next one."""
        self.history.append(tuple(line))
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sums, self.num_clips = [0.0] * 4, 0
        self.seconds = self.seconds_waiting = 0.0


def epoch_line(
    progress: Progress, checked: Evaluation, learning_rate: float, memory: int, seconds: float
) -> Epoch:
    """The line of an epoch whose steps are done, given what validation said and took."""
    scores = recalls(
        checked.labels, checked.probabilities.argmax(axis=1), checked.probabilities.shape[1]
    )
    means = [loss / progress.num_clips for loss in progress.loss_sums]
    return Epoch(
        progress.epoch,
        learning_rate,
        train_loss=means[0],
        train_box_loss=means[1],
        train_point_loss=means[2],
        train_expression_loss=means[3],
        validation_loss=checked.losses["total"],
        validation_expression_loss=checked.losses["expression"],
        validation_uar=float(scores.uar),
        validation_war=float(scores.war),
        clips_per_second=progress.num_clips / progress.seconds,
        data_wait=progress.seconds_waiting / progress.seconds,
        peak_memory=memory / 1e9,
        seconds=progress.seconds + seconds,
    )


def described(line: Epoch, epochs: int) -> str:
    """An epoch in words."""
    return (
        f"epoch {line.epoch} of {epochs}: loss {line.train_loss:.4f}, validation loss "
        f"{line.validation_loss:.4f}, UAR {line.validation_uar:.1%}, WAR "
        f"{line.validation_war:.1%}; {line.clips_per_second:.1f} clips/s, {line.data_wait:.0%} of "
        f"the time waiting for data, {line.peak_memory:.2f} GB"
    )
