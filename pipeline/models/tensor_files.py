"""Files of named tensors that strangers wrote, and the networks that they fill."""

import argparse
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.common.strangers import check_regular, refusing, words_of

# What torch.save begins a file with: a zip archive, or before torch 1.6 a pickled magic number.
_ZIP_HEAD = b"PK\x03\x04"
_TORCH_FILE_HEADS = (_ZIP_HEAD, b"\x80\x02\x8a\nl\xfc\x9cF\xf9")
# That of V-JEPA has its teacher beside it: the encoder that others are compared with.
_CONTAINERS = ("target_encoder", "model", "module", "state_dict", "model_state_dict")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors in a safetensors file or a torch file, out of the dict that holds them.

    All of them are plain: dense, on the CPU, and no larger than what the file holds of them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is another kind of file, is damaged, holds objects other than tensors and
            plain containers, or tensors that are not plain, or none.
    """
    check_regular(path)
    with path.open("rb") as file:
        head = file.read(9)
    content: Any
    if head[8:] == b"{":
        with refusing(
            lambda error: ValueError(f"{path}: damaged safetensors file: {words_of(error)}")
        ):
            content = load_file(path)
    elif head.startswith(_TORCH_FILE_HEADS):
        content = _read_torch_file(path, is_zip=head.startswith(_ZIP_HEAD))
    else:
        raise ValueError(
            f"{path}: neither a safetensors nor a torch file, it begins with {head!r}; a download "
            "page or a Git LFS pointer in place of the weights looks like this"
        )
    for container in _CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(container), dict):
            content = content[container]
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not a dict of named tensors")
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{path}: holds no tensors, but {_some(content)}")
    for key, tensor in tensors.items():
        if not isinstance(key, str):
            raise ValueError(f"{path}: holds a tensor under {key!r}, where a name is needed")
        if oddity := _oddity(tensor):
            raise ValueError(f"{path}: {key} {oddity}")
    return tensors


def fill(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Give a network the tensors that have the names of its own, all of them and no others.

    Args:
        network: Its parameters and buffers are overwritten.
        tensors: As from `read_tensors`.
        source: Of the tensors, for errors.

    Raises:
        ValueError: A tensor is missing, is none of the network's, or is none that fits.
    """
    needed = network.state_dict()
    missing = sorted(needed.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - needed.keys())
    if missing or unexpected:
        raise ValueError(
            f"{source}: {len(missing)} weights are missing, such as {missing[:3]}, and "
            f"{len(unexpected)} are no part of it, such as {unexpected[:3]}"
        )
    for name, tensor in needed.items():
        if fault := misfit(tensors[name], tensor):
            raise ValueError(f"{source}: {name} {fault}")
    network.load_state_dict(tensors)


def misfit(found: Tensor, needed: Tensor) -> str:
    """Why one tensor cannot take the place of another, to follow its name; empty where it can."""
    if found.shape != needed.shape:
        return f"is {tuple(found.shape)}, the model needs {tuple(needed.shape)}"
    if needed.is_floating_point():
        return fault_of_weights(found)
    if found.dtype != needed.dtype:
        return f"holds numbers of type {_name(found.dtype)}, the model needs {_name(needed.dtype)}"
    return ""


def fault_of_weights(tensor: Tensor) -> str:
    """Why these are no weights, to follow their name; empty where they are."""
    if tensor.dtype not in _FLOATS:
        return (
            f"holds numbers of type {_name(tensor.dtype)}, where weights are floating-point "
            "numbers; quantised weights are not read"
        )
    # Without a copy, however large. NaN passes on to both; float64 may be beyond float32.
    if tensor.numel() and not torch.stack(torch.aminmax(tensor.detach())).float().isfinite().all():
        return "holds NaN or infinity: the training that wrote it went wrong, or it is damaged"
    return ""


def _read_torch_file(path: Path, *, is_zip: bool) -> Any:
    def refusal(error: Exception) -> ValueError:
        return ValueError(
            f"{path}: damaged, or holds Python objects beside its tensors, which are never loaded "
            f"because they can run code: {words_of(error)}"
        )

    with refusing(refusal):
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(info.file_size for info in archive.infolist())
            # torch.save does not compress.
            if unpacked > path.stat().st_size:
                raise zipfile.BadZipFile(f"it would unpack to {unpacked} bytes")
        # Official training scripts keep their arguments in the file; a Namespace only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)


def _oddity(tensor: Tensor) -> str:
    """What is not plain about a tensor, to follow its name; empty where all is."""
    if tensor.is_nested or tensor.is_quantized or tensor.layout != torch.strided:
        return "is nested, quantised or sparse, where a dense tensor is needed"
    if tensor.is_meta:
        return "has a shape and no numbers: it was saved from the meta device"
    stored = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > stored:
        return f"is {tuple(tensor.shape)} by its shape, and the file holds {stored} bytes of it"
    return ""


def _some(content: Mapping[Any, Any]) -> str:
    """A few keys, for errors."""
    return ", ".join(repr(key)[:40] for key in list(content)[:4]) or "nothing at all"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
