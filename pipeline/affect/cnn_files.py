"""The files of frozen CNNs: DAN's checkpoint, ONNX, and those that this project writes.

A pickled network is never loaded: it can run code. Its weights or its ONNX file can be.

Shape letters: B pictures, P side in pixels, K classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from timm import create_model, is_model
from torch import Tensor, nn

from pipeline.affect.cnn import (
    CNNSettings,
    FrozenCNN,
    NoCNN,
    Normalisation,
    ScoreSource,
    read_score_table,
)
from pipeline.affect.dan import AFFECTNET_8, DAN
from pipeline.affect.labels import LabelledImage
from pipeline.common.encoder_weights import History
from pipeline.common.files import atomic_path
from pipeline.common.params import Section
from pipeline.common.strangers import check_regular, refusing, words_of
from pipeline.models.tensor_files import fill, read_tensors

# In the header of a safetensors file; a single entry, because several are shuffled.
_CARD = "cnn"
_DAN_SIZE = 224


class CNNCard(Section):
    """What a file that this project writes says of its network.

    Attributes:
        family: `timm:` and the name of the network.
        classes: K names, in the order of the logits.
        size: P, in pixels.
        normalisation: Of the pictures.
        history: Whom it has seen.
    """

    family: str
    classes: tuple[str, ...]
    size: PositiveInt
    normalisation: Normalisation
    history: History


def open_scores(settings: CNNSettings, file: Path, images: Sequence[LabelledImage]) -> ScoreSource:
    """The CNN that the settings name, frozen, or the table of its scores.

    Args:
        settings: Which one.
        file: Its weights; what it is does not matter where the settings name none.
        images: Of which a table must have the scores.

    Raises:
        ValueError: The file is of another family, is a pickled network, or has another number of
            classes than are named; or nobody names them.
    """
    if not settings.weights:
        return NoCNN()
    family = _family_of(file) if settings.family == "auto" else settings.family
    if family == "scores":
        return read_score_table(file, images, settings.classes)
    if family == "onnx":
        return _open_onnx(settings, file)
    if family == "dan":
        return _open_dan(settings, file)
    return _open_timm(settings, file, family.removeprefix("timm:"))


def save_cnn(file: Path, network: nn.Module, card: CNNCard) -> None:
    """Write the weights of a network of timm, with what has to be known of it."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with atomic_path(file) as temporary:
        save_file(tensors, temporary, {_CARD: card.model_dump_json()})


def read_card(file: Path) -> CNNCard | None:
    """What the file says of its network; None where this project did not write it.

    Raises:
        ValueError: What it says is damaged.
    """
    check_regular(file)
    try:
        with safe_open(file, "numpy") as opened:
            written = (opened.metadata() or {}).get(_CARD)
    except SafetensorError:
        return None
    try:
        return None if written is None else CNNCard.model_validate_json(written)
    except ValidationError as error:
        raise ValueError(f"{file}: its header says nothing sensible of a CNN: {error}") from error


def _family_of(file: Path) -> str:
    if file.suffix in (".csv", ".parquet"):
        return "scores"
    if file.suffix == ".onnx":
        return "onnx"
    if card := read_card(file):
        return card.family
    if "cat_head0.ca.attention.0.weight" in _without_wrapper(read_tensors(file)):
        return "dan"
    raise ValueError(
        f"{file} does not say which network its weights are of; name it in cnn.family, as "
        "timm:resnet18"
    )


def _open_dan(settings: CNNSettings, file: Path) -> FrozenCNN:
    tensors = _without_wrapper(read_tensors(file))
    bias = tensors.get("fc.bias")
    num_classes = 0 if bias is None else bias.numel()
    classes = settings.classes
    if not classes:
        if num_classes != len(AFFECTNET_8):
            raise ValueError(
                f"{file} has {num_classes} classes, and DAN's seven of AffectNet and of RAF-DB "
                "differ in their order: name them in cnn.classes"
            )
        classes = AFFECTNET_8
    network = DAN(num_classes)
    fill(network, tensors, f"{file}: DAN")
    return FrozenCNN(
        network,
        classes,
        size=settings.size or _DAN_SIZE,
        normalisation=settings.normalisation,
        source=str(file),
    )


def _open_timm(settings: CNNSettings, file: Path, name: str) -> FrozenCNN:
    card = read_card(file)
    classes = settings.classes or (card.classes if card else ())
    size = settings.size or (card.size if card else 0)
    if not classes or not size:
        raise ValueError(
            f"{file} does not say its classes or its size: name them in cnn.classes and cnn.size"
        )
    # A name of another kind would make timm fetch things.
    if not is_model(name):
        raise ValueError(f"{file}: cnn.family is timm:{name}, and timm knows no such network")
    tensors = _without_wrapper(read_tensors(file))
    network = create_model(name, num_classes=len(classes))
    fill(network, tensors, f"{file}: {name} with {len(classes)} classes")
    return FrozenCNN(
        network,
        classes,
        size=size,
        normalisation=card.normalisation if card else settings.normalisation,
        source=str(file),
    )


def _open_onnx(settings: CNNSettings, file: Path) -> FrozenCNN:
    network = OnnxNetwork(file)
    classes = settings.classes or network.classes
    size = settings.size or network.size
    if not size:
        raise ValueError(f"{file} takes pictures of any size: name one in cnn.size")
    return FrozenCNN(
        network,
        classes,
        size=size,
        normalisation=settings.normalisation,
        source=str(file),
    )


class OnnxNetwork(nn.Module):
    """An ONNX file: pictures (B, 3, P, P) -> logits (B, K), computed on the CPU.

    Attributes:
        classes: That the file names, in its metadata `classes`, separated by commas.
        size: P; 0 where the file leaves it open.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
        ValueError: It is no ONNX file, or no network with one picture as its input.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{file} needs onnxruntime, which is an extra: pip install onnxruntime"
            ) from error
        check_regular(file)
        with refusing(
            lambda error: ValueError(f"{file} cannot be read as an ONNX file: {words_of(error)}")
        ):
            self.session: Any = onnxruntime.InferenceSession(
                file, providers=["CPUExecutionProvider"]
            )
        inputs = self.session.get_inputs()
        taken = [f"{node.type} {node.shape}" for node in inputs]
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
            raise ValueError(
                f"{file} takes {', '.join(taken) or 'nothing'}, where one batch of pictures, "
                "tensor(float) with four dimensions, is needed"
            )
        self.input = inputs[0].name
        self.takes_one = inputs[0].shape[0] == 1
        side = inputs[0].shape[2]
        self.size = side if isinstance(side, int) else 0
        named = self.session.get_modelmeta().custom_metadata_map.get("classes", "")
        self.classes = tuple(name.strip() for name in named.split(",") if name.strip())

    def forward(self, pictures: Tensor) -> Tensor:
        whole = pictures.cpu().numpy()
        arrays = [one[None] for one in whole] if self.takes_one else [whole]
        logits = [self.session.run(None, {self.input: array})[0] for array in arrays]
        return torch.cat([torch.from_numpy(one) for one in logits]).to(pictures.device)


def _without_wrapper(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as they were before DataParallel put `module.` in front."""
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
