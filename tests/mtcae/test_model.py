from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from small import task_model, video_encoder
from torch import Tensor, nn

from pipeline.mtcae.model import MTCAE, Head, Predictions
from pipeline.mtcae.structures import STRUCTURES

ALL = {"boxes", "points", "logits"}
every_structure = pytest.mark.parametrize(("arch", "decoder"), STRUCTURES)


def build(
    arch: str, decoder: str, *, depth: int = 1, num_layers: int = 2, norm_before_pool: bool = False
) -> MTCAE:
    torch.manual_seed(0)
    encoder = video_encoder(dim=12, depth=depth, num_heads=2, image_size=32, num_frames=4)
    return task_model(
        encoder,
        arch=arch,
        decoder=decoder,
        num_classes=7,
        dim=8,
        num_heads=3,
        head_dim=8,
        num_layers=num_layers,
        norm_before_pool=norm_before_pool,
    )


def random_frames() -> Tensor:
    return torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def predicted(predictions: Predictions) -> dict[str, Tensor]:
    return {task: value for task, value in predictions._asdict().items() if value is not None}


def backward(outputs: Iterable[Tensor]) -> None:
    """Gradients of the sum of squares of all outputs."""
    torch.autograd.backward([output.float().square().sum() for output in outputs])


def parts(model: MTCAE) -> dict[str, nn.Module]:
    """The model taken apart: encoder, project, every decoder and every head."""
    named: dict[str, nn.Module] = {"encoder": model.encoder}
    tasks = model.tasks
    if tasks.structure.arch != "stl":
        named["project"] = tasks.project
    named |= {f"decoder {name}": module for name, module in tasks.decoders.items()}
    return named | {f"head {name}": module for name, module in tasks.heads.items()}


def by_hand(model: MTCAE, tokens: Tensor) -> dict[str, Tensor]:
    """Table I's structures written out; what each head must say of the encoder's tokens."""
    arch, decoder_kind = model.tasks.structure
    heads: Any = model.tasks.heads
    if arch == "stl":
        return {"logits": heads["expression"](tokens)}
    decoders: Any = model.tasks.decoders
    project: Any = model.tasks.project
    f = tokens @ project[1].weight.T
    if decoder_kind == "mlp":
        dec = {name: (lambda y, _f, d=decoder: d(y)) for name, decoder in decoders.items()}
    else:
        dec = dict(decoders.items())
    if arch == "non_fully_shared":
        y1, y2, y3 = dec["boxes"](f, f), dec["points"](f, f), dec["expression"](f, f)
    elif arch == "fully_shared":
        y0 = dec["shared"](f, f)
        y1, y2, y3 = dec["boxes"](y0, f), dec["points"](y0, f), dec["expression"](y0, f)
    else:
        y1 = dec["boxes"](f, f)
        y2 = dec["points"](y1, f)
        y3 = dec["expression"](y2, f)
    batch = len(tokens)
    return {
        "boxes": heads["boxes"](y1).view(batch, 4, 4),
        "points": heads["points"](y2).view(batch, 4, 5, 2),
        "logits": heads["expression"](y3),
    }


@every_structure
def test_structure_is_the_one_written_out_by_hand(arch: str, decoder: str) -> None:
    model = build(arch, decoder).eval()
    frames = random_frames()
    tokens = model.encoder(frames)
    expected = by_hand(model, tokens)
    for outputs in (predicted(model(frames)), predicted(model.tasks(tokens))):
        assert outputs.keys() == expected.keys()
        for task, value in outputs.items():
            torch.testing.assert_close(value, expected[task])


@every_structure
def test_stored_half_precision_tokens_are_widened_and_the_encoder_is_not_run(
    arch: str, decoder: str
) -> None:
    model = build(arch, decoder).eval()
    tokens = model.encoder(random_frames()).detach().half()
    model.encoder.register_forward_hook(lambda *_: pytest.fail("the encoder was run"))
    expected = predicted(model.tasks(tokens.float()))
    for task, value in predicted(model.tasks(tokens)).items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[task])


@pytest.mark.parametrize(
    ("arch", "decoder", "reached"),
    [
        ("non_fully_shared", "mlp", {"boxes": "boxes", "points": "points", "expression": "logits"}),
        ("non_fully_shared", "vit", {"boxes": "boxes", "points": "points", "expression": "logits"}),
        (
            "fully_shared",
            "mlp",
            {
                "shared": "boxes points logits",
                "boxes": "boxes",
                "points": "points",
                "expression": "logits",
            },
        ),
        (
            "fully_shared",
            "vit",
            {
                "shared": "boxes points logits",
                "boxes": "boxes",
                "points": "points",
                "expression": "logits",
            },
        ),
        (
            "cascaded",
            "vit",
            {"boxes": "boxes points logits", "points": "points logits", "expression": "logits"},
        ),
    ],
)
def test_a_change_in_a_decoders_output_reaches_only_the_heads_downstream(
    arch: str, decoder: str, reached: dict[str, str]
) -> None:
    model = build(arch, decoder).eval()
    frames = random_frames()
    before = predicted(model(frames))
    assert set(model.tasks.decoders) == set(reached)
    for name, module in model.tasks.decoders.items():
        hook = module.register_forward_hook(lambda _m, _i, output: output + torch.randn(8))
        after = predicted(model(frames))
        hook.remove()
        changed = {task for task in after if not torch.equal(after[task], before[task])}
        assert changed == set(reached[name].split()), name


