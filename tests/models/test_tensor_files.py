import os
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from small import video_encoder
from torch import Tensor, nn

from pipeline.common.encoder_weights import read_history
from pipeline.models.checkpoints import load_encoder
from pipeline.models.tensor_files import fill, read_tensors


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({1: torch.ones(2)}, "holds a tensor under 1, where a name is needed"),
        ({("a", 1): torch.ones(2)}, r"under \('a', 1\), where a name is needed"),
        ({}, "holds no tensors, but nothing at all"),
        ({"epoch": 3, "lr": 0.1}, "holds no tensors, but 'epoch', 'lr'"),
        ({"a": torch.eye(3).to_sparse()}, "a is nested, quantised or sparse"),
        ({"a": torch.eye(3).to_sparse_csr()}, "a is nested, quantised or sparse"),
        ({"a": torch.ones(3, device="meta")}, "a has a shape and no numbers"),
        (
            {"a": torch.ones(1).expand(10**6, 10**6)},
            r"a is \(1000000, 1000000\) by its shape, and the file holds 4 bytes",
        ),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_odd_tensors_are_refused_by_name(
    content: Any, words: str, zipped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "odd.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{words}"):
        read_tensors(path)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # Opening it would wait for a writer.
    for read in (read_tensors, read_history):
        with pytest.raises(ValueError, match=f"{pipe} is a pipe or a device, where a file"):
            read(pipe)
        with pytest.raises(ValueError, match=f"{tmp_path} is a folder, where a file is needed"):
            read(tmp_path)
        with pytest.raises(FileNotFoundError, match=f"no file {tmp_path / 'none'}"):
            read(tmp_path / "none")


def test_a_torch_file_that_unpacks_to_more_than_it_is_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "plain.pt")
    path = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"would unpack to 400\d\d\d\d bytes"):
        read_tensors(path)


def header_only(header: bytes, num_bytes: int) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(num_bytes)


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[9999999999,99],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999999]}}',
        b'{"a":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":' * 5000,
    ],
)
def test_a_safetensors_header_that_makes_no_sense_is_refused(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(header_only(header, 4))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: damaged safetensors file"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (torch.tensor([[1, 2]]), "weight holds numbers of type int64, where weights are floating"),
        (torch.tensor([[1j, 2]]), "weight holds numbers of type complex64"),
        (torch.ones(1, 2).to(torch.float8_e5m2), "weight holds numbers of type float8_e5m2"),
        (torch.tensor([[1.0, torch.nan]]), "weight holds NaN or infinity"),
        (torch.tensor([[-torch.inf, 1.0]]), "weight holds NaN or infinity"),
        (torch.tensor([[1e300, 1.0]], dtype=torch.float64), "weight holds NaN or infinity"),
        (torch.ones(2, 1), r"weight is \(2, 1\), the model needs \(1, 2\)"),
    ],
)
def test_what_is_no_weight_fills_no_network(weight: Tensor, words: str) -> None:
    network = nn.Linear(2, 1, bias=False)
    with pytest.raises(ValueError, match=f"the file: {words}"):
        fill(network, {"weight": weight}, "the file")


def test_counters_of_whole_numbers_are_filled_by_such_only() -> None:
    network = nn.BatchNorm1d(1)
    tensors = {**network.state_dict(), "num_batches_tracked": torch.tensor(7)}
    fill(network, tensors, "the file")
    assert network.num_batches_tracked == torch.tensor(7)
    tensors["num_batches_tracked"] = torch.tensor(7.5)
    with pytest.raises(ValueError, match="num_batches_tracked holds numbers of type float32"):
        fill(network, tensors, "the file")


ODD = (
    torch.tensor(1.0),
    torch.ones(0),
    torch.ones(2),
    torch.ones(3, 24),
    torch.ones(24, 1, 3, 8, 8),
    torch.arange(24),
    torch.full((24,), torch.nan),
    torch.ones(24, dtype=torch.bool),
)
ADDED = ("blocks.0.attn.qkv.bias", "blocks.0.attn.query.weight", "blocks.")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_checkpoint_with_an_odd_tensor_is_refused_in_words(data: Any, tmp_path: Path) -> None:
    encoder = video_encoder(dim=24, depth=1, num_heads=2, image_size=32, num_frames=4)
    weights = {key: value.contiguous() for key, value in encoder.state_dict().items()
               if key not in ("mean", "std")}  # fmt: skip
    name = data.draw(st.sampled_from([*weights, *ADDED]))
    replaced = data.draw(st.sampled_from(ODD))
    if (
        name in weights
        and weights[name].shape == replaced.shape
        and replaced.dtype.is_floating_point
    ):
        replaced = torch.full_like(replaced, torch.inf)
    save_file({**weights, name: replaced}, tmp_path / "odd")
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path / 'odd'))}: "):
        load_encoder(encoder, tmp_path / "odd")
