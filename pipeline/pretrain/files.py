"""What a pre-training leaves: an encoder for this project, and a file in the official layout."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.common.encoder_weights import History
from pipeline.common.files import atomic_path
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.models.image_encoder import ImageEncoder
from pipeline.models.tensor_files import misfit, read_tensors
from pipeline.models.vit import IMAGENET_MEAN, IMAGENET_STD
from pipeline.pretrain.autoencoder import MaskedAutoencoder

_EMBEDDING = "encoder.patch_embed.proj"


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
    words = f"{', '.join(sorted(groups))} ({method}, {epochs} epochs)"
    after = before.model_copy(
        update={"trained_on": f"{before.trained_on}, then {words}" if before.trained_on else words}
    )
    for dataset, names in groups.items():
        if names:
            after = after.with_groups(dataset, list(names))
    return after


def write_encoder(path: Path, encoder: VideoMAEEncoder | ImageEncoder, history: History) -> None:
    """Write a safetensors file that `encoder.weights` takes; the header tells its history."""
    weights = {f"encoder.{key}": value.cpu() for key, value in encoder.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(weights, temporary, metadata=history.header())


def write_official(path: Path, model: MaskedAutoencoder) -> None:
    """Write all weights as the official code of VideoMAE or MAE saves them, under `model`.

    Such files hold no normalisation, and who reads them applies ImageNet's: where the encoder has
    another one, the patch embedding is changed so that it says the same.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        # To a file, not to a path, whose name torch would write into it.
        torch.save({"model": official_weights(model)}, file)


def is_official(path: Path, model: MaskedAutoencoder) -> bool:
    """Whether a file holds all weights of such a model in the official layout, decoder and all."""
    return not _difference(read_tensors(path), official_weights(model))


def read_official(path: Path, model: MaskedAutoencoder) -> None:
    """Fill encoder and decoder from a file in the official layout, for ImageNet's normalisation.

    Raises:
        ValueError: The file lacks weights, or has others, or some of another size.
    """
    tensors = read_tensors(path)
    if difference := _difference(tensors, official_weights(model)):
        raise ValueError(f"{path}: {difference}")
    weights = {key: tensors[_official_name(model, key)] for key in _stored(model)}
    model.load_state_dict(weights | {"encoder.mean": _imagenet()[0], "encoder.std": _imagenet()[1]})


def _difference(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What tells a file's weights from a model's; empty where they fit."""
    if missing := sorted(own.keys() - found.keys()):
        return f"{len(missing)} of the model's {len(own)} weights are missing, as {missing[:4]}"
    if unexpected := sorted(found.keys() - own.keys()):
        return f"it holds weights that the model has not, as {unexpected[:4]}"
    for name, tensor in own.items():
        if fault := misfit(found[name], tensor):
            return f"{name} {fault}"
    return ""


def official_weights(model: MaskedAutoencoder) -> dict[str, Tensor]:
    """By their official names, on the CPU, for pixels with ImageNet's normalisation."""
    weights = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    own = weights["encoder.mean"], weights["encoder.std"]
    if not all(map(torch.equal, own, _imagenet())):
        _expect_imagenet(weights, *own)
    return {_official_name(model, key): weights[key] for key in _stored(model)}


def _imagenet() -> tuple[Tensor, Tensor]:
    """Mean and deviation, as the encoders hold them."""
    return torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)


def _expect_imagenet(weights: dict[str, Tensor], mean: Tensor, std: Tensor) -> None:
    """Let the patch embedding say of pixels with ImageNet's normalisation what it says of others.

    (x - mean) / std = z * scale + shift, where z is x with ImageNet's normalisation.
    """
    scale, shift = _imagenet()[1] / std, (_imagenet()[0] - mean) / std
    kernel = weights[f"{_EMBEDDING}.weight"]
    per_channel = kernel.flatten(2).sum(2)
    weights[f"{_EMBEDDING}.bias"] = weights[f"{_EMBEDDING}.bias"] + per_channel @ shift.flatten()
    weights[f"{_EMBEDDING}.weight"] = kernel * scale.view(1, 3, *[1] * (kernel.ndim - 2))


def _stored(model: MaskedAutoencoder) -> list[str]:
    """What of a model's state the official layouts hold: all but the normalisation."""
    return [key for key in model.state_dict() if key not in ("encoder.mean", "encoder.std")]


def _official_name(model: MaskedAutoencoder, key: str) -> str:
    """VideoMAE's names are ours; image MAE has its encoder's without a prefix."""
    return re.sub(r"^encoder\.", "", key) if isinstance(model.encoder, ImageEncoder) else key
