"""A trained model on disk: its weights, and all that is needed to use them.

`model.safetensors` holds the weights and the normalisation of the frames; `model.json` beside it is
a `Description`.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import PositiveInt
from safetensors.torch import save_file

from pipeline.common.encoder_weights import History
from pipeline.common.params import Section
from pipeline.common.strangers import read_json
from pipeline.models.tensor_files import fill, read_tensors
from pipeline.models.video_encoders import VideoEncoderSize, new_video_encoder
from pipeline.mtcae.decoder import DecoderSize
from pipeline.mtcae.model import MTCAE
from pipeline.mtcae.structures import Arch, Decoder, Structure

_FORMAT = 5


class Normalisation(Section):
    """Mean and deviation per channel of RGB in [0, 1]; for people, as the weights hold them too."""

    mean: list[float]
    std: list[float]


class Description(Section):
    """What model.json says; with the weights it rebuilds the model.

    Attributes:
        metadata: What a user of the model must know: classes in order, data set, fold, metrics.
    """

    format: int
    arch: Arch
    decoder: Decoder
    num_frames: PositiveInt
    num_classes: PositiveInt
    encoder_size: VideoEncoderSize
    decoder_size: DecoderSize
    normalisation: Normalisation
    metadata: dict[str, Any]


def save_model(path: Path, model: MTCAE, *, metadata: dict[str, Any], history: History) -> None:
    """Write the weights to `path`, model.safetensors, and the .json beside it.

    Equal models and metadata give equal bytes. Either file appears only when it is whole.

    Args:
        path: The weights' file.
        model: The model, not wrapped by torch.compile or a trainer.
        metadata: See `Description`.
        history: What the model has been trained on; the weights' file carries it.

    Raises:
        ValueError: `metadata` holds a number that JSON does not know, NaN or infinity.
    """
    encoder, tasks = model.encoder, model.tasks
    mean, std = (
        [round(x, 6) for x in values.flatten().tolist()] for values in (encoder.mean, encoder.std)
    )
    description = Description(
        format=_FORMAT,
        arch=tasks.structure.arch,  # type: ignore[arg-type]
        decoder=tasks.structure.decoder,  # type: ignore[arg-type]
        num_frames=encoder.num_frames,
        num_classes=model.num_classes,
        encoder_size=encoder.size,
        decoder_size=tasks.size,
        normalisation=Normalisation(mean=mean, std=std),
        metadata=metadata,
    )
    values = description.model_dump(mode="python")
    text = json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n"
    partial_weights = path.with_suffix(".safetensors.partial")
    partial_json = path.with_suffix(".json.partial")
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    save_file(weights, partial_weights, metadata=history.header())
    partial_json.write_text(text, encoding="utf-8")
    partial_json.replace(path.with_suffix(".json"))
    partial_weights.replace(path)


def load_model(path: Path) -> tuple[MTCAE, dict[str, Any]]:
    """The model that save_model wrote to `path`, in evaluation mode on the CPU, and its metadata.

    Its outputs are those of the saved model to the bit.

    Raises:
        ValueError: The model was saved by another version of this project.
    """
    written = read_json(path.with_suffix(".json"))
    if not isinstance(written, dict):
        raise ValueError(f"{path.with_suffix('.json')} is no description of a model")
    if written.get("format") != _FORMAT:
        raise ValueError(
            f"{path.with_suffix('.json')} has format {written.get('format', 1)}, and this version "
            f"reads format {_FORMAT}: train the model again, or use the version that saved it"
        )
    description = Description.model_validate(written)
    model = MTCAE(
        new_video_encoder(description.encoder_size, num_frames=description.num_frames),
        Structure(description.arch, description.decoder),
        description.decoder_size,
        num_classes=description.num_classes,
    )
    fill(model, read_tensors(path), str(path))
    model.eval()
    return model, description.metadata
