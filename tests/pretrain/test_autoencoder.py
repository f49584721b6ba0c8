import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml
from project import ROOT
from small_pretrain import (
    DECODER,
    DEPTH,
    DIM,
    FRAMES,
    HEADS,
    SIDE,
    clips,
    head_of,
    image_autoencoder,
    pictures,
    video_autoencoder,
)
from torch import Tensor, nn

from pipeline.models.vit import IMAGENET_MEAN, IMAGENET_STD
from pipeline.pretrain.autoencoder import MaskedAutoencoder
from pipeline.pretrain.build import build_image_autoencoder, build_video_autoencoder
from pipeline.pretrain.recipe import ModelSizes
from pipeline.pretrain.video import VideoAutoencoder

transformers = pytest.importorskip("transformers")
StateDict = dict[str, Tensor]
BOTH = pytest.mark.parametrize(
    ("build", "inputs"), [(video_autoencoder, clips), (image_autoencoder, pictures)]
)
Build = Callable[..., MaskedAutoencoder]
Renaming = Callable[[StateDict], StateDict]


def masks_of(model: MaskedAutoencoder, count: int) -> Tensor:
    return torch.stack([model.masking.draw(f"{i}", seed=1, epoch=1) for i in range(count)])


def randomize(module: nn.Module) -> None:
    """Give every weight, biases and norms included, a value that could not be a default."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2, generator=generator)


# --- Sizes


def sizes(name: str) -> ModelSizes:
    text = (ROOT / "pretrain/params.yaml").read_text(encoding="utf-8")
    return ModelSizes.model_validate(yaml.safe_load(text)["models"][name])


@pytest.mark.parametrize(
    ("name", "decoder_depth", "num_parameters"),
    [
        ("small", 4, 24_029_376),
        ("base", 4, 94_210_944),
        ("large", 12, 342_996_992),
        ("large", 4, 317_782_016),
    ],
)
def test_videomae_has_as_many_parameters_as_the_official_code(
    name: str, decoder_depth: int, num_parameters: int
) -> None:
    size = sizes(name).videomae
    decoder = size.decoder.model_copy(update={"depth": decoder_depth})
    with torch.device("meta"):
        model = build_video_autoencoder(
            size.model_copy(update={"decoder": decoder}),
            num_frames=16,
            mask_ratio=0.9,
            checkpointing=False,
            start=None,
        )
    assert sum(p.numel() for p in model.parameters()) == num_parameters
    assert (model.masking.num_visible, model.masking.num_tokens) == (160, 1568)


def test_the_large_preset_has_the_decoder_of_the_scripts() -> None:
    assert sizes("large").videomae.decoder.depth == 12


def test_mae_has_as_many_parameters_as_the_official_code() -> None:
    with torch.device("meta"):
        model = build_image_autoencoder(
            sizes("base").mae, mask_ratio=0.75, checkpointing=False, start=None
        )
    assert sum(p.numel() for p in model.parameters()) == 111_907_840
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 111_655_680
    # A ViT-B/16 with its positions, as fine-tuning trains it.
    assert sum(p.numel() for p in model.encoder.parameters()) == 85_798_656


# --- The same as transformers


def rename(state: StateDict, *renames: tuple[str, str]) -> StateDict:
    """Keys renamed by patterns in order, separate q, k and v joined."""
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in renames:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    for key in list(renamed):
        if match := re.fullmatch(r"(.*\.attn)\.q\.(weight|bias)", key):
            attention, kind = match.groups()
            parts = [renamed.pop(f"{attention}.{x}.{kind}", None) for x in "qkv"]
            q, k, v = parts
            assert q is not None
            assert v is not None
            if k is None:  # VideoMAE's bias
                renamed |= {f"{attention}.q_bias": q, f"{attention}.v_bias": v}
            else:
                renamed[f"{attention}.qkv.{kind}"] = torch.cat([q, k, v])
    return renamed


def from_videomae(state: StateDict) -> StateDict:
    return rename(
        state,
        (r"^videomae\.embeddings\.patch_embeddings\.projection", "encoder.patch_embed.proj"),
        (r"^videomae\.encoder\.layer", "encoder.blocks"),
        (r"^videomae\.layernorm", "encoder.norm"),
        (r"^decoder\.decoder_layers", "decoder.blocks"),
        (r"attention\.attention\.(q|k|v)(uery|ey|alue)", r"attn.\1"),
        (r"attention\.output\.dense", "attn.proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"output\.dense", "mlp.fc2"),
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
    )


def from_vit_mae(state: StateDict) -> StateDict:
    return rename(
        state,
        (r"^vit\.embeddings\.patch_embeddings\.projection", "encoder.patch_embed.proj"),
        (r"^vit\.embeddings\.cls_token", "encoder.cls_token"),
        (r"^vit\.embeddings\.position_embeddings", "encoder.pos_embed"),
        (r"^vit\.layers", "encoder.blocks"),
        (r"^vit\.layernorm", "encoder.norm"),
        (r"^decoder\.decoder_layers", "decoder_blocks"),
        (r"^decoder\.", ""),
        (r"attention\.([qkv])_proj", r"attn.\1"),
        (r"attention\.o_proj", "attn.proj"),
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
    )


def config(kind: type[Any], **settings: object) -> Any:
    """With the epsilon of the official code, which transformers does not take by itself."""
    return kind(
        hidden_size=DIM,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * DIM,
        image_size=SIDE,
        decoder_hidden_size=DECODER.dim,
        decoder_num_hidden_layers=DECODER.depth,
        decoder_num_attention_heads=DECODER.num_heads,
        decoder_intermediate_size=4 * DECODER.dim,
        layer_norm_eps=1e-6,
        norm_pix_loss=True,
        **settings,
    )


def gradients(module: nn.Module) -> StateDict:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def normalised(pixels: Tensor) -> Tensor:
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (pixels / 255 - mean[:, None, None]) / std[:, None, None]


def check_equal(
    ours: MaskedAutoencoder, theirs: nn.Module, losses: tuple[Tensor, Tensor], names: Renaming
) -> None:
    """Compare two losses, and the gradients of all weights."""
    own, other = losses
    torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)
    own.backward()  # type: ignore[no-untyped-call]
    other.backward()  # type: ignore[no-untyped-call]
    found, expected = gradients(ours), names(gradients(theirs))
    assert found.keys() == expected.keys()
    assert found.keys() == {name for name, p in ours.named_parameters() if p.requires_grad}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-5, msg=name)


def test_videomae_has_the_loss_and_the_gradients_of_transformers() -> None:
    settings = config(transformers.VideoMAEConfig, num_frames=FRAMES, use_mean_pooling=False)
    theirs = transformers.VideoMAEForPreTraining(settings)
    theirs.decoder.norm.eps = 1e-6  # 1e-5 there, whatever the settings say
    randomize(theirs)
    weights = from_videomae(theirs.state_dict())
    # Early releases of transformers 5 lose these.
    assert weights["encoder.blocks.1.attn.q_bias"].abs().min() > 0
    assert weights["decoder.blocks.0.attn.v_bias"].abs().min() > 0
    ours = video_autoencoder()
    missing, unexpected = ours.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["encoder.mean", "encoder.std"], [])
    frames, masks = clips(3), masks_of(ours, 3)
    loss = theirs(normalised(frames), bool_masked_pos=masks).loss
    check_equal(ours, theirs, (ours(frames, masks).mean(), loss), from_videomae)


def test_mae_has_the_loss_and_the_gradients_of_transformers() -> None:
    settings = config(transformers.ViTMAEConfig, patch_size=8, mask_ratio=0.75)
    theirs = transformers.ViTMAEForPreTraining(settings)
    # A model that is built there and not loaded has positions of zero.
    theirs.vit.embeddings.patch_embeddings.projection._is_hf_initialized = False
    theirs.vit.embeddings.initialize_weights()
    theirs.decoder.initialize_weights(16)
    randomize(theirs)
    ours = image_autoencoder()
    fixed = {name: value.clone() for name, value in ours.state_dict().items() if "pos" in name}
    weights = from_vit_mae(theirs.state_dict())
    assert fixed.keys() == {"encoder.pos_embed", "decoder_pos_embed"}
    for name, positions in fixed.items():
        torch.testing.assert_close(weights[name], positions)
    missing, unexpected = ours.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["encoder.mean", "encoder.std"], [])
    images, noise = pictures(3), torch.rand(3, 16)
    masks = torch.ones(3, 16, dtype=torch.bool).scatter(1, noise.argsort(1)[:, :4], False)
    loss = theirs(normalised(images), noise=noise).loss
    check_equal(ours, theirs, (ours(images, masks).mean(), loss), from_vit_mae)


# --- What the loss is


@BOTH
def test_a_prediction_of_zero_scores_the_share_of_the_unbiased_variance(
    build: Build, inputs: Callable[[int], Tensor]
) -> None:
    model = build(patch_size=16, mask_ratio=0.5)
    nn.init.zeros_(head_of(model).weight)
    expected = 511 / 512 if isinstance(model, VideoAutoencoder) else 767 / 768
    errors = model(inputs(3), masks_of(model, 3))
    assert errors.tolist() == pytest.approx([expected] * 3, abs=1e-4)


@BOTH
def test_the_pixels_of_masked_tokens_change_no_prediction(
    build: Build, inputs: Callable[[int], Tensor]
) -> None:
    model = build()
    whole, masks = inputs(2) / 255, masks_of(model, 2)
    places = model.hide(whole, masks) == 0.5
    blank = whole.masked_fill(places, 0.1)
    predicted = [model.predict(pixels, masks) for pixels in (whole, blank)]
    assert torch.equal(*predicted)


def test_masked_pixels_do_not_leak_through_a_convolutional_stem() -> None:
    model = video_autoencoder(stem="conv", patch_size=8)
    whole, masks = clips(2) / 255, masks_of(model, 2)
    blank = whole.masked_fill(model.hide(whole, masks) == 0.5, 0.1)
    assert torch.equal(model.predict(whole, masks), model.predict(blank, masks))
    # Those of the visible tokens do change something.
    assert not torch.equal(model.predict(whole, masks), model.predict(whole.flip(0), masks))


@BOTH
def test_the_pictures_show_the_truth_where_tokens_are_visible(
    build: Build, inputs: Callable[[int], Tensor]
) -> None:
    model = build()
    whole, masks = inputs(2), masks_of(model, 2)
    hidden, shown = model.hide(whole, masks), model.reconstruct(whole, masks)
    grey = hidden == 0.5
    assert grey.float().mean().item() == pytest.approx(masks.float().mean().item(), abs=1e-3)
    torch.testing.assert_close(hidden[~grey], (whole / 255)[~grey])
    torch.testing.assert_close(shown[~grey], (whole / 255)[~grey])


@BOTH
def test_the_pictures_show_what_is_predicted_where_tokens_are_masked(
    build: Build, inputs: Callable[[int], Tensor]
) -> None:
    model = build()
    whole, masks = inputs(2), masks_of(model, 2)
    truth = model.targets(whole)
    nn.init.zeros_(head_of(model).weight)
    # A prediction of zero is the mean of the token, everywhere.
    again = model.targets(model.reconstruct(whole, masks))
    torch.testing.assert_close(again.mean[masks], truth.mean[masks], atol=1e-5, rtol=0)
    assert again.deviation[masks].max() < 1.1e-3  # what is added to a deviation of zero


# --- Memory and speed


@BOTH
def test_checkpointing_changes_neither_loss_nor_gradients(
    build: Build, inputs: Callable[[int], Tensor]
) -> None:
    stored, recomputed = build(), build(checkpointing=True)
    for model in (stored, recomputed):
        model(inputs(2), masks_of(model, 2)).sum().backward()
    for name, gradient in gradients(stored).items():
        assert torch.equal(gradient, gradients(recomputed)[name]), name


@BOTH
def test_nothing_waits_for_the_device(build: Build, inputs: Callable[[int], Tensor]) -> None:
    """Tensors without values have no numbers on which a shape could depend."""
    model = build().to("meta")
    errors = model(inputs(2).to("meta"), masks_of(model, 2).to("meta"))
    assert errors.shape == (2,)
    errors.sum().backward()


@pytest.mark.gpu
@BOTH
def test_a_gpu_never_waits_in_a_step(build: Build, inputs: Callable[[int], Tensor]) -> None:
    model = build()
    masks = masks_of(model, 2).cuda()
    model, pixels = model.cuda(), inputs(2).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(pixels, masks).sum()
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@BOTH
def test_the_whole_model_compiles_without_a_break(
    build: Build, inputs: Callable[[int], Tensor]
) -> None:
    model = build()
    pixels, masks = inputs(2), masks_of(model, 2)
    expected = model(pixels, masks)
    model.compile(fullgraph=True, dynamic=False, backend="eager")
    torch.testing.assert_close(model(pixels, masks), expected)


@BOTH
def test_in_half_precision_targets_and_loss_stay_in_float32(
    build: Build, inputs: Callable[[int], Tensor]
) -> None:
    model = build()
    pixels, masks = inputs(2), masks_of(model, 2)
    expected = model(pixels, masks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        errors = model(pixels, masks)
        values = model.targets(pixels).values
        assert model.predict(pixels, masks).dtype == torch.bfloat16
    assert errors.dtype == torch.float32
    assert torch.equal(values, model.targets(pixels).values)
    torch.testing.assert_close(errors, expected, rtol=0.02, atol=0)


@BOTH
def test_masks_or_pixels_of_another_grid_are_refused(
    build: Build, inputs: Callable[[int], Tensor]
) -> None:
    model = build()
    with pytest.raises(ValueError, match=r"masks are \(2, 7\), this encoder has \d+ tokens"):
        model(inputs(2), torch.zeros(2, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"31, 32\), this encoder takes"):
        model(inputs(2)[..., 1:, :], masks_of(model, 2))


# --- How it starts


def test_videomae_starts_with_the_deviations_of_the_official_code() -> None:
    size = sizes("small").videomae
    model = build_video_autoencoder(
        size, num_frames=16, mask_ratio=0.9, checkpointing=False, start=None
    )
    weights = model.state_dict()

    def deviation(name: str) -> float:
        return float(weights[name].std())

    # Xavier: 2 / (inputs + outputs); torch's own: 1 / (3 inputs).
    assert deviation("encoder.blocks.3.mlp.fc1.weight") == pytest.approx(
        (2 / 1920) ** 0.5, rel=0.01
    )
    assert deviation("decoder.blocks.3.attn.qkv.weight") == pytest.approx(
        (2 / 768) ** 0.5, rel=0.01
    )
    assert deviation("encoder.patch_embed.proj.weight") == pytest.approx(
        (1 / 4608) ** 0.5, rel=0.01
    )
    assert deviation("encoder_to_decoder.weight") == pytest.approx((1 / 1152) ** 0.5, rel=0.01)
    assert weights["mask_token"].abs().max() <= 0.02
    assert not weights["encoder.blocks.0.mlp.fc1.bias"].any()
