"""What a pre-training leaves: an encoder for this project, and a file in the official layout."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.common.encoder_weights import History
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.models.image_encoder import ImageEncoder
from pipeline.pretrain.autoencoder import MaskedAutoencoder


def history_after(
    before: History, method: str, epochs: int, groups: Mapping[str, Sequence[str]]
) -> History:
    """Whom an encoder has seen after a pre-training.

    Args:
        before: Of what it started from.
        method: As people call it, such as VideoMAE.
        epochs: Of this training.
        groups: By data set, all that were trained on or held out to choose the epoch; empty where
            a data set's groups have no names.
    """
    raise NotImplementedError


def write_encoder(path: Path, encoder: VideoMAEEncoder | ImageEncoder, history: History) -> None:
    """Write a safetensors file that `encoder.weights` takes; the header tells its history."""
    raise NotImplementedError


def write_official(path: Path, model: MaskedAutoencoder) -> None:
    """Write all weights as the official code of VideoMAE or MAE saves them, under `model`.

    Those files hold no normalisation, and their users apply ImageNet's: another one of the encoder
    becomes a part of the patch embedding.
    """
    raise NotImplementedError


def read_official(path: Path, model: MaskedAutoencoder) -> None:
    """Fill encoder and decoder from a file in the official layout.

    Raises:
        ValueError: The file is of another layout, or lacks weights or has others of another size.
    """
    raise NotImplementedError
