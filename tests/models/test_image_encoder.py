import math
from pathlib import Path

import pytest
import torch
from small import video_encoder
from small_pretrain import image_encoder, pictures
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pipeline.models.checkpoints import load_image_encoder
from pipeline.models.image_encoder import ImageEncoder, sincos_positions
from pipeline.models.vit import IMAGENET_STD


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def timm_vit(image_size: int = 32) -> VisionTransformer:
    """The same encoder by timm, with weights that could not be defaults."""
    theirs = VisionTransformer(
        img_size=image_size, patch_size=8, num_classes=0, embed_dim=24, depth=2, num_heads=2
    ).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    return theirs


def mae_file(path: Path, theirs: VisionTransformer, positions: Tensor | None) -> Path:
    """An official file: with positions of its own, and a decoder."""
    weights = dict(theirs.state_dict())
    if positions is not None:
        weights["pos_embed"] = positions
    decoder = {"decoder_embed.weight": torch.ones(2, 24), "mask_token": torch.ones(1, 1, 2)}
    torch.save({"model": weights | decoder, "epoch": 799}, path)
    return path


def test_positions_count_columns_first_and_the_class_token_has_none() -> None:
    table = sincos_positions(side=3, dim=8)[0]
    assert not table[0].any()
    # The patch in row 1 and column 2; the second frequency is a hundredth.
    expected = [
        *(math.sin(2), math.sin(0.02), math.cos(2), math.cos(0.02)),
        *(math.sin(1), math.sin(0.01), math.cos(1), math.cos(0.01)),
    ]
    assert table[1 + 1 * 3 + 2].tolist() == pytest.approx(expected, abs=1e-6)


def test_tokens_are_those_of_timm(tmp_path: Path) -> None:
    theirs, ours = timm_vit(), image_encoder()
    report = load_image_encoder(ours, mae_file(tmp_path / "mae.pth", theirs, None))
    expected = theirs.forward_features(ours.normalise(pictures(2)))
    torch.testing.assert_close(ours(pictures(2)), expected)
    assert report.family == "image MAE"
    assert report.dropped == ["decoder_embed.weight", "mask_token"]
    assert report.unexpected == []


def test_a_vit_b_has_as_many_parameters_as_timms() -> None:
    from pipeline.models.image_encoder import ImageEncoderSize

    size = ImageEncoderSize(image_size=224, patch_size=16, dim=768, depth=12, num_heads=12)
    with torch.device("meta"):
        ours = ImageEncoder(size)
    assert sum(p.numel() for p in ours.parameters()) == 85_798_656
    assert [name for name, p in ours.named_parameters() if not p.requires_grad] == ["pos_embed"]


def test_visible_patches_are_those_that_timm_keeps() -> None:
    ours = image_encoder()
    nn.init.normal_(ours.cls_token)
    visible = torch.tensor([[3, 9, 1], [0, 15, 4]])
    tokens = ours(pictures(2), visible)
    # timm drops patches after the positions are added, too.
    x = ours.patch_embed(ours.normalise(pictures(2))) + ours.pos_embed[:, 1:]
    x = torch.stack([patches[numbers] for patches, numbers in zip(x, visible, strict=True)])
    x = torch.cat([ours.cls_token.expand(2, -1, -1), x], dim=1)
    for block in ours.blocks:
        x = block(x)
    torch.testing.assert_close(tokens, ours.norm(x))
    everything = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(ours(pictures(2), everything), ours(pictures(2)))


def test_bytes_and_fractions_of_a_picture_give_the_same_tokens() -> None:
    ours = image_encoder()
    assert torch.equal(ours(pictures(1)), ours(pictures(1) / 255))


def test_fixed_positions_are_computed_for_the_grid_of_the_encoder(tmp_path: Path) -> None:
    theirs = timm_vit(image_size=48)
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        path = mae_file(tmp_path / "mae.pth", theirs, sincos_positions(6, 24).to(kind))
        ours = image_encoder()
        load_image_encoder(ours, path)
        assert torch.equal(ours.pos_embed, sincos_positions(4, 24))


def test_trained_positions_are_taken_for_their_grid_and_no_other(tmp_path: Path) -> None:
    trained = sincos_positions(4, 24) + 0.05
    path = mae_file(tmp_path / "mae.pth", timm_vit(), trained)
    ours = image_encoder()
    load_image_encoder(ours, path)
    assert torch.equal(ours.pos_embed, trained)
    with pytest.raises(ValueError, match="positions were trained for 16 patches, the model has 36"):
        load_image_encoder(image_encoder(image_size=48), path)


def test_an_encoder_of_videos_is_refused_by_name(tmp_path: Path) -> None:
    video = video_encoder(dim=24, depth=2, num_heads=2, image_size=32)
    torch.save({f"encoder.{k}": v for k, v in video.named_parameters()}, tmp_path / "video.pth")
    match = r"video.pth: VideoMAE, pre-trained is an encoder of videos, where one of pictures is"
    with pytest.raises(ValueError, match=match):
        load_image_encoder(image_encoder(), tmp_path / "video.pth")


def test_another_width_or_a_missing_weight_is_refused(tmp_path: Path) -> None:
    theirs = timm_vit()
    path = mae_file(tmp_path / "mae.pth", theirs, None)
    with pytest.raises(ValueError, match="24 wide and 2 blocks deep, where the model's is 28 wide"):
        load_image_encoder(image_encoder(dim=28), path)
    weights = dict(theirs.state_dict())
    del weights["cls_token"]
    torch.save(weights, path)
    with pytest.raises(ValueError, match=r"1 of the encoder's 30 weights .* \['cls_token'\]"):
        load_image_encoder(image_encoder(), path)


def test_an_encoder_starts_as_in_mae() -> None:
    ours = image_encoder(dim=96)
    weights = ours.state_dict()
    assert float(weights["blocks.0.mlp.fc1.weight"].std()) == pytest.approx(
        math.sqrt(2 / (5 * 96)), rel=0.02
    )
    assert float(weights["patch_embed.proj.weight"].std()) == pytest.approx(
        math.sqrt(2 / (96 + 192)), rel=0.03
    )
    assert float(weights["cls_token"].std()) == pytest.approx(0.02, rel=0.3)
    assert not weights["blocks.1.attn.qkv.bias"].any()
    assert weights["std"].flatten().tolist() == pytest.approx(IMAGENET_STD)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="32 px does not divide into patches of 5 px"):
        image_encoder(patch_size=5)
    with pytest.raises(ValueError, match="no width of 30"):
        image_encoder(dim=30)
    with pytest.raises(ValueError, match=r"\(1, 3, 48, 48\), this encoder takes \(B, 3, 32, 32\)"):
        image_encoder()(pictures(1, 48))
