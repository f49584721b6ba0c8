import argparse
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small import video_encoder
from torch import Tensor, nn

from pipeline.models.checkpoints import load_encoder
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.models.vit import IMAGENET_MEAN, IMAGENET_STD

DIM, DEPTH, HEADS = 24, 2, 2
StateDict = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def encoder(*, dim: int = DIM, depth: int = DEPTH, image_size: int = 32) -> VideoMAEEncoder:
    return video_encoder(
        dim=dim, depth=depth, num_heads=HEADS, image_size=image_size, num_frames=4
    ).eval()


def randomize(module: nn.Module) -> None:
    """Give every parameter, biases and norms included, a value that could not be a default."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)


def published() -> tuple[VideoMAEEncoder, StateDict]:
    """An encoder with random weights, and those weights under the official VideoMAE names."""
    original = encoder()
    randomize(original)
    weights = {k: v for k, v in original.state_dict().items() if k not in ("mean", "std")}
    return original, weights


def frames() -> Tensor:
    return torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def imagenet_normalised(x: Tensor) -> Tensor:
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (x - mean[:, None, None]) / std[:, None, None]


def junk(*keys: str) -> StateDict:
    return {key: torch.full((2, 3), 9.0) for key in keys}


# --- Hugging Face


def hugging_face(name: str, *, use_mean_pooling: bool = False) -> Any:
    """A small model of the transformers library with random weights, biases included."""
    transformers = pytest.importorskip("transformers")
    config = transformers.VideoMAEConfig(
        hidden_size=DIM,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * DIM,
        image_size=32,
        num_frames=4,
        use_mean_pooling=use_mean_pooling,
        decoder_hidden_size=12,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=24,
    )
    theirs = getattr(transformers, name)(config).eval()
    randomize(theirs)
    return theirs


def published_hugging_face_keys(state: StateDict) -> StateDict:
    """The names that the files of MCG-NJU have, whatever the installed library calls the biases."""
    return {
        re.sub(
            r"attention\.attention\.(q|v)(uery|alue)\.bias", r"attention.attention.\1_bias", k
        ): v
        for k, v in state.items()
    }


def save_safetensors(path: Path, state: StateDict) -> None:
    save_file({k: v.contiguous() for k, v in state.items()}, path)


def save_torch(path: Path, state: StateDict) -> None:
    torch.save(state, path)


@pytest.mark.parametrize("save", [save_safetensors, save_torch])
def test_hugging_face_pretrained_encoder_gives_the_tokens_of_transformers(
    save: Callable[[Path, StateDict], None], tmp_path: Path
) -> None:
    theirs = hugging_face("VideoMAEForPreTraining")
    state = published_hugging_face_keys(theirs.state_dict())
    assert state["videomae.encoder.layer.1.attention.attention.q_bias"].abs().min() > 0
    save(tmp_path / "model", state)
    ours = encoder()
    report = load_encoder(ours, tmp_path / "model")
    expected = theirs.videomae(imagenet_normalised(frames())).last_hidden_state
    torch.testing.assert_close(ours(frames()), expected, atol=1e-5, rtol=1e-5)
    assert report.family == "VideoMAE, Hugging Face"
    assert report.matched == sorted(name for name, _ in ours.named_parameters())
    assert report.unexpected == []
    assert "mask_token" in report.dropped
    assert not any(key.startswith("videomae") for key in report.dropped)


def test_hugging_face_bare_model_as_transformers_saves_it_today(tmp_path: Path) -> None:
    theirs = hugging_face("VideoMAEModel")
    for name, state in (("saved", None), ("in memory", theirs.state_dict())):
        path = tmp_path / name
        if state is None:
            theirs.save_pretrained(path)
            path = path / "model.safetensors"
        else:
            save_safetensors(path, state)
        ours = encoder()
        load_encoder(ours, path)
        expected = theirs(imagenet_normalised(frames())).last_hidden_state
        torch.testing.assert_close(ours(frames()), expected, atol=1e-5, rtol=1e-5)


def test_hugging_face_fine_tuned_encoder_takes_fc_norm_as_its_final_norm(tmp_path: Path) -> None:
    theirs = hugging_face("VideoMAEForVideoClassification", use_mean_pooling=True)
    save_safetensors(tmp_path / "model", published_hugging_face_keys(theirs.state_dict()))
    ours = encoder()
    report = load_encoder(ours, tmp_path / "model")
    tokens = theirs.videomae(imagenet_normalised(frames())).last_hidden_state
    torch.testing.assert_close(ours(frames()), theirs.fc_norm(tokens), atol=1e-5, rtol=1e-5)
    assert report.dropped == ["classifier.bias", "classifier.weight"]


# --- VideoMAE official, MARLIN


@pytest.mark.parametrize("container", ["model", "module", None])
def test_official_pretrained_layout(container: str | None, tmp_path: Path) -> None:
    original, weights = published()
    state = {f"encoder.{key}": value for key, value in weights.items()}
    extra = junk("decoder.blocks.0.norm1.weight", "encoder_to_decoder.weight", "mask_token")
    state |= extra
    # Official files also hold the training script's arguments and counters.
    content: dict[str, Any] = {"epoch": 1599, "args": argparse.Namespace(lr=1e-3)}
    torch.save({**content, container: state} if container else state, tmp_path / "checkpoint.pth")
    ours = encoder()
    report = load_encoder(ours, tmp_path / "checkpoint.pth")
    assert torch.equal(ours(frames()), original(frames()))
    assert report.family == "VideoMAE, pre-trained"
    assert report.dropped == sorted(extra)
    assert report.unexpected == []


def test_official_fine_tuned_layout_takes_fc_norm_as_its_final_norm(tmp_path: Path) -> None:
    original, weights = published()
    state = {key.replace("norm.", "fc_norm.") if key.startswith("norm.") else key: value
             for key, value in weights.items()}  # fmt: skip
    assert "fc_norm.weight" in state
    torch.save({"module": state | junk("head.weight", "head.bias")}, tmp_path / "checkpoint.pth")
    ours = encoder()
    report = load_encoder(ours, tmp_path / "checkpoint.pth")
    assert torch.equal(ours(frames()), original(frames()))
    assert report.family == "VideoMAE, fine-tuned"
    assert report.dropped == ["head.bias", "head.weight"]


def test_unknown_keys_outside_the_blocks_are_reported(tmp_path: Path) -> None:
    _, weights = published()
    torch.save(weights | junk("head.weight", "ema_decay"), tmp_path / "checkpoint.pth")
    report = load_encoder(encoder(), tmp_path / "checkpoint.pth")
    assert report.unexpected == ["ema_decay"]


def marlin_keys(weights: StateDict) -> StateDict:
    names = {"patch_embed.proj": "patch_embedding.projection", "mlp.fc1": "mlp.layers.0.linear"}
    names["mlp.fc2"] = "mlp.layers.1.linear"
    state = {}
    for key, value in weights.items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        state[f"encoder.{key}"] = value
    return state | junk("encoder.pos_embedding.emb")


MARLIN_FULL = ("decoder.blocks.0.norm1.weight", "enc_dec_proj.weight")


@pytest.mark.parametrize(
    ("prefix", "extra", "container"),
    [
        ("", (), None),
        ("", MARLIN_FULL, None),
        ("", (*MARLIN_FULL, "discriminator.layers.0.weight"), "state_dict"),
        ("marlin.", (), None),
    ],
    ids=["encoder.pt", "full.pt", "ckpt", "hugging face"],
)
def test_marlin_layouts_bring_plain_rgb_and_no_positions(
    prefix: str, extra: tuple[str, ...], container: str | None, tmp_path: Path
) -> None:
    original, weights = published()
    original.mean.fill_(0.0)
    original.std.fill_(1.0)
    state = {prefix + key: value for key, value in (marlin_keys(weights) | junk(*extra)).items()}
    torch.save({container: state, "epoch": 3} if container else state, tmp_path / "marlin")
    ours = encoder()
    report = load_encoder(ours, tmp_path / "marlin")
    assert report.family == "MARLIN"
    assert report.unexpected == []
    assert report.dropped == sorted(f"{prefix}{k}" for k in (*extra, "encoder.pos_embedding.emb"))
    assert torch.equal(ours(frames()), original(frames()))


def test_weights_of_one_frame_size_serve_another_with_recomputed_positions(tmp_path: Path) -> None:
    original, weights = published()
    torch.save(weights, tmp_path / "checkpoint.pth")
    ours = encoder(image_size=48)
    positions = ours.positions.clone()
    load_encoder(ours, tmp_path / "checkpoint.pth")
    assert torch.equal(ours.positions, positions)
    assert torch.equal(ours.positions[:, :8], original.positions)
    clip = torch.rand(1, 4, 3, 48, 48)
    tubelet = original.patch_embed(clip[..., 16:32, 32:48])
    torch.testing.assert_close(ours.patch_embed(clip)[:, 5::9], tubelet, atol=1e-4, rtol=1e-5)


# --- Image MAE


def image_mae() -> tuple[StateDict, StateDict]:
    """Random weights under the names of the image MAE, and under the official VideoMAE ones."""
    _, weights = published()
    state = {key: value for key, value in weights.items() if "_bias" not in key}
    state["patch_embed.proj.weight"] = torch.randn(DIM, 3, 16, 16)
    for i in range(DEPTH):
        q_bias, v_bias = (weights[f"blocks.{i}.attn.{x}_bias"] for x in "qv")
        state[f"blocks.{i}.attn.qkv.bias"] = torch.cat([q_bias, torch.randn(DIM), v_bias])
    return state, weights


def test_still_video_embeds_like_its_image_under_inflated_image_mae(tmp_path: Path) -> None:
    state, _ = image_mae()
    torch.save({"model": state | junk("cls_token", "pos_embed")}, tmp_path / "mae.pth")
    ours = encoder()
    report = load_encoder(ours, tmp_path / "mae.pth")
    image = torch.rand(1, 3, 32, 32)
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    patches = F.conv2d(image, weight, bias, stride=16).flatten(2).transpose(1, 2)
    video = image[:, None].expand(1, 4, 3, 32, 32)
    expected = torch.cat([patches, patches], dim=1)
    torch.testing.assert_close(ours.patch_embed(video), expected, atol=1e-4, rtol=1e-5)
    assert report.family == "image MAE"
    assert report.dropped == ["cls_token", "pos_embed"]
    assert ours.mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)


def test_image_mae_attention_is_unchanged_without_its_bias_on_k(tmp_path: Path) -> None:
    state, _ = image_mae()
    torch.save(state, tmp_path / "mae.pth")
    ours = encoder()
    load_encoder(ours, tmp_path / "mae.pth")
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True).eval()
    prefix = "blocks.1.attn"
    theirs.load_state_dict(
        {
            "in_proj_weight": state[f"{prefix}.qkv.weight"],
            "in_proj_bias": state[f"{prefix}.qkv.bias"],
            "out_proj.weight": state[f"{prefix}.proj.weight"],
            "out_proj.bias": state[f"{prefix}.proj.bias"],
        }
    )
    x = torch.randn(2, 5, DIM)
    blocks: Any = ours.blocks
    torch.testing.assert_close(blocks[1].attn(x), theirs(x, x, x)[0], atol=1e-5, rtol=1e-4)


# --- Refusals


def refuse(path: Path, state: Any, match: str, into: VideoMAEEncoder | None = None) -> None:
    if state is not None:
        torch.save(state, path)
    target = into or encoder()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(ValueError, match=match):
        load_encoder(target, path)
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


@pytest.mark.parametrize(
    ("key", "match"),
    [
        (
            "encoder.blocks.0.second_attn.q.weight",
            "MAE-DFER .LGI-Former. is not a plain ViT.*region",
        ),
        ("lg_region_tokens", "MAE-DFER .LGI-Former. is not a plain ViT.*region"),
        ("encoder.temporal_downsamples.0.weight", "SVFAP .TPSBT. is not a plain ViT.*pyramid"),
        ("blocks.12.cross_attn.kv.weight", "SVFAP .TPSBT. is not a plain ViT.*pyramid"),
    ],
)
def test_encoders_that_are_no_plain_vit_are_refused_by_name(
    key: str, match: str, tmp_path: Path
) -> None:
    _, weights = published()
    refuse(tmp_path / "x.pth", {"model": weights | junk(key)}, match)


@pytest.mark.parametrize(
    ("dim", "depth", "match"),
    [
        (DIM, 3, "24 wide and 2 blocks deep, where the model's is 24 wide and 3 deep"),
        (DIM, 1, "24 wide and 2 blocks deep, where the model's is 24 wide and 1 deep"),
        (48, 2, "24 wide and 2 blocks deep, where the model's is 48 wide and 2 deep"),
    ],
)
def test_wrong_size_is_refused_naming_both(
    dim: int, depth: int, match: str, tmp_path: Path
) -> None:
    _, weights = published()
    into = encoder(dim=dim, depth=depth)
    refuse(tmp_path / "x.pth", weights, f"VideoMAE, fine-tuned: .* {match}", into)


def test_wrong_mlp_is_refused_naming_the_weight_and_both_shapes(tmp_path: Path) -> None:
    _, weights = published()
    for i in range(DEPTH):
        mlp = f"blocks.{i}.mlp"
        weights[f"{mlp}.fc1.weight"] = weights[f"{mlp}.fc1.weight"][:48]
        weights[f"{mlp}.fc1.bias"] = weights[f"{mlp}.fc1.bias"][:48]
        weights[f"{mlp}.fc2.weight"] = weights[f"{mlp}.fc2.weight"][:, :48]
    match = r"blocks.0.mlp.fc1.weight is \(48, 24\), the model needs \(96, 24\)"
    refuse(tmp_path / "x.pth", weights, match)


def test_half_matching_file_is_refused_naming_what_is_missing(tmp_path: Path) -> None:
    _, weights = published()
    del weights["blocks.1.attn.q_bias"]
    match = r"1 of the encoder's 30 weights are missing, such as \['blocks.1.attn.q_bias'\]"
    refuse(tmp_path / "x.pth", weights, match)


def test_hugging_face_file_without_its_biases_is_refused(tmp_path: Path) -> None:
    theirs = hugging_face("VideoMAEForPreTraining")
    state = {k: v for k, v in published_hugging_face_keys(theirs.state_dict()).items()
             if "q_bias" not in k}  # fmt: skip
    refuse(tmp_path / "x.pth", state, "Hugging Face: 2 of the encoder's 30 weights are missing")


def test_blocks_with_parameters_of_another_kind_are_refused(tmp_path: Path) -> None:
    _, weights = published()
    match = "not a plain ViT's, they hold .'blocks.0.gamma_1'"
    refuse(tmp_path / "x.pth", weights | junk("blocks.0.gamma_1"), match)


def test_weights_of_something_else_are_refused_with_the_known_families(tmp_path: Path) -> None:
    state = nn.Linear(2, 3).state_dict()
    refuse(tmp_path / "x.pth", state, "no known encoder among its 2 tensors.*MARLIN; image MAE")
    refuse(tmp_path / "y.pth", [1, 2], "holds a list, not a dict of named tensors")


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


def save_old_torch(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize(
    ("save", "match"),
    [
        (torch.save, "Python objects beside its tensors.*can run code"),
        (save_old_torch, "Python objects beside its tensors.*can run code"),
        (save_pickle, "neither a safetensors nor a torch file"),
    ],
)
def test_code_in_a_pickle_does_not_run(
    save: Callable[[Any, Path], None], match: str, tmp_path: Path
) -> None:
    _, weights = published()
    save({"model": weights, "payload": Malicious(tmp_path / "ran")}, tmp_path / "x.pth")
    refuse(tmp_path / "x.pth", None, match)
    assert not (tmp_path / "ran").exists()


def test_torch_file_from_before_zip_archives_is_read(tmp_path: Path) -> None:
    original, weights = published()
    save_old_torch({"model": weights}, tmp_path / "x.pth")
    ours = encoder()
    load_encoder(ours, tmp_path / "x.pth")
    assert torch.equal(ours(frames()), original(frames()))


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>Too many requests</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        b"",
    ],
)
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_download_page_in_place_of_the_weights_is_refused(
    name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    refuse(path, None, f"{name}: neither a safetensors nor a torch file")


@pytest.mark.parametrize("save", [save_file, torch.save, save_old_torch])
def test_truncated_download_is_refused(save: Callable[[Any, Path], None], tmp_path: Path) -> None:
    _, weights = published()
    path = tmp_path / "weights"
    save(weights, path)
    path.write_bytes(path.read_bytes()[:-1000])
    refuse(path, None, f"{path}: damaged")


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    head=st.sampled_from([b"", b"PK\x03\x04", bytes(8) + b"{"]),
    rest=st.binary(max_size=60),
)
def test_no_garbage_is_ever_loaded(head: bytes, rest: bytes, tmp_path: Path) -> None:
    path = tmp_path / "garbage.pth"
    path.write_bytes(head + rest)
    refuse(path, None, re.escape(f"{path}: "))


def test_half_precision_weights_are_widened(tmp_path: Path) -> None:
    _, weights = published()
    halves = {key: value.half() for key, value in weights.items()}
    save_safetensors(tmp_path / "half.safetensors", halves)
    ours = encoder()
    load_encoder(ours, tmp_path / "half.safetensors")
    stored = load_file(tmp_path / "half.safetensors")
    for key, value in stored.items():
        loaded = ours.state_dict()[key]
        assert loaded.dtype == torch.float32
        assert torch.equal(loaded, value.float())
