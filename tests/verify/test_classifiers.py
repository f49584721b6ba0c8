from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.verify.classifiers import load_classifier

transformers = pytest.importorskip("transformers")
DIM, CLASSES = 64, 5


def hugging_face(*, use_mean_pooling: bool) -> Any:
    """A small classifier with random weights, norms and biases included."""
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=4 * DIM,
        image_size=32,
        num_frames=4,
        num_labels=CLASSES,
        use_mean_pooling=use_mean_pooling,
        layer_norm_eps=1e-6,
    )
    theirs = transformers.VideoMAEForVideoClassification(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.1)
    return theirs


def official(theirs: Any) -> dict[str, Tensor]:
    """By the names of the official release, as fine-tuning saves them."""
    names = {
        "videomae.embeddings.patch_embeddings.projection.": "patch_embed.proj.",
        "videomae.encoder.layer.": "blocks.",
        "layernorm_before.": "norm1.",
        "layernorm_after.": "norm2.",
        "attention.attention.query.bias": "attn.q_bias",
        "attention.attention.value.bias": "attn.v_bias",
        "attention.output.dense.": "attn.proj.",
        "intermediate.dense.": "mlp.fc1.",
        "output.dense.": "mlp.fc2.",
        "classifier.": "head.",
    }
    state: dict[str, Tensor] = {}
    for key, tensor in theirs.state_dict().items():
        name = key
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = tensor.contiguous()
    for i in range(2):
        parts = [
            state.pop(f"blocks.{i}.attention.attention.{p}.weight")
            for p in ("query", "key", "value")
        ]
        state[f"blocks.{i}.attn.qkv.weight"] = torch.cat(parts)
    return state


@torch.no_grad()
@pytest.mark.parametrize("use_mean_pooling", [True, False])
def test_a_checkpoint_of_transformers_gives_its_logits(
    use_mean_pooling: bool, tmp_path: Path
) -> None:
    theirs = hugging_face(use_mean_pooling=use_mean_pooling)
    theirs.save_pretrained(tmp_path)
    ours = load_classifier(tmp_path / "model.safetensors", image_size=32, num_frames=4)
    frames = torch.rand(2, 4, 3, 32, 32)
    expected = theirs(ours.encoder.normalise(frames)).logits
    torch.testing.assert_close(ours(frames), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_checkpoint_of_the_official_code_gives_the_same_logits(tmp_path: Path) -> None:
    theirs = hugging_face(use_mean_pooling=True)
    torch.save({"module": official(theirs), "epoch": 3}, tmp_path / "best.pth")
    ours = load_classifier(tmp_path / "best.pth", image_size=32, num_frames=4)
    frames = torch.rand(2, 4, 3, 32, 32)
    expected = theirs(ours.encoder.normalise(frames)).logits
    torch.testing.assert_close(ours(frames), expected, atol=1e-5, rtol=1e-5)


def test_of_several_heads_one_is_named(tmp_path: Path) -> None:
    state = official(hugging_face(use_mean_pooling=True))
    state["sfer_head.weight"] = torch.zeros(3, DIM)
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    with pytest.raises(ValueError, match=r"which head\? There are .*head \(5 classes\).*--head"):
        load_classifier(path, image_size=32, num_frames=4)
    for name, count in (("head", 5), ("sfer_head", 3)):
        chosen = load_classifier(path, image_size=32, num_frames=4, head=name)
        assert chosen.head.out_features == count


def test_an_encoder_without_a_head_was_not_fine_tuned(tmp_path: Path) -> None:
    state = official(hugging_face(use_mean_pooling=True))
    del state["head.weight"], state["head.bias"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="no head over 64 features: it was not fine-tuned"):
        load_classifier(tmp_path / "model.safetensors", image_size=32, num_frames=4)
