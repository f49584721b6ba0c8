from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small import video_encoder
from small_pretrain import (
    clips,
    head_of,
    image_autoencoder,
    image_encoder,
    pictures,
    video_autoencoder,
)
from torch import Tensor, nn

from pipeline.common.encoder_weights import History, read_history
from pipeline.models.checkpoints import load_encoder, load_image_encoder
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.models.vit import IMAGENET_STD
from pipeline.pretrain.autoencoder import MaskedAutoencoder
from pipeline.pretrain.build import build_video_autoencoder
from pipeline.pretrain.files import (
    history_after,
    read_official,
    write_encoder,
    write_official,
)
from pipeline.pretrain.video import VideoSize

BEFORE = History(known=True, trained_on="YouTube Faces", groups={"mead": ["M01"]})


def randomize(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)


def other_encoder() -> VideoMAEEncoder:
    return video_encoder(dim=24, depth=2, num_heads=2, image_size=32, num_frames=4)


def test_our_encoder_file_gives_equal_tokens_of_clips(tmp_path: Path) -> None:
    model = video_autoencoder()
    randomize(model)
    model.encoder.std.fill_(0.3)
    write_encoder(tmp_path / "encoder.safetensors", model.encoder, BEFORE)
    other = other_encoder()
    report = load_encoder(other, tmp_path / "encoder.safetensors")
    assert report.family == "model saved by this project"
    assert report.unexpected == []
    assert torch.equal(other(clips(2)), model.encoder(clips(2)))


def test_our_encoder_file_gives_equal_tokens_of_pictures(tmp_path: Path) -> None:
    model = image_autoencoder()
    randomize(model)
    model.encoder.std.fill_(0.3)
    write_encoder(tmp_path / "encoder.safetensors", model.encoder, BEFORE)
    other = image_encoder()
    report = load_image_encoder(other, tmp_path / "encoder.safetensors")
    assert report.family == "image encoder saved by this project"
    assert report.unexpected == []
    assert torch.equal(other(pictures(2)), model.encoder(pictures(2)))


def test_our_encoder_of_pictures_starts_one_of_clips(tmp_path: Path) -> None:
    model = image_autoencoder(patch_size=16)
    write_encoder(tmp_path / "encoder.safetensors", model.encoder, BEFORE)
    other = other_encoder()
    report = load_encoder(other, tmp_path / "encoder.safetensors")
    assert report.dropped == ["cls_token", "pos_embed"]
    still = pictures(2)[:, None].expand(-1, 4, -1, -1, -1) / 255
    expected = model.encoder.patch_embed(pictures(2) / 255)
    torch.testing.assert_close(other.patch_embed(still)[:, :4], expected)


def test_equal_encoders_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_encoder(tmp_path / name, video_autoencoder().encoder, BEFORE)
        write_official(tmp_path / f"{name}.pth", video_autoencoder())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one.pth").read_bytes() == (tmp_path / "two.pth").read_bytes()


def test_the_header_tells_the_method_the_epochs_and_whom_it_has_seen(tmp_path: Path) -> None:
    history = history_after(BEFORE, "VideoMAE", 100, {"ravdess": ["2", "1"], "vox": []})
    write_encoder(tmp_path / "encoder.safetensors", video_autoencoder().encoder, history)
    found = read_history(tmp_path / "encoder.safetensors")
    assert found.trained_on == "YouTube Faces, then ravdess, vox (VideoMAE, 100 epochs)"
    assert found.groups == {"mead": ["M01"], "ravdess": ["1", "2"]}
    assert found.known


def test_an_encoder_of_unknown_history_stays_one(tmp_path: Path) -> None:
    unknown = History(known=False, trained_on="", groups={})
    after = history_after(unknown, "MAE", 5, {"faces": []})
    assert not after.known
    assert after.trained_on == "faces (MAE, 5 epochs)"


# --- Official layouts

VIDEO_KEYS = {
    "encoder.patch_embed.proj.weight", "encoder.patch_embed.proj.bias",
    "encoder.norm.weight", "encoder.norm.bias", "encoder_to_decoder.weight", "mask_token",
    "decoder.norm.weight", "decoder.norm.bias", "decoder.head.weight", "decoder.head.bias",
}  # fmt: skip
VIDEO_BLOCK = {
    "norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.q_bias", "attn.v_bias",
    "attn.proj.weight", "attn.proj.bias", "norm2.weight", "norm2.bias",
    "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias",
}  # fmt: skip
IMAGE_KEYS = {
    "cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias",
    "norm.weight", "norm.bias", "decoder_embed.weight", "decoder_embed.bias", "mask_token",
    "decoder_pos_embed", "decoder_norm.weight", "decoder_norm.bias",
    "decoder_pred.weight", "decoder_pred.bias",
}  # fmt: skip
IMAGE_BLOCK = (VIDEO_BLOCK - {"attn.q_bias", "attn.v_bias"}) | {"attn.qkv.bias"}


def of_blocks(block: set[str], *names: str) -> set[str]:
    return {f"{name}.{key}" for name in names for key in block}


def official(path: Path) -> dict[str, Tensor]:
    content = torch.load(path, weights_only=True)
    assert list(content) == ["model"]
    weights: dict[str, Tensor] = content["model"]
    return weights


def test_the_official_file_of_videomae_has_its_keys(tmp_path: Path) -> None:
    write_official(tmp_path / "official.pth", video_autoencoder())
    blocks = of_blocks(VIDEO_BLOCK, "encoder.blocks.0", "encoder.blocks.1", "decoder.blocks.0")
    assert official(tmp_path / "official.pth").keys() == VIDEO_KEYS | blocks


