"""The models that are measured: those of params.yaml, and a small one of the paper's frames."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.models.start import FROM_SCRATCH
from pipeline.mtcae.build import build_model
from pipeline.mtcae.model import MTCAE

NUM_CLASSES = 7  # RAVDESS
_PARAMS = Path(__file__).parents[1] / "params.yaml"
_PRESETS = yaml.safe_load(_PARAMS.read_text(encoding="utf-8"))["models"]
MODELS: dict[str, dict[str, Any]] = {
    # 1568 tokens as in the paper, where tiny has 98.
    "narrow": {
        **_PRESETS["tiny"],
        **{key: _PRESETS["large"][key] for key in ("image_size", "patch_size", "tubelet_size")},
        "encoder_dim": 192,
        "encoder_heads": 3,
        "decoder_dim": 96,
    },
    **_PRESETS,
}


def random_model(model: str, *, arch: str, decoder: str, frozen: bool = False) -> MTCAE:
    """A structure with random weights, on torch's default device."""
    built = build_model(
        arch=arch,
        decoder=decoder,
        num_classes=NUM_CLASSES,
        weights=Path(FROM_SCRATCH),
        frozen=False,  # which asks for a checkpoint
        drop_path=0.0,
        checkpointing=False,
        num_frames=16,
        **MODELS[model],
    )
    if frozen:
        built.encoder.freeze()
    return built
