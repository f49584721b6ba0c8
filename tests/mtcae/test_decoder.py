from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.mtcae.decoder import Attention, CrossAttention, MLPDecoder, ViTDecoder


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def randomized(module: nn.Module) -> nn.Module:
    """The module in float64 and evaluation mode, no parameter left at zero or one."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


@pytest.mark.parametrize(
    ("dim", "num_layers", "published"), [(256, 3, 3_159_296), (512, 5, 21_016_064)]
)
def test_parameter_count_is_the_authors(dim: int, num_layers: int, published: int) -> None:
    with torch.device("meta"):
        decoder = ViTDecoder(dim, num_heads=3, head_dim=dim, num_layers=num_layers)
    assert num_parameters(decoder) == published


def norm(x: Tensor, module: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + 1e-6).sqrt() * module.weight + module.bias


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def algorithm_1(decoder: ViTDecoder, y: Tensor, features: Tensor, num_heads: int) -> Tensor:
    """Algorithm 1 of the paper, head by head, with nothing but einsum and exp."""
    memory = norm(features, decoder.memory_norm)
    layers: Any = decoder.layers
    for layer in layers:
        attention, mlp = layer.attention, layer.mlp
        q_all = torch.einsum("bmd,kd->bmk", norm(y, layer.norm1), attention.query.weight)
        k_all = torch.einsum("bnd,kd->bnk", memory, attention.key.weight) + attention.key.bias
        v_all = torch.einsum("bnd,kd->bnk", memory, attention.value.weight) + attention.value.bias
        q_all = q_all + attention.query.bias
        head_dim = q_all.shape[-1] // num_heads
        z = attention.proj.bias
        for head in range(num_heads):
            part = slice(head * head_dim, (head + 1) * head_dim)
            scores = torch.einsum("bmk,bnk->bmn", q_all[..., part], k_all[..., part])
            weights = (scores / head_dim**0.5).exp()
            weights = weights / weights.sum(-1, keepdim=True)
            attended = torch.einsum("bmn,bnk->bmk", weights, v_all[..., part])
            z = z + torch.einsum("bmk,dk->bmd", attended, attention.proj.weight[:, part])
        z = z + y
        hidden = gelu(
            torch.einsum("bmd,hd->bmh", norm(z, layer.norm2), mlp[0].weight) + mlp[0].bias
        )
        y = z + gelu(torch.einsum("bmh,dh->bmd", hidden, mlp[3].weight) + mlp[3].bias)
    return y


@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 3),
    num_queries=st.integers(1, 5),
    num_tokens=st.integers(1, 6),
    dim=st.integers(2, 8),
    num_heads=st.integers(1, 3),
    head_dim=st.integers(1, 7),
    num_layers=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_vit_decoder_is_algorithm_1(
    batch: int,
    num_queries: int,
    num_tokens: int,
    dim: int,
    num_heads: int,
    head_dim: int,
    num_layers: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    decoder = ViTDecoder(dim, num_heads, head_dim, num_layers)
    randomized(decoder)
    queries = torch.randn(batch, num_queries, dim, dtype=torch.float64)
    features = torch.randn(batch, num_tokens, dim, dtype=torch.float64)
    expected = algorithm_1(decoder, queries, features, num_heads)
    torch.testing.assert_close(decoder(queries, features), expected, rtol=1e-6, atol=1e-8)


def test_attention_is_torch_multihead_attention_where_the_width_divides() -> None:
    torch.manual_seed(0)
    ours = CrossAttention(dim=12, num_heads=3, head_dim=4, dropout=0.0)
    randomized(ours)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double().eval()
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]),
            "in_proj_bias": torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]),
            "out_proj.weight": ours.proj.weight,
            "out_proj.bias": ours.proj.bias,
        }
    )
    queries = torch.randn(2, 5, 12, dtype=torch.float64)
    memory = torch.randn(2, 7, 12, dtype=torch.float64)
    expected, _ = theirs(queries, memory, memory)
    torch.testing.assert_close(ours(queries, memory), expected)


def test_queries_do_not_see_one_another_but_see_every_memory_token() -> None:
    torch.manual_seed(0)
    decoder = ViTDecoder(8, num_heads=3, head_dim=8, num_layers=2)
    randomized(decoder)
    queries, memory = torch.randn(2, 1, 5, 8, dtype=torch.float64)
    before = decoder(queries, memory)

    other_query = queries.clone()
    other_query[:, 2] += 1 + torch.arange(8)
    changed = (decoder(other_query, memory) - before).abs().amax(dim=(0, 2)) > 1e-9
    assert changed.tolist() == [False, False, True, False, False]

    other_memory = memory.clone()
    other_memory[:, 2] = torch.randn(8)
    assert ((decoder(queries, other_memory) - before).abs().amax(dim=(0, 2)) > 1e-9).all()


def test_mlp_decoder_is_the_vit_decoder_without_its_attention() -> None:
    torch.manual_seed(0)
    vit = ViTDecoder(8, num_heads=3, head_dim=8, num_layers=3)
    randomized(vit)
    mlp = MLPDecoder(8, num_layers=3).double().eval()
    pairs: Any = zip(vit.layers, mlp.layers, strict=True)
    for vit_layer, mlp_layer in pairs:
        nn.init.zeros_(vit_layer.attention.proj.weight)
        nn.init.zeros_(vit_layer.attention.proj.bias)
        mlp_layer[0].load_state_dict(vit_layer.norm2.state_dict())
        mlp_layer[1].load_state_dict(vit_layer.mlp.state_dict())
    queries = torch.randn(2, 5, 8, dtype=torch.float64)
    memory = torch.randn(2, 7, 8, dtype=torch.float64)
    torch.testing.assert_close(mlp(queries), vit(queries, memory))


@pytest.mark.parametrize("kind", ["fused", "written_out"])
def test_attention_dropout_removes_whole_memory_tokens_and_only_in_training(
    kind: Attention,
) -> None:
    torch.manual_seed(0)
    attention = CrossAttention(dim=4, num_heads=1, head_dim=4, dropout=0.5, attention=kind)
    # Uniform attention over values that are one-hot per token: the output is the mask itself.
    nn.init.zeros_(attention.query.weight)
    for layer in (attention.value, attention.proj):
        nn.init.eye_(layer.weight)
    for layer in (attention.query, attention.value, attention.proj):
        nn.init.zeros_(layer.bias)
    queries, memory = torch.randn(1, 500, 4), torch.eye(4)[None]

    attention.eval()
    torch.testing.assert_close(attention(queries, memory), torch.full((1, 500, 4), 0.25))
    attention.train()
    dropped = attention(queries, memory)
    assert set(dropped.unique().tolist()) == {0.0, 0.5}
    assert dropped.mean().item() == pytest.approx(0.25, abs=0.025)


def test_weights_start_as_in_keras() -> None:
    torch.manual_seed(0)
    # The paper's sizes; Keras' kernels of q, k and v are (512, 3, 512), that of the output
    # projection is (3, 512, 512).
    decoder = ViTDecoder(512, 3, 512, 1)
    bounds = {
        "attention.query": (6 / (512 * 3 + 512 * 512)) ** 0.5,
        "attention.key": (6 / (512 * 3 + 512 * 512)) ** 0.5,
        "attention.value": (6 / (512 * 3 + 512 * 512)) ** 0.5,
        "attention.proj": (6 / (3 * 512 + 3 * 512)) ** 0.5,
        "mlp.0": (6 / (512 + 1024)) ** 0.5,
        "mlp.3": (6 / (1024 + 512)) ** 0.5,
    }
    assert [round(bounds[f"attention.{name}"], 4) for name in ("query", "proj")] == [0.0048, 0.0442]
    for name, bound in bounds.items():
        layer = decoder.layers[0].get_submodule(name)
        assert isinstance(layer, nn.Linear)
        assert 0.999 * bound < layer.weight.abs().max().item() <= bound
        assert layer.bias.abs().sum() == 0


def test_attention_written_out_says_the_same_as_the_fused_one_and_learns_the_same() -> None:
    torch.manual_seed(0)
    fused = CrossAttention(12, num_heads=3, head_dim=4, dropout=0.3, attention="fused")
    randomized(fused)
    written_out = CrossAttention(12, 3, 4, dropout=0.3, attention="written_out").double().eval()
    written_out.load_state_dict(fused.state_dict())
    queries, memory = torch.randn(2, 5, 12).double(), torch.randn(2, 7, 12).double()
    for attention in (fused, written_out):
        attention(queries, memory).square().sum().backward()
    torch.testing.assert_close(written_out(queries, memory), fused(queries, memory))
    for one, other in zip(fused.parameters(), written_out.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.fixture
def fused_widths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The widths of the heads whose attention was given to torch's fused kernels."""
    widths: list[int] = []

    def fused(q: Tensor, k: Tensor, v: Tensor, dropout_p: float) -> Tensor:
        widths.append(q.shape[-1])
        return v

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", fused)
    return widths


