from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import save_file
from small import task_model, video_encoder
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from pipeline.common.encoder_weights import History
from pipeline.models.checkpoints import load_encoder
from pipeline.models.jepa import JepaEncoder, JepaSize, rotation, sincos_3d_positions
from pipeline.models.vit import IMAGENET_MEAN, IMAGENET_STD
from pipeline.mtcae.saved import load_model, save_model

transformers = pytest.importorskip("transformers")

# A head of 14 channels: 4 turn with each axis, 2 stay as they are.
DIM, DEPTH, HEADS = 28, 2, 2
Positions = Literal["sincos_3d", "rotary"]
StateDict = dict[str, Tensor]


def encoder(positions: Positions, *, image_size: int = 32, num_frames: int = 4) -> JepaEncoder:
    size = JepaSize(
        image_size=image_size,
        patch_size=16,
        tubelet_size=2,
        dim=DIM,
        depth=DEPTH,
        num_heads=HEADS,
        positions=positions,
    )
    made = JepaEncoder(size, num_frames=num_frames).eval()
    randomise(made)
    return made


def randomise(module: nn.Module) -> None:
    """Give every parameter, biases included, a value that could not be a default."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)


def frames(image_size: int = 32, num_frames: int = 4) -> Tensor:
    shape = (2, num_frames, 3, image_size, image_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def imagenet_normalised(x: Tensor) -> Tensor:
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (x - mean[:, None, None]) / std[:, None, None]


def published(of: JepaEncoder, positions: Tensor | None) -> StateDict:
    """The encoder as facebookresearch names it, with these positions."""
    names = dict(of.named_parameters())
    state = {f"module.backbone.{name}": value.detach() for name, value in names.items()}
    return state if positions is None else state | {"module.backbone.pos_embed": positions}


def stripped(state: StateDict) -> StateDict:
    return {name.removeprefix("module.backbone."): value for name, value in state.items()}


V_JEPA_POSITIONS = sincos_3d_positions(8, 14, DIM)


# --- The encoders


def test_rotary_encoder_gives_the_tokens_of_transformers(tmp_path: Path) -> None:
    config = transformers.VJEPA2Config(
        crop_size=48, frames_per_clip=6, hidden_size=DIM, num_hidden_layers=DEPTH,
        num_attention_heads=HEADS, pred_hidden_size=12, pred_num_hidden_layers=1,
        pred_num_attention_heads=2,
    )  # fmt: skip
    theirs = transformers.VJEPA2Model(config).eval()
    randomise(theirs)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    ours = encoder("rotary", image_size=48, num_frames=6)
    report = load_encoder(ours, tmp_path / "model.safetensors")
    assert report.family == "V-JEPA 2, Hugging Face"
    assert report.unexpected == []
    assert all(name.startswith("predictor.") for name in report.dropped)
    clip = frames(48, 6)
    expected = theirs(imagenet_normalised(clip), skip_predictor=True).last_hidden_state
    torch.testing.assert_close(ours(clip), expected, atol=1e-5, rtol=1e-5)


def test_bias_on_the_keys_changes_rotary_tokens_and_no_others() -> None:
    for positions, counts in (("rotary", True), ("sincos_3d", False)):
        one = encoder(positions)  # type: ignore[arg-type]
        before = one(frames())
        bias: Any = one.blocks[0].attn.qkv.bias  # type: ignore[union-attr]
        bias.data[DIM : 2 * DIM] += 1.0
        assert torch.allclose(one(frames()), before, atol=1e-4) != counts


def test_first_token_is_not_turned_and_the_others_by_their_three_places() -> None:
    cosines, sines = rotation(slices=2, side=3, head_dim=14)
    assert cosines.shape == (18, 14)
    assert torch.equal(cosines[0], torch.ones(14))
    # Token 16 is in slice 1, row 2, column 1; an axis has the frequencies 1 and 1/100 twice.
    places = torch.tensor([1.0, 2.0, 1.0]).repeat_interleave(4)
    angles = torch.cat([places * torch.tensor([1.0, 0.01]).repeat(6), torch.zeros(2)])
    torch.testing.assert_close(cosines[16], angles.cos())
    torch.testing.assert_close(sines[16], angles.sin())


def test_v_jepa_tokens_are_those_of_timm_blocks_over_patches_and_positions() -> None:
    ours = encoder("sincos_3d", image_size=48)
    clip = imagenet_normalised(frames(48)).transpose(1, 2)
    patches: Any = ours.patch_embed.proj
    x = patches(clip).flatten(2).mT + sincos_3d_positions(2, 3, DIM)
    for i in range(DEPTH):
        block = Block(DIM, HEADS, qkv_bias=True).eval()
        block.load_state_dict(ours.blocks[i].state_dict())
        x = block(x)
    torch.testing.assert_close(ours(frames(48)), ours.norm(x), atol=1e-5, rtol=1e-5)


def test_positions_of_three_axes_follow_the_formula() -> None:
    """`uniform_power`: of 28 channels 10 for the slice, 10 for the row, 8 left for the column."""
    table = sincos_3d_positions(slices=2, side=3, dim=28)
    assert table.shape == (1, 18, 28)
    angles = [10000.0 ** (-j / 5) for j in range(5)]
    slice_, row, column = 1, 2, 1
    expected = [
        value
        for place in (slice_, row, column)
        for wave in (torch.sin, torch.cos)
        for value in wave(torch.tensor([place * angle for angle in angles]))
    ][:28]
    torch.testing.assert_close(table[0, 16], torch.stack(expected))


# --- Files


def test_official_v_jepa_file_is_read_from_its_target_encoder(tmp_path: Path) -> None:
    original = encoder("sincos_3d")
    target = published(original, V_JEPA_POSITIONS)
    other = {name: value + 1 for name, value in target.items()}
    content = {"encoder": other, "predictor": {}, "target_encoder": target, "epoch": 300}
    torch.save(content, tmp_path / "vitl16.pth.tar")
    ours = encoder("sincos_3d")
    ours.norm.weight.data.zero_()
    report = load_encoder(ours, tmp_path / "vitl16.pth.tar")
    assert report.family == "V-JEPA"
    assert torch.equal(ours(frames()), original(frames()))
    assert ours.mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)
    # For a grid of its own, by the rule that the file's own follow.
    assert torch.equal(ours.pos_embed, sincos_3d_positions(2, 2, DIM))


@pytest.mark.parametrize("left_over", [None, torch.zeros(1, 32 * 16 * 16, DIM)])
def test_official_v_jepa_2_file_keeps_its_bias_on_the_keys(
    left_over: Tensor | None, tmp_path: Path
) -> None:
    original = encoder("rotary")
    torch.save({"target_encoder": published(original, left_over)}, tmp_path / "vitl.pt")
    ours = encoder("rotary")
    ours.norm.weight.data.zero_()
    report = load_encoder(ours, tmp_path / "vitl.pt")
    assert report.family == "V-JEPA 2"
    assert torch.equal(ours(frames()), original(frames()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_stripped_files_never_pass_as_fine_tuned_videomae(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    videomae = video_encoder(dim=DIM, depth=DEPTH, num_heads=HEADS, image_size=32, num_frames=4)
    kinds: tuple[tuple[Positions, Tensor | None, str], ...] = (
        ("sincos_3d", V_JEPA_POSITIONS.to(dtype), "V-JEPA"),
        ("rotary", None, "V-JEPA 2"),
    )
    for positions, stored, name in kinds:
        original = encoder(positions)
        path = tmp_path / f"{positions}.pt"
        state = stripped(published(original, stored))
        torch.save({key: value.to(dtype) for key, value in state.items()}, path)
        with pytest.raises(ValueError, match=f"{name} needs the positions {positions}, and"):
            load_encoder(videomae, path)
        other: Positions = "rotary" if positions == "sincos_3d" else "sincos_3d"
        with pytest.raises(ValueError, match=f"{name} needs the positions {positions}, and"):
            load_encoder(encoder(other), path)
        assert load_encoder(encoder(positions), path).family == name


def test_videomae_whose_biases_are_joined_is_still_videomae(tmp_path: Path) -> None:
    original = video_encoder(dim=DIM, depth=DEPTH, num_heads=HEADS, image_size=32, num_frames=4)
    randomise(original)
    state: StateDict = {}
    for name, value in original.state_dict().items():
        if name.endswith("q_bias"):
            v_bias = original.state_dict()[name.replace("q_bias", "v_bias")]
            joined = torch.cat([value, torch.zeros(DIM), v_bias])
            state[name.replace("q_bias", "qkv.bias")] = joined
        elif not name.endswith(("v_bias", "mean", "std")):
            state[name] = value
    ours = video_encoder(dim=DIM, depth=DEPTH, num_heads=HEADS, image_size=32, num_frames=4)
    extras: tuple[StateDict, ...] = ({}, {"pos_embed": original.positions})
    for extra in extras:
        torch.save(state | extra, tmp_path / "x.pth")
        assert load_encoder(ours, tmp_path / "x.pth").family == "VideoMAE, fine-tuned"
        assert torch.equal(ours(frames()), original(frames()))
    torch.save(state | {"pos_embed": original.positions + 0.1}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"its positions \(1, 8, 28\) are neither VideoMAE's"):
        load_encoder(ours, tmp_path / "x.pth")
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="needs the positions sinusoid, and the model has rotary"):
        load_encoder(encoder("rotary"), tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"pos_embed": torch.zeros(1, 8, DIM)}, r"its positions \(1, 8, 28\) are neither"),
        ({"pos_embed": V_JEPA_POSITIONS + 0.01}, r"its positions \(1, 1568, 28\) are neither"),
        ({"head.weight": torch.zeros(7, DIM)}, "it has a bias on the keys, which VideoMAE has not"),
        ({"video_mod_embed": torch.zeros(1, 1, DIM)}, "V-JEPA 2.1 is not a plain ViT"),
    ],
)
def test_a_file_that_does_not_tell_its_positions_is_refused(
    extra: StateDict, message: str, tmp_path: Path
) -> None:
    torch.save(stripped(published(encoder("rotary"), None)) | extra, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=message):
        load_encoder(encoder("rotary"), tmp_path / "x.pt")


@pytest.mark.parametrize("positions", ["sincos_3d", "rotary"])
def test_a_saved_model_gives_its_encoder_back_and_starts_another(
    positions: Positions, tmp_path: Path
) -> None:
    original = encoder(positions)
    sizes = {"dim": 8, "num_heads": 1, "head_dim": 8, "num_layers": 1}
    model = task_model(original, arch="stl", decoder="vit", num_classes=3, **sizes).eval()  # type: ignore[arg-type]
    path = tmp_path / "model.safetensors"
    save_model(path, model, metadata={}, history=History.empty())
    back, _ = load_model(path)
    assert torch.equal(back(frames()).logits, model(frames()).logits)
    ours = encoder(positions)
    ours.norm.weight.data.zero_()
    assert "saved by this project" in load_encoder(ours, path).family
    assert torch.equal(ours(frames()), original(frames()))
