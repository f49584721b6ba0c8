"""The history of a training, a row per epoch, and how far the training is."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Epoch = dict[str, float]
"""A row: `epoch` from 1, `learning_rate`, `train_<loss term>`, `validation_<score>`, MEASURED.

The learning rate is that of the epoch's last step, of the layers next to the output.
Training losses are means over the batches of the epoch, weighted by their samples.
"""

# For those who watch, and in no file: what the clock or the machine says of an epoch, which is not
# the same in every run, and the mean norm of the gradients. `data_wait` is the share of the
# training time, from 0 to 1, in which the device waited for samples; `peak_memory` is the largest
# so far, in GB, of tensors on a GPU or of the process on a CPU.
MEASURED = ("gradient_norm", "samples_per_second", "data_wait", "peak_memory", "seconds")


@dataclass
class Progress:
    """How far a training is, in plain numbers.

    Attributes:
        epoch: The one that is at work; all before it are in the history.
        step: Steps taken in it.
        learning_rate: Of its last step, the largest of all parameters.
        loss_sums: Of its steps, every loss term times the samples of the step.
        num_samples: Of its steps.
        norm_sum: Of the gradients' norms in its steps.
        seconds: That its steps took, with the waiting for samples.
        seconds_waiting: For samples.
        history: A row for each epoch that is done.
        best_epoch: 0 before the first one is done.
        best_rank: Of the best epoch.
    """

    epoch: int = 1
    step: int = 0
    learning_rate: float = 0.0
    loss_sums: list[float] = field(default_factory=list)
    num_samples: int = 0
    norm_sum: float = 0.0
    seconds: float = 0.0
    seconds_waiting: float = 0.0
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_rank: tuple[float, ...] = ()

    def add(
        self,
        losses: list[float],
        num_samples: int,
        *,
        gradient_norm: float,
        learning_rate: float,
        seconds: float,
        waiting: float,
    ) -> None:
        """Count a step."""
        self.step += 1
        self.learning_rate = learning_rate
        self.num_samples += num_samples
        self.norm_sum += gradient_norm
        sums = self.loss_sums or [0.0] * len(losses)
        self.loss_sums = [
            before + num_samples * loss for before, loss in zip(sums, losses, strict=True)
        ]
        self.seconds += seconds
        self.seconds_waiting += waiting

    def finish_epoch(self, row: Epoch) -> None:
        """Close the epoch, whose row this is, and begin the next one."""
        self.history.append(row)
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sums, self.num_samples, self.norm_sum = [], 0, 0.0
        self.seconds = self.seconds_waiting = 0.0


def epoch_row(
    progress: Progress,
    loss_terms: tuple[str, ...],
    scores: Mapping[str, float],
    *,
    memory: int,
    validation_seconds: float,
) -> Epoch:
    """The row of an epoch whose steps are done.

    Args:
        progress: After its last step.
        loss_terms: Names of the losses.
        scores: Of its validation.
        memory: Most bytes so far.
        validation_seconds: What validation took.
    """
    losses = zip(loss_terms, progress.loss_sums, strict=True)
    return {
        "epoch": progress.epoch,
        "learning_rate": progress.learning_rate,
        **{f"train_{term}": total / progress.num_samples for term, total in losses},
        **{f"validation_{name}": score for name, score in scores.items()},
        "gradient_norm": progress.norm_sum / progress.step,
        "samples_per_second": progress.num_samples / progress.seconds,
        "data_wait": progress.seconds_waiting / progress.seconds,
        "peak_memory": memory / 1e9,
        "seconds": progress.seconds + validation_seconds,
    }


def describe_epoch(row: Epoch, epochs: int, loss: str) -> str:
    """An epoch in words.

    Args:
        row: Of the history.
        epochs: Most epochs of the training.
        loss: Name of the loss that is minimised.
    """
    scores = [
        f"{name.removeprefix('validation_')} {value:.4f}"
        for name, value in row.items()
        if name.startswith("validation_")
    ]
    words = [
        f"epoch {row['epoch']} of {epochs}: training {loss} {row[f'train_{loss}']:.4f}",
        *([f"validation {', '.join(scores)}"] if scores else []),
        f"gradient norm {row['gradient_norm']:.2g}, {row['samples_per_second']:.1f} samples/s, "
        f"{row['data_wait']:.0%} of the time waiting for data, {row['peak_memory']:.2f} GB",
    ]
    if row["epoch"] < epochs:
        words.append(_time_left((epochs - row["epoch"]) * row["seconds"]))
    return "; ".join(words)


def _time_left(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 5400 else f"{seconds / 3600:.1f} h left"