def test_attention_that_chooses_for_itself_is_fused_on_a_cpu(fused_widths: list[int]) -> None:
    tokens = torch.randn(1, 3, 2)
    kinds: tuple[Attention, ...] = ("auto", "fused", "written_out")
    for kind in kinds:
        CrossAttention(2, num_heads=1, head_dim=512, dropout=0, attention=kind)(tokens, tokens)
    assert fused_widths == [512, 512]


@pytest.mark.gpu
def test_wide_heads_are_written_out_on_a_gpu_and_narrow_ones_are_not(
    fused_widths: list[int],
) -> None:
    tokens = torch.randn(1, 3, 2, device="cuda")
    for width in (256, 257):
        CrossAttention(2, num_heads=1, head_dim=width, dropout=0).cuda()(tokens, tokens)
    assert fused_widths == [256]


def gradients(attention: CrossAttention, tokens: Tensor) -> Tensor:
    """Of the sum of squares of its outputs, for all its weights; (num_weights,) float64."""
    attention(tokens, tokens).double().square().sum().backward()
    found = [parameter.grad for parameter in attention.parameters()]
    return torch.cat([gradient.double().flatten() for gradient in found if gradient is not None])


@pytest.mark.gpu
def test_attention_written_out_in_bf16_on_a_gpu_is_as_exact_as_the_fused_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    exact = CrossAttention(64, 3, 128, dropout=0.0, attention="fused").cuda().double()
    tokens = torch.randn(2, 300, 64, device="cuda")
    expected = gradients(exact, tokens.double())
    kinds: list[torch.dtype] = []

    def dropout(weights: Tensor, *_: object) -> Tensor:
        kinds.append(weights.dtype)
        return weights

    monkeypatch.setattr("torch.nn.functional.dropout", dropout)

    def error(kind: Attention) -> float:
        attention = CrossAttention(64, 3, 128, dropout=0.0, attention=kind).cuda()
        attention.load_state_dict(exact.state_dict())
        with torch.autocast("cuda", torch.bfloat16):
            found = gradients(attention, tokens)
        return float((found - expected).norm() / expected.norm())

    assert error("written_out") < 1.5 * error("fused") < 0.02
    assert kinds == [torch.bfloat16] * 3  # no weights of four bytes
