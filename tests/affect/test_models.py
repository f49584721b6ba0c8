from typing import Any

import pytest
import torch
from small import image_encoder
from timm import create_model
from torch import Tensor, nn
from torchvision.models import resnet18

from pipeline.affect.choices import VAInput
from pipeline.affect.cotex import MaskedCoTEX
from pipeline.affect.dan import DAN
from pipeline.affect.emma import EMMA, HeadSize
from pipeline.models.image_encoder import ImageEncoder, ImageEncoderSize

BASE = ImageEncoderSize(image_size=224, patch_size=16, dim=768, depth=12, num_heads=12)
HEADS = HeadSize(score_dim=512, va_dim=256)


def vit_base() -> ImageEncoder:
    encoder = ImageEncoder(BASE)
    encoder.pos_embed.requires_grad_()
    return encoder


def emma(va_input: VAInput = "both", num_cnn_classes: int = 8) -> EMMA:
    torch.manual_seed(0)
    return EMMA(
        image_encoder(),
        HeadSize(score_dim=16, va_dim=8),
        num_classes=8,
        num_aus=12,
        num_cnn_classes=num_cnn_classes,
        va_input=va_input,
    )


def num_trainable(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def pictures(count: int, side: int = 32, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=random, dtype=torch.uint8)


def test_emma_has_as_many_parameters_as_published() -> None:
    with torch.device("meta"):
        model = EMMA(
            vit_base(), HEADS, num_classes=8, num_aus=12, num_cnn_classes=8, va_input="both"
        )
        cnn = DAN(8)
    assert num_trainable(model.encoder) == 85_798_656
    assert num_trainable(model.score_head) == 403_988
    assert num_trainable(model.va_head) == 7_938
    assert num_trainable(model) == 86_210_582
    assert num_trainable(cnn) == 19_724_248
    assert num_trainable(model) + num_trainable(cnn) == 105_934_830


@pytest.mark.parametrize(
    ("num_classes", "views", "count"),
    [(6, 2, 171_606_540), (8, 2, 171_609_616), (6, 1, 171_606_540 // 2)],
)
def test_cotex_has_as_many_parameters_as_published(
    num_classes: int, views: int, count: int
) -> None:
    with torch.device("meta"):
        encoders = [vit_base() for _ in range(views)]
        assert num_trainable(MaskedCoTEX(encoders, num_classes=num_classes, mask_rate=0)) == count


def test_the_encoder_is_timms_vit_base() -> None:
    with torch.device("meta"):
        plain = create_model("vit_base_patch16_224", num_classes=0)
    ours = {name: tensor.shape for name, tensor in plain.state_dict().items()}
    with torch.device("meta"):
        theirs = {name: weight.shape for name, weight in vit_base().named_parameters()}
    assert ours == theirs


def test_valence_and_arousal_are_computed_from_both_sets_of_scores() -> None:
    model = emma().eval()
    scores = torch.randn(3, 8)
    found = model(pictures(3), scores)
    assert [tuple(column.shape) for column in found] == [(3, 2), (3, 8), (3, 12)]
    inputs = torch.cat([scores, found.expression, found.aus], dim=1)
    torch.testing.assert_close(found.valence_arousal, model.va_head(inputs))
    # The order within the 28 numbers: the CNN's first.
    assert not torch.equal(model(pictures(3), scores.flip(1))[0], found.valence_arousal)


def test_the_gradient_of_valence_and_arousal_goes_on_through_the_scores() -> None:
    model = emma()
    numbers = model(pictures(2), torch.randn(2, 8)).valence_arousal
    weights = [model.get_parameter("score_head.0.weight"), model.encoder.cls_token]
    assert all(gradient.any() for gradient in torch.autograd.grad(numbers.sum(), weights))


@pytest.mark.parametrize(
    ("va_input", "width", "by_cnn", "by_vit"),
    [
        ("vit_scores", 20, False, True),
        ("cnn_scores", 8, True, False),
        ("both", 28, True, True),
        ("features", 16, False, False),
    ],
)
def test_valence_and_arousal_depend_on_what_they_are_said_to(
    va_input: VAInput, width: int, by_cnn: bool, by_vit: bool
) -> None:
    model = emma(va_input).eval()
    assert model.va_head[0].in_features == width
    scores = torch.randn(2, 8)
    found = model(pictures(2), scores).valence_arousal
    assert torch.equal(model(pictures(2), scores + 1).valence_arousal, found) != by_cnn
    with torch.no_grad():
        model.get_parameter("score_head.2.bias").add_(1)
    assert torch.equal(model(pictures(2), scores).valence_arousal, found) != by_vit


def test_without_a_cnn_its_scores_cannot_be_read() -> None:
    assert emma("vit_scores", num_cnn_classes=0).eval()(
        pictures(2), torch.empty(2, 0)
    ).valence_arousal.shape == (2, 2)
    with pytest.raises(ValueError, match="va_input: both needs the scores of a CNN"):
        emma("both", num_cnn_classes=0)


def cotex(mask_rate: float, views: int = 2) -> MaskedCoTEX:
    torch.manual_seed(0)
    return MaskedCoTEX([image_encoder() for _ in range(views)], num_classes=6, mask_rate=mask_rate)


@pytest.mark.parametrize(("mask_rate", "kept"), [(0.25, 12), (0.5, 8), (0.7, 4), (0.75, 4)])
def test_each_view_sees_a_random_subset_of_its_own_of_every_picture(
    mask_rate: float, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cotex(mask_rate).train()
    seen: list[Tensor] = []
    forward = ImageEncoder.forward

    def spy(self: ImageEncoder, inputs: Tensor, visible: Tensor | None = None) -> Tensor:
        assert visible is not None
        seen.append(visible)
        return forward(self, inputs, visible)

    monkeypatch.setattr(ImageEncoder, "forward", spy)
    model(pictures(40))
    assert [tuple(view.shape) for view in seen] == [(40, kept)] * 2  # of 16 patches
    drawn = [frozenset(row) for view in seen for row in view.tolist()]
    assert all(len(subset) == kept for subset in drawn)
    assert len(set(drawn)) > 40
    # Every patch is as likely as another.
    counts = torch.cat(seen).flatten().bincount(minlength=16)
    assert counts.min() > 0.5 * 80 * kept / 16


def test_a_masked_view_is_the_vit_of_the_patches_that_it_sees() -> None:
    """The oracle is timm's blocks on a token sequence without the hidden ones."""
    model = cotex(0.5).train()
    view: Any = model.views[0]
    encoder = view.encoder
    torch.manual_seed(3)
    found = view(pictures(2))
    torch.manual_seed(3)
    visible = torch.rand(2, 16).argsort(dim=1)[:, :8]
    patches = encoder.patch_embed(encoder.normalise(pictures(2)))
    placed = patches + encoder.pos_embed[:, 1:]
    kept = torch.stack([one[numbers] for one, numbers in zip(placed, visible, strict=True)])
    first = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(2, -1, -1)
    tokens = torch.cat([first, kept], dim=1)
    for block in encoder.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(found, view.head(encoder.norm(tokens)[:, 0]))


def test_nothing_is_masked_in_a_test_and_the_views_have_weights_of_their_own() -> None:
    masked, whole = cotex(0.75).eval(), cotex(0).eval()
    assert torch.equal(masked(pictures(3)), whole(pictures(3)))
    assert torch.equal(whole.train()(pictures(3)), whole.eval()(pictures(3)))
    first, second = masked(pictures(3))
    assert not torch.allclose(first, second)


def test_masking_must_leave_a_patch() -> None:
    with pytest.raises(ValueError, match=r"0\.99 hides all 16 patches"):
        cotex(0.99)


def test_rates_fall_from_the_heads_to_the_embedding() -> None:
    model = emma()
    names = [name for name, _ in model.named_parameters()]
    depths = {name: model.layers_from_output(name) for name in names}
    assert depths["va_head.0.weight"] == depths["score_head.2.bias"] == 0
    assert depths["encoder.norm.weight"] == 0
    assert depths["encoder.blocks.1.attn.qkv.weight"] == 1
    assert depths["encoder.blocks.0.mlp.fc1.bias"] == 2
    embedding = ("cls_token", "pos_embed", "patch_embed.proj.weight")
    assert {depths[f"encoder.{name}"] for name in embedding} == {3}
    two = cotex(0)
    assert two.layers_from_output("views.1.encoder.blocks.0.norm1.weight") == 2
    assert two.layers_from_output("views.1.head.weight") == 0


def test_dan_is_its_formula() -> None:
    """By functions of torch on the weights, for what comes after ResNet-18's trunk."""
    torch.manual_seed(0)
    model = DAN(8).eval()
    for buffer in model.buffers():
        if buffer.is_floating_point():  # statistics that matter
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    trunk = resnet18().eval()
    layers = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    renamed = {}
    for name, tensor in model.features.state_dict().items():
        number, _, rest = name.partition(".")
        renamed[f"{layers[int(number)]}.{rest}"] = tensor
    assert trunk.load_state_dict(renamed, strict=False).missing_keys == ["fc.weight", "fc.bias"]
    batch = torch.randn(2, 3, 64, 64)
    maps = batch
    for layer in layers:
        maps = trunk.get_submodule(layer)(maps)
    summed = []
    for i in range(4):
        head: Any = model.get_submodule(f"cat_head{i}")
        inner = head.sa.conv1x1(maps)
        three = [head.sa.get_submodule(f"conv_{k}")(inner) for k in ("3x3", "1x3", "3x1")]
        weights = torch.relu(three[0] + three[1] + three[2]).sum(1, keepdim=True)
        pooled = (maps * weights).mean((2, 3))
        summed.append(pooled * head.ca.attention(pooled))
    stacked = torch.stack(summed)
    logits = model.fc((stacked - stacked.logsumexp(dim=0)).sum(dim=0))
    expected = torch.nn.functional.batch_norm(
        logits, model.bn.running_mean, model.bn.running_var, model.bn.weight, model.bn.bias
    )
    torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-4)
