"""What a pre-training came to, as metrics and a row per epoch."""

from pathlib import Path

import pandas as pd
from torch import nn

from pipeline.common.files import atomic_path, write_json
from pipeline.pretrain.autoencoder import MaskedAutoencoder
from pipeline.training.history import MEASURED, Epoch
from pipeline.training.loop import Training


def metrics_of(training: Training, model: MaskedAutoencoder) -> dict[str, float]:
    """The errors of the best epoch, and sizes.

    Args:
        training: Whose rows say how many samples were `skipped`.
        model: With the weights of its best epoch.
    """
    best = training.history[training.best_epoch - 1]
    return {
        "loss": best["validation_loss"],
        "train_loss": best["train_loss"],
        "best_epoch": training.best_epoch,
        "epochs": len(training.history),
        "skipped": sum(row["skipped"] for row in training.history),
        "num_parameters": _count(model),
        "encoder_parameters": _count(model.encoder),
    }


def write_tables(out: Path, history: list[Epoch], metrics: dict[str, float]) -> None:
    """Write history.csv and summary.json: the same in every run, so without what a clock says."""
    write_json(out / "summary.json", metrics)
    with atomic_path(out / "history.csv") as temporary:
        table = pd.DataFrame(history).drop(columns=[*MEASURED])
        table.to_csv(temporary, index=False, float_format="%.6g")


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
