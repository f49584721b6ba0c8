import math
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from small import video_encoder
from torch import Tensor, nn

from pipeline.models.encoder import (
    ConvStem,
    TubeletEmbedding,
    VideoMAEEncoder,
    sinusoid_positions,
)
from pipeline.models.vit import IMAGENET_MEAN, IMAGENET_STD


def tiny_encoder(
    *,
    drop_path: float = 0.0,
    checkpointing: bool = False,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> VideoMAEEncoder:
    torch.manual_seed(0)
    encoder = video_encoder(
        dim=12,
        depth=3,
        num_heads=2,
        image_size=32,
        num_frames=4,
        drop_path=drop_path,
        checkpointing=checkpointing,
    )
    encoder.mean.copy_(torch.tensor(mean).view(3, 1, 1))
    encoder.std.copy_(torch.tensor(std).view(3, 1, 1))
    return encoder


def tiny_frames(batch: int = 2) -> Tensor:
    return torch.rand(batch, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def gradients(encoder: VideoMAEEncoder, frames: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(encoder(frames).square().sum(), list(encoder.parameters())))


def test_position_table_has_the_sines_and_cosines_of_the_transformer() -> None:
    table = sinusoid_positions(num_tokens=1568, dim=4)
    assert table.shape == (1, 1568, 4)
    assert table[0, 0].tolist() == [0.0, 1.0, 0.0, 1.0]
    expected = [math.sin(1567), math.cos(1567), math.sin(15.67), math.cos(15.67)]
    assert table[0, 1567].tolist() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("dim", "depth", "num_heads"),
    [(384, 12, 6), (768, 12, 12), (1024, 24, 16)],
    ids=["small", "base", "large"],
)
def test_parameter_count_is_that_of_the_transformers_library(
    dim: int, depth: int, num_heads: int
) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.VideoMAEConfig(
        hidden_size=dim,
        num_hidden_layers=depth,
        num_attention_heads=num_heads,
        intermediate_size=4 * dim,
        use_mean_pooling=False,
    )
    with torch.device("meta"):
        ours = video_encoder(dim=dim, depth=depth, num_heads=num_heads)
        theirs = transformers.VideoMAEModel(config)
    assert ours.num_tokens == 1568
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_tubelet_embedding_is_the_convolution_whose_weights_it_holds() -> None:
    embedding = tiny_encoder().patch_embed
    assert isinstance(embedding, TubeletEmbedding)
    frames = tiny_frames()
    tokens = F.conv3d(
        frames.transpose(1, 2), embedding.proj.weight, embedding.proj.bias, stride=(2, 16, 16)
    )
    torch.testing.assert_close(embedding(frames), tokens.flatten(2).transpose(1, 2))


def test_a_convolutional_stem_has_the_tokens_of_the_linear_one_in_the_same_order() -> None:
    stem = ConvStem(dim=16, patch_size=8, tubelet_size=2)
    frames = torch.zeros(2, 4, 3, 32, 32)
    changed = frames.clone()
    # In the second tubelet, what the token in row 1 and column 2 is centred on.
    changed[1, 2:, :, 6:11, 14:19] = 1
    tokens, difference = stem(frames), (stem(changed) - stem(frames)).norm(dim=2)
    assert tokens.shape == (2, 2 * 4 * 4, 16)
    assert not difference[0].any()
    assert not difference[1, :16].any()
    assert int(difference[1].argmax()) == 16 + 4 + 2


def test_the_tokens_of_a_convolutional_stem_start_about_as_large_as_positions() -> None:
    torch.manual_seed(0)
    encoder = video_encoder(
        dim=64, depth=1, num_heads=2, image_size=32, patch_size=8, num_frames=4, stem="conv"
    )
    tokens = encoder.patch_embed(torch.rand(8, 4, 3, 32, 32))
    assert tokens.square().mean().item() == pytest.approx(1, abs=0.01)
    assert encoder.positions.square().mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_convolutional_stem_needs_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="no patch_size of 14 px"):
        ConvStem(dim=16, patch_size=14, tubelet_size=2)


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_visible_tokens_are_those_of_clips_that_hold_no_others(
    stem: Literal["linear", "conv"],
) -> None:
    encoder = video_encoder(
        dim=12, depth=2, num_heads=2, image_size=32, num_frames=4, patch_size=16, stem=stem
    )
    frames = tiny_frames()
    visible = torch.tensor([[5, 0, 2], [1, 7, 3]])
    tokens = encoder(frames, visible)
    # By hand: positions first, then the choice.
    frames = encoder.normalise(frames)
    if stem == "conv":  # Its convolutions reach into other tubelets, which are blank.
        blank = torch.zeros(2, 2, 1, 2, 2)
        blank.view(2, 8).scatter_(1, visible, 1)
        blank = blank.repeat_interleave(2, 1).repeat_interleave(16, 3).repeat_interleave(16, 4)
        frames = frames * blank
    x = encoder.patch_embed(frames) + encoder.positions
    x = torch.stack([clip[numbers] for clip, numbers in zip(x, visible, strict=True)])
    for block in encoder.blocks:
        x = block(x)
    torch.testing.assert_close(tokens, encoder.norm(x))


