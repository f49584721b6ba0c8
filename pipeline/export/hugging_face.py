"""An encoder in the layout of Hugging Face's VideoMAE: config.json and model.safetensors.

Source: the model code of huggingface/transformers (VideoMAEConfig, VideoMAEModel).
"""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.common.encoder_weights import History
from pipeline.common.files import atomic_path, write_json
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.models.video_encoders import VideoEncoder

_RENAMES = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.", "encoder.layer."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.(q|v)_bias$", r".attention.attention.\1_bias"),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


def write_hugging_face(folder: Path, encoder: VideoEncoder, history: History) -> None:
    """Write what `VideoMAEModel.from_pretrained` and `VideoMAEImageProcessor` load.

    Its `last_hidden_state` are the encoder's tokens; `layernorm` is its final norm, so the config
    says `use_mean_pooling: false`.

    Raises:
        ValueError: The encoder is none of VideoMAE's, or has a stem that VideoMAE has not.
    """
    if not isinstance(encoder, VideoMAEEncoder):
        raise ValueError(
            f"an encoder with {encoder.size.positions} positions is V-JEPA's and no VideoMAE: "
            "export to onnx or folder"
        )
    if encoder.size.stem != "linear":
        raise ValueError(
            f"an encoder with the stem {encoder.size.stem!r} is no VideoMAE: train with "
            "`encoder.stem: linear` (presets small, base, large), or export to onnx or folder"
        )
    write_json(folder / "config.json", config(encoder))
    mean, std = encoder.mean.flatten().tolist(), encoder.std.flatten().tolist()
    write_json(folder / "preprocessor_config.json", _preprocessor(encoder, mean, std))
    weights = {name: tensor.contiguous() for name, tensor in published_weights(encoder).items()}
    header = history.header() | {"format": "pt"}
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata=header)


def config(encoder: VideoMAEEncoder) -> dict[str, Any]:
    """The fields of VideoMAEConfig."""
    size = encoder.size
    return {
        "architectures": ["VideoMAEModel"],
        "model_type": "videomae",
        "image_size": size.image_size,
        "patch_size": size.patch_size,
        "num_channels": 3,
        "num_frames": encoder.num_frames,
        "tubelet_size": size.tubelet_size,
        "hidden_size": size.dim,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.num_heads,
        "intermediate_size": 4 * size.dim,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "use_mean_pooling": False,
    }


def published_weights(encoder: VideoMAEEncoder) -> dict[str, Tensor]:
    """The encoder's weights by the names that the files of MCG-NJU have."""
    weights: dict[str, Tensor] = {}
    for name, tensor in encoder.state_dict().items():
        if name in ("mean", "std"):
            continue  # They are in preprocessor_config.json.
        new = name
        for pattern, replacement in _RENAMES:
            new = re.sub(pattern, replacement, new)
        if match := re.fullmatch(r"(.*)\.attn\.qkv\.weight", new):
            parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
            weights |= {f"{match[1]}.attention.attention.{part}.weight": w for part, w in parts}
        else:
            weights[new] = tensor
    return {name: tensor.detach().to("cpu", torch.float32) for name, tensor in weights.items()}


def _preprocessor(encoder: VideoMAEEncoder, mean: list[float], std: list[float]) -> dict[str, Any]:
    """Faces are cut out before, so nothing is cropped; values are rounded as they were written."""
    side = encoder.size.image_size
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 3,  # bicubic
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [round(value, 6) for value in mean],
        "image_std": [round(value, 6) for value in std],
    }