UPSTREAM: dict[tuple[str, str], set[str]] = {
    ("stl", "logits"): set(),
    ("non_fully_shared", "boxes"): {"boxes"},
    ("non_fully_shared", "points"): {"points"},
    ("non_fully_shared", "logits"): {"expression"},
    ("fully_shared", "boxes"): {"shared", "boxes"},
    ("fully_shared", "points"): {"shared", "points"},
    ("fully_shared", "logits"): {"shared", "expression"},
    ("cascaded", "boxes"): {"boxes"},
    ("cascaded", "points"): {"boxes", "points"},
    ("cascaded", "logits"): {"boxes", "points", "expression"},
}


@every_structure
def test_the_gradient_of_a_task_reaches_exactly_its_head_and_what_feeds_it(
    arch: str, decoder: str
) -> None:
    model = build(arch, decoder)
    frames = random_frames()
    for task in predicted(model(frames)):
        model.zero_grad()
        backward([predicted(model(frames))[task]])
        expected = {"encoder", f"head {'expression' if task == 'logits' else task}"}
        expected |= {f"decoder {name}" for name in UPSTREAM[arch, task]}
        expected |= set() if arch == "stl" else {"project"}
        touched = {
            name
            for name, part in parts(model).items()
            if any(p.grad is not None and p.grad.any() for p in part.parameters())
        }
        assert touched == expected, task
        # Nothing is left without a gradient inside a part that has one.
        for name in expected:
            assert all(p.grad is not None for p in parts(model)[name].parameters()), name


@every_structure
def test_frozen_encoder_leaves_gradients_to_the_rest(arch: str, decoder: str) -> None:
    model = build(arch, decoder)
    model.encoder.freeze()
    model.train()
    backward(predicted(model(random_frames())).values())
    for name, part in parts(model).items():
        has_gradient = [p.grad is not None for p in part.parameters()]
        assert not any(has_gradient) if name == "encoder" else all(has_gradient), name


def layer_norm(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize(
    ("norm_before_pool", "pool"),
    [(False, lambda x: layer_norm(x.mean(1))), (True, lambda x: layer_norm(x).mean(1))],
)
def test_head_pools_and_norms_in_the_order_asked_for(
    norm_before_pool: bool, pool: Callable[[Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    head = Head(8, 3, dropout=0.1, norm_before_pool=norm_before_pool).eval()
    tokens = torch.randn(2, 5, 8) * 3 + 1
    torch.testing.assert_close(head(tokens), pool(tokens) @ head.proj.weight.T)


def test_norm_before_pool_reaches_every_head() -> None:
    model = build("cascaded", "vit", norm_before_pool=True)
    assert [head.norm_before_pool for head in model.tasks.heads.values()] == [True] * 3


def test_proposed_model_at_paper_size_has_its_parts_parameters() -> None:
    with torch.device("meta"):
        encoder = video_encoder(dim=1024, depth=24, num_heads=16)
        model = task_model(encoder, arch="cascaded", decoder="vit", num_classes=7)
    projection = 1024 * 512
    heads = 3 * 2 * 512 + 513 * (64 + 160 + 7)
    total = sum(p.numel() for p in model.parameters())
    assert total == 303_860_736 + projection + 3 * 21_016_064 + heads


@pytest.mark.parametrize(
    ("arch", "decoder", "named"),
    [
        ("cascade", "vit", "'cascade'"),
        ("fully_shared", "cnn", "'cnn'"),
        ("cascaded", "mlp", "'mlp'"),
    ],
)
def test_unknown_structure_is_refused_with_those_there_are(
    arch: str, decoder: str, named: str
) -> None:
    with pytest.raises(
        ValueError, match=f"{named}.* use stl, non_fully_shared mlp, .*cascaded vit"
    ):
        build(arch, decoder)


def test_stl_ignores_the_decoder() -> None:
    expected = build("stl", "vit").eval()(random_frames()).logits
    assert torch.equal(build("stl", "none").eval()(random_frames()).logits, expected)


def test_parameters_are_counted_in_layers_from_the_output() -> None:
    model = build("cascaded", "vit", depth=3)
    found = {name: model.layers_from_output(name) for name in dict(model.named_parameters())}
    assert found["tasks.heads.boxes.proj.weight"] == 0
    assert found["tasks.project.1.weight"] == 0
    assert found["encoder.norm.weight"] == 0
    assert [found[f"encoder.blocks.{i}.norm1.weight"] for i in range(3)] == [3, 2, 1]
    assert found["encoder.patch_embed.proj.weight"] == 4


@every_structure
def test_bfloat16_autocast_stays_near_float32_with_finite_gradients(
    arch: str, decoder: str
) -> None:
    model = build(arch, decoder).eval()
    frames = random_frames()
    exact = predicted(model(frames))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = predicted(model(frames))
    for task, value in rounded.items():
        torch.testing.assert_close(value.float(), exact[task], atol=0.05, rtol=0)
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = predicted(model(frames))
    backward(outputs.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.slow
def test_compiled_model_gives_the_same_predictions_and_gradients() -> None:
    model = build("cascaded", "vit", num_layers=1).eval()
    frames = random_frames()
    eager = predicted(model(frames))
    backward(eager.values())
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    compiled = torch.compile(model, fullgraph=True)
    outputs = predicted(compiled(frames))
    backward(outputs.values())
    for task, value in outputs.items():
        torch.testing.assert_close(value, eager[task], atol=1e-5, rtol=1e-4)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-4, rtol=1e-3)


@every_structure
def test_the_heads_answer_in_single_precision_under_bfloat16(arch: str, decoder: str) -> None:
    model = build(arch, decoder)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = model(random_frames())
    answers = [answer for answer in predictions if answer is not None]
    assert {answer.dtype for answer in answers} == {torch.float32}
    # The numbers, too, and not only their type: some of them do not fit into bfloat16.
    assert any((answer != answer.bfloat16().float()).any() for answer in answers)