def test_all_tokens_in_order_are_those_that_are_computed_by_default() -> None:
    encoder = tiny_encoder()
    everything = torch.arange(8).expand(2, -1)
    torch.testing.assert_close(encoder(tiny_frames(), everything), encoder(tiny_frames()))


def test_encoder_normalises_its_frames_itself() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    normalising = tiny_encoder(mean=mean, std=std)
    plain = tiny_encoder(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    frames = tiny_frames()
    by_hand = (frames - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(normalising(frames), plain(by_hand))


def test_an_encoder_starts_with_the_normalisation_of_imagenet() -> None:
    encoder = video_encoder(dim=8, depth=1, num_heads=2, image_size=32)
    assert encoder.mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)
    assert encoder.std.flatten().tolist() == pytest.approx(IMAGENET_STD)


def test_bytes_and_fractions_of_a_frame_give_the_same_tokens() -> None:
    encoder = tiny_encoder()
    pixels = (tiny_frames() * 256).byte()
    assert torch.equal(encoder(pixels), encoder(pixels.float() / 255))


def test_normalisation_is_saved_with_the_weights_and_positions_are_not() -> None:
    saved = tiny_encoder(mean=(0.0, 0.0, 0.0)).state_dict()
    assert saved["mean"].flatten().tolist() == [0.0, 0.0, 0.0]
    assert saved["std"].flatten().tolist() == pytest.approx(IMAGENET_STD)
    assert "positions" not in saved


def test_frames_of_160_pixels_have_800_tokens_with_the_first_800_positions() -> None:
    torch.manual_seed(0)
    encoder = video_encoder(dim=8, depth=1, num_heads=2, image_size=160)
    assert encoder.num_tokens == 8 * 10 * 10
    assert torch.equal(encoder.positions, sinusoid_positions(1568, 8)[:, :800])
    tokens = encoder(torch.rand(1, 16, 3, 160, 160))
    assert tokens.shape == (1, 800, 8)
    # The final norm starts as the plain one: every token has mean zero and unit variance.
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(1, 800), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        tokens.var(-1, unbiased=False), torch.ones(1, 800), atol=1e-2, rtol=0
    )


def test_layer_norms_have_the_epsilon_of_videomae() -> None:
    norms = [module for module in tiny_encoder().modules() if isinstance(module, nn.LayerNorm)]
    assert [norm.eps for norm in norms] == [1e-6] * 7


def test_drop_path_rises_linearly_from_zero_to_the_last_block() -> None:
    blocks = tiny_encoder(drop_path=0.2).blocks
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_checkpointing_changes_neither_tokens_nor_gradients() -> None:
    stored, recomputed = tiny_encoder(), tiny_encoder(checkpointing=True)
    frames = tiny_frames()
    assert torch.equal(stored(frames), recomputed(frames))
    for expected, gradient in zip(
        gradients(stored, frames), gradients(recomputed, frames), strict=True
    ):
        assert torch.equal(gradient, expected)


def test_checkpointing_repeats_the_random_paths_in_the_backward_pass() -> None:
    stored = tiny_encoder(drop_path=0.9)
    recomputed = tiny_encoder(drop_path=0.9, checkpointing=True)
    frames = tiny_frames(batch=8)
    torch.manual_seed(3)
    expected = gradients(stored, frames)
    torch.manual_seed(3)
    for gradient, value in zip(gradients(recomputed, frames), expected, strict=True):
        assert torch.equal(gradient, value)


def test_frozen_encoder_stays_in_evaluation_mode_and_gets_no_gradient() -> None:
    encoder = tiny_encoder(drop_path=0.9)
    head = nn.Linear(12, 1)
    model = nn.Sequential(encoder, head)
    encoder.freeze()
    model.train()
    assert head.training
    assert not any(module.training for module in encoder.modules())

    frames = tiny_frames()
    assert torch.equal(encoder(frames), encoder(frames))
    model(frames).sum().backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert head.weight.grad is not None


def test_frames_of_another_size_or_length_are_refused() -> None:
    encoder = tiny_encoder()
    with pytest.raises(ValueError, match=r"\(1, 4, 3, 48, 48\).*\(B, \*\(4, 3, 32, 32\)\)"):
        encoder(torch.rand(1, 4, 3, 48, 48))
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 32, 32\)"):
        encoder(torch.rand(1, 3, 4, 32, 32))


@pytest.mark.parametrize(("image_size", "num_frames"), [(225, 16), (224, 15)])
def test_sizes_that_do_not_divide_into_tubelets_are_refused(
    image_size: int, num_frames: int
) -> None:
    with pytest.raises(ValueError, match=f"{num_frames} frames of {image_size} px"):
        video_encoder(dim=8, depth=1, num_heads=2, image_size=image_size, num_frames=num_frames)