def test_the_official_file_of_mae_has_its_keys(tmp_path: Path) -> None:
    write_official(tmp_path / "official.pth", image_autoencoder())
    blocks = of_blocks(IMAGE_BLOCK, "blocks.0", "blocks.1", "decoder_blocks.0")
    assert official(tmp_path / "official.pth").keys() == IMAGE_KEYS | blocks


def test_the_official_fine_tuning_of_videomae_misses_only_its_head(tmp_path: Path) -> None:
    """As its code loads a file: what begins with `encoder.` without it, the rest as it is."""
    model = video_autoencoder()
    randomize(model)
    write_official(tmp_path / "official.pth", model)
    stripped = {
        key.removeprefix("encoder."): value
        for key, value in official(tmp_path / "official.pth").items()
        if not key.startswith("head.")
    }
    other = other_encoder()
    missing, unexpected = other.load_state_dict(stripped, strict=False)
    assert missing == ["mean", "std"]  # which the official code has in its transforms
    unused = ("decoder.", "encoder_to_decoder.", "mask_token")
    assert all(key.startswith(unused) for key in unexpected)
    assert torch.equal(other(clips(1)), model.encoder(clips(1)))


def test_timm_reads_the_official_file_of_mae_but_for_its_head(tmp_path: Path) -> None:
    from timm.models.vision_transformer import VisionTransformer

    model = image_autoencoder()
    randomize(model)
    write_official(tmp_path / "official.pth", model)
    theirs = VisionTransformer(
        img_size=32, patch_size=8, num_classes=3, embed_dim=24, depth=2, num_heads=2
    ).eval()
    found = official(tmp_path / "official.pth")
    missing, unexpected = theirs.load_state_dict(found, strict=False)
    assert missing == ["head.weight", "head.bias"]
    assert all(key.startswith(("decoder_", "mask_token")) for key in unexpected)
    tokens = theirs.forward_features(model.encoder.normalise(pictures(2)))
    torch.testing.assert_close(tokens, model.encoder(pictures(2)))


@pytest.mark.parametrize(
    ("build", "inputs"), [(video_autoencoder, clips), (image_autoencoder, pictures)]
)
def test_an_official_file_brings_back_encoder_and_decoder(
    build: Callable[[], MaskedAutoencoder], inputs: Callable[[int], Tensor], tmp_path: Path
) -> None:
    model, other = build(), build()
    randomize(model)
    write_official(tmp_path / "official.pth", model)
    read_official(tmp_path / "official.pth", other)
    masks = torch.stack([model.masking.draw(name, seed=1, epoch=1) for name in "ab"])
    assert torch.equal(other(inputs(2), masks), model(inputs(2), masks))


@pytest.mark.parametrize(
    ("build", "load", "inputs"),
    [
        (video_autoencoder, load_encoder, clips),
        (image_autoencoder, load_image_encoder, pictures),
    ],
)
def test_another_normalisation_becomes_a_part_of_the_official_embedding(
    build: Callable[[], MaskedAutoencoder],
    load: Callable[..., object],
    inputs: Callable[[int], Tensor],
    tmp_path: Path,
) -> None:
    model, other = build(), build()
    randomize(model)
    # As MARLIN has it.
    model.encoder.mean.zero_()
    model.encoder.std.fill_(1)
    path = tmp_path / "official.pth"
    write_official(path, model)
    load(other.encoder, path)
    assert other.encoder.std.flatten().tolist() == pytest.approx(IMAGENET_STD)
    torch.testing.assert_close(
        other.encoder(inputs(2)), model.encoder(inputs(2)), atol=1e-5, rtol=1e-5
    )


def test_a_file_without_all_weights_or_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "official.pth"
    write_official(path, video_autoencoder())
    weights = official(path)
    mask_token = weights.pop("mask_token")
    for content, match in (
        (weights, r"1 of the model's 49 weights are missing, as \['mask_token'\]"),
        (weights | {"mask_token": mask_token, "x": mask_token}, r"has not, as \['x'\]"),
        (weights | {"mask_token": mask_token[..., :4]}, r"mask_token is \(1, 1, 4\).*\(1, 1, 12\)"),
    ):
        torch.save({"model": content}, path)
        with pytest.raises(ValueError, match=f"{path}: .*{match}"):
            read_official(path, video_autoencoder())


# --- Starting from a file


def build_from(path: Path) -> MaskedAutoencoder:
    model = video_autoencoder()
    size = VideoSize.model_validate(
        {"encoder": model.encoder.size, "decoder": {"dim": 12, "depth": 1, "num_heads": 2}}
    )
    return build_video_autoencoder(
        size, num_frames=4, mask_ratio=0.5, checkpointing=False, start=path
    )


def test_a_file_that_holds_the_decoder_too_starts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = video_autoencoder()
    randomize(model)
    write_official(tmp_path / "whole.pth", model)
    started = build_from(tmp_path / "whole.pth").state_dict()
    assert "encoder and decoder: all weights" in capsys.readouterr().out
    for name, weights in model.state_dict().items():
        assert torch.equal(started[name], weights), name


def test_an_encoder_file_starts_the_encoder_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = video_autoencoder()
    randomize(model)
    write_encoder(tmp_path / "encoder.safetensors", model.encoder, BEFORE)
    started = build_from(tmp_path / "encoder.safetensors")
    assert "encoder: 30 weights from" in capsys.readouterr().out
    stored = load_file(tmp_path / "encoder.safetensors")
    for name, weights in started.encoder.state_dict().items():
        assert torch.equal(stored[f"encoder.{name}"], weights), name
    assert not torch.equal(head_of(started).weight, head_of(model).weight)
